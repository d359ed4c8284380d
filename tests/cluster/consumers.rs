//! What runs once in a cluster: on one node at a time, and on another soon after that died.

use pulsehub::{
    broker::{Broker, PublishError},
    consumer::{Consumer, ConsumerError, Holding},
    store::Store,
    telemetry::Telemetry,
    time::Clock,
};

use super::journal;
use crate::support::{event, filter, redis::RedisServer};

async fn node(redis: &RedisServer) -> (Broker, Store) {
    let clock = Clock::system();
    let broker = Broker::join(journal(), redis.server(), clock.clone(), Telemetry::new());
    (broker.await.unwrap(), Store::join(redis.server(), clock).await.unwrap())
}

fn consumer(name: &str, (broker, store): &(Broker, Store)) -> Consumer {
    Consumer::new("alerts", name, filter(&["a.*"]), broker.clone(), store.clone())
}

/// The ids of the next `count` events; each delivery is done once it is taken if `is_done`.
async fn take(holding: &mut Holding, count: usize, is_done: bool) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let delivery = holding.next().await.unwrap();
        assert!(!delivery.has_gap);
        for record in delivery.records() {
            let event: serde_json::Value = serde_json::from_slice(record.json()).unwrap();
            ids.push(event["id"].as_str().unwrap().to_owned());
        }
        if is_done {
            holding.done(delivery.position).await.unwrap();
        }
    }
    ids
}

#[tokio::test]
async fn a_consumer_moves_when_its_node_dies_and_the_dead_cannot_write() {
    let redis = RedisServer::start().await;
    let (one, two) = (node(&redis).await, node(&redis).await);
    let mut first = consumer("one", &one).hold().await.unwrap();
    let publish = async |id: &str| {
        one.0.publish(vec![event("a.x", "s", id, None, "1")]).await.unwrap();
        one.0.publish(vec![event("b.x", "s", id, None, "1")]).await.unwrap();
    };
    publish("1").await;
    assert_eq!(take(&mut first, 1, true).await, ["1"]);
    publish("2").await;
    assert_eq!(take(&mut first, 1, false).await, ["2"]);
    let written = vec![event("hub.alerts", "hub", "w1", None, "1")];
    one.0.publish_fenced(written, first.fence()).await.unwrap();
    // It hangs: it neither renews nor gives back. The other gets the lease when it has run out.
    let mut second = consumer("two", &two).hold().await.unwrap();
    assert_eq!(take(&mut second, 1, true).await, ["2"], "what was not done is done again");
    publish("3").await;
    assert_eq!(take(&mut second, 1, true).await, ["3"]);
    // It wakes up.
    let position = one.0.head();
    assert!(matches!(first.done(position).await, Err(ConsumerError::Lost)));
    let late = vec![event("hub.alerts", "hub", "w2", None, "1")];
    let refused = one.0.publish_fenced(late, first.fence()).await;
    assert_eq!(refused, Err(PublishError::Fenced));
    assert!(matches!(first.next().await, Err(ConsumerError::Lost)));
    second.release().await.unwrap();
    let mut third = consumer("one", &one).hold().await.unwrap();
    publish("4").await;
    assert_eq!(take(&mut third, 1, true).await, ["4"]);
}
