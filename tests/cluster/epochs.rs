//! One node in the old epoch while another is in the new one: nobody is led across a loss unawares.

use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use pulsehub::{
    broker::{Broker, Resumption, redis as redis_log},
    bytesize::ByteSize,
    dialect::Form,
    hub::{self, Hub, Start, Subscription, TaskWaker},
    position::Position,
    protocol::Mode,
    redis::{RedisConfig, Server},
    telemetry::Telemetry,
    time::{Clock, Span},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{follower, journal, next, node};
use crate::support::{
    admitted, event, eventually, filter,
    hub::{TestHub, offset},
    port::free_port,
    proxy::Proxy,
    redis::RedisServer,
};

const IDS: [&str; 3] = ["one", "two", "three"];

/// Stores one, alone and too large to be kept in memory with others; false if it is refused.
async fn is_stored(hub: &TestHub, id: &str) -> bool {
    let event = json!({"topic": "t.a", "id": id, "data": "x".repeat(900)});
    let request = hub.http().post(hub.url("/api/v1/publish"));
    let answer = request.bearer_auth(hub.token("p", &["**"])).json(&event).send().await.unwrap();
    answer.status() == 200
}

async fn history(hub: &TestHub, after: &str) -> (StatusCode, Value) {
    let url = hub.url(&format!("/api/v1/history?topics=t.*&after={after}"));
    let answer = hub.http().get(url).bearer_auth(hub.token("r", &["**"])).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

fn ids(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().unwrap().iter();
    events.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_page_read_while_redis_lost_it_leads_nobody_across_the_loss() {
    let redis = RedisServer::start().await;
    let way = Proxy::to(redis.port()).await;
    let url = way.url();
    // Patient, for an answer is held back; and what is asked for is not in memory.
    let flags = [("redis", &*url), ("cluster.timeout", "20s"), ("journal.recent_bytes", "1 KiB")];
    let (late, other) = (TestHub::with(&flags).await, node(&redis).await);
    let mut client = follower(&late).await;
    for id in IDS {
        assert!(is_stored(&late, id).await);
    }
    let (mut lost, mut count) = (Value::Null, 0);
    while count < IDS.len() {
        let frame = next(&mut client, &["events", "gap"]).await;
        count += ids(&frame).len();
        lost = frame["position"].clone();
    }
    way.hold(b"(0-0");
    let asked = history(&late, "0");
    let happens = async {
        way.is_holding().await;
        redis.ask::<()>(&["FLUSHALL"]).await;
        // Whoever published them does so again.
        for id in IDS {
            eventually("a publish", async || is_stored(&other, id).await.then_some(())).await;
        }
        // The node whose page is under way has heard of all that.
        let gap = next(&mut client, &["events", "gap"]).await;
        assert_eq!(gap["reason"], "epoch", "{gap}");
        let again = next(&mut client, &["events", "gap"]).await;
        assert!(offset(&again["position"]) > offset(&lost), "{again}");
        way.release();
        again["position"].clone()
    };
    let ((status, mut page), new) = tokio::join!(asked, happens);
    assert_eq!(status, 200, "{page}");
    let epoch = |position: &Value| position.as_str().unwrap().split_once(':').unwrap().0.to_owned();
    assert_eq!(epoch(&page["next"]), epoch(&new), "it was done again in the new epoch");
    // As any client reads on, on any node.
    let mut seen = ids(&page);
    let mut is_end = false;
    while !is_end {
        let (status, more) = history(&other, page["next"].as_str().unwrap()).await;
        if status == 410 {
            seen.clear();
            (_, page) = history(&other, "0").await;
        } else {
            page = more;
        }
        seen.extend(ids(&page));
        is_end = page["next"] == page["position"];
    }
    assert_eq!(seen, IDS, "each once");
    // Not even a position that was put together from both epochs leads across.
    for position in [lost.as_str().unwrap(), &format!("{}:{}", epoch(&new), offset(&lost))] {
        let (status, page) = history(&other, position).await;
        assert_eq!((status.as_u16(), &page["code"]), (410, &json!("epoch_changed")), "{position}");
    }
}

/// Redis behind `way`, for somebody patient.
fn patient(way: &Proxy) -> Server {
    let config = RedisConfig { prefix: "pulsehub".into(), timeout: Span::seconds(20), replicas: 0 };
    Server::new(&way.url().into(), config).unwrap()
}

async fn join(server: Server) -> Broker {
    Broker::join(journal(), server, Clock::system(), Telemetry::new()).await.unwrap()
}

async fn publish(broker: &Broker, id: &str) -> Position {
    broker.publish(admitted(vec![event("t.a", "s", id, None, "1")])).await.unwrap().position
}

/// The next thing stored begins an epoch, as after a restart that lost nothing.
async fn change_identity(redis: &RedisServer, name: &str) {
    redis.ask::<()>(&["HSET", "{pulsehub}:meta", "identity", name]).await;
}

#[tokio::test]
async fn who_resumes_from_an_epoch_that_the_node_then_hears_of_is_told_a_position_of_it() {
    let redis = RedisServer::start().await;
    let way = Proxy::to(redis.port()).await;
    let (late, other) = (join(patient(&way)).await, join(redis.server()).await);
    publish(&other, "one").await;
    eventually("the first", async || (late.head().offset == 1).then_some(())).await;
    way.hold(b"XREAD");
    way.is_holding().await;
    change_identity(&redis, "restarted").await;
    let position = publish(&other, "two").await;
    assert_ne!(position.epoch, late.epochs().newest(), "then this test shows nothing");
    let config = hub::HubConfig {
        tail_bytes: ByteSize(1 << 20),
        chunk_bytes: ByteSize(1 << 20),
        replay_bytes: ByteSize(1 << 20),
        latest_keys: 10,
        latest_bytes: ByteSize(1 << 20),
        max_hz: 10.0,
    };
    let hub = Hub::new(late.clone(), config, Telemetry::new());
    let subscription = Subscription {
        form: Form::Events,
        filter: filter(&["t.*"]),
        mode: Mode::All,
        max_hz: None,
        start: Start::Resume(position),
        owner: None,
    };
    let mut subscribing = pin!(hub.subscribe(subscription, Arc::new(TaskWaker::default())));
    let first = subscribing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(first, Poll::Pending), "it asks Redis what epoch that is");
    way.release();
    let (_cursor, start) = subscribing.await.unwrap();
    assert_eq!(
        (start.position, start.head.epoch, start.recovered),
        (position, position.epoch, true)
    );
    assert_eq!(
        other.epochs().resume(start.position).await.unwrap(),
        Resumption::From(position.offset)
    );
}

#[tokio::test]
async fn a_node_that_is_behind_leads_nobody_back() {
    let redis = RedisServer::start().await;
    let way = Proxy::to(redis.port()).await;
    let url = way.url();
    let flags = [("redis", &*url), ("cluster.timeout", "300ms"), ("socket.ping", "1s")];
    let (behind, ahead) = (TestHub::with(&flags).await, node(&redis).await);
    let mut client = follower(&behind).await;
    assert!(is_stored(&ahead, "one").await);
    next(&mut client, &["events"]).await;
    let nobody = free_port();
    way.lead_to(nobody);
    assert!(is_stored(&ahead, "two").await);
    let (_, page) = history(&ahead, "0").await;
    let position = page["next"].clone();
    let mut client = behind.client("c", &["t.*"]).await;
    let resume = json!({"sub": "s", "topics": ["t.*"], "resume": position});
    assert_eq!(client.subscribe(resume).await["position"], position);
    assert_eq!(next(&mut client, &["live", "gap"]).await["type"], "live");
    let ping = next(&mut client, &["ping"]).await;
    let head = offset(&ping["head"]);
    assert!(ping["caught_up"] == json!([]) && head < offset(&position), "{ping}");
    let (status, page) = history(&behind, position.as_str().unwrap()).await;
    assert_eq!((status.as_u16(), &page["next"], &page["position"]), (200, &position, &position));
    way.lead_to(redis.port());
    assert!(is_stored(&ahead, "three").await);
    assert_eq!(ids(&next(&mut client, &["events", "gap"]).await), ["three"]);
}

#[tokio::test]
async fn pages_lead_back_over_the_end_of_an_epoch() {
    let redis = RedisServer::start().await;
    let hub = node(&redis).await;
    assert!(is_stored(&hub, "one").await);
    let (_, page) = history(&hub, "0").await;
    let last = page["next"].clone();
    change_identity(&redis, "restarted").await;
    // A node that is just saying hello may refuse once; a producer tries again.
    eventually("a second event", async || is_stored(&hub, "two").await.then_some(())).await;
    let (status, page) = history(&hub, last.as_str().unwrap()).await;
    assert_eq!((status.as_u16(), ids(&page)), (200, vec!["two".to_owned()]), "{page}");
    let before = page["first"].as_str().unwrap();
    let url = hub.url(&format!("/api/v1/history?topics=t.*&before={before}"));
    let answer = hub.http().get(url).bearer_auth(hub.token("r", &["**"])).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(ids(&answer.json().await.unwrap()), ["one"]);
}

#[tokio::test]
async fn an_export_does_not_go_on_in_another_epoch() {
    let redis = RedisServer::start().await;
    let way = Proxy::to(redis.port()).await;
    let broker = join(redis.server()).await;
    for n in 0..64 {
        publish(&broker, &n.to_string()).await;
    }
    way.hold(b"XRANGE");
    let mut blocks = 0;
    let export = redis_log::export(patient(&way), 0, |_| {
        blocks += 1;
        Ok::<(), Infallible>(())
    });
    let happens = async {
        way.is_holding().await;
        change_identity(&redis, "restarted").await;
        publish(&broker, "more").await;
        way.release();
    };
    let (exported, ()) = tokio::join!(export, happens);
    let error = exported.unwrap_err().to_string();
    assert!(blocks == 64 && error.contains("a new epoch"), "{blocks} {error}");
    redis_log::export(redis.server(), 0, |_| Ok::<(), Infallible>(())).await.unwrap().unwrap();
    broker.close().await;
}

#[tokio::test]
async fn a_check_calls_no_log_damaged_that_goes_on_in_another_epoch() {
    let redis = RedisServer::start().await;
    let way = Proxy::to(redis.port()).await;
    let broker = join(redis.server()).await;
    for n in 0..64 {
        publish(&broker, &n.to_string()).await;
    }
    way.hold(b"XRANGE");
    let happens = async {
        way.is_holding().await;
        change_identity(&redis, "restarted").await;
        publish(&broker, "more").await;
        way.release();
    };
    let (checked, ()) = tokio::join!(redis_log::check(patient(&way)), happens);
    let error = checked.map(|report| report.faults).unwrap_err().to_string();
    assert!(error.contains("a new epoch"), "{error}");
    let report = redis_log::check(redis.server()).await.unwrap();
    assert!(report.faults.is_empty() && report.events == 65, "{:?}", report.faults);
    broker.close().await;
}

#[tokio::test]
async fn history_is_read_across_more_epochs_than_are_remembered() {
    let redis = RedisServer::start().await;
    let broker = join(redis.server()).await;
    publish(&broker, "one").await;
    broker.close().await;
    for restart in 0..70 {
        change_identity(&redis, &format!("restarted {restart}")).await;
        let broker = join(redis.server()).await;
        if restart % 20 == 0 {
            publish(&broker, &format!("after {restart}")).await;
        }
        broker.close().await;
    }
    // It has nothing of that in memory.
    let broker = join(redis.server()).await;
    let (mut at, until, mut found) = (0, broker.head().offset, 0);
    while at < until {
        let chunk = broker.read(at, until, &filter(&["t.*"]), 1 << 20).await.unwrap();
        found += chunk.blocks.iter().map(|block| block.len()).sum::<usize>();
        at = chunk.reached;
    }
    assert_eq!(found, 5);
    let report = redis_log::check(redis.server()).await.unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    broker.close().await;
}
