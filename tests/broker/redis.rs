//! What is special to the log in Redis.

use pulsehub::broker::PublishError;

use super::{Fixture, Place, numbered};

#[tokio::test]
async fn a_key_of_another_kind_refuses_the_batch_whole() {
    let fixture = Fixture::redis().await;
    let broker = fixture.open().await;
    let Place::Redis(redis) = &fixture.place else { unreachable!("it was made so") };
    redis.ask::<()>(&["SET", "{pulsehub}:latest:b", "a text"]).await;
    let mut batch = numbered("a", 0..2);
    batch.extend(numbered("b", 0..2));
    let refused = broker.publish(batch.clone()).await;
    let Err(PublishError::Unavailable { reason, .. }) = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("{pulsehub}:latest:b"), "{reason}");
    let left: Vec<u32> = vec![
        redis.ask(&["EXISTS", "{pulsehub}:log", "{pulsehub}:topics", "{pulsehub}:latest:a"]).await,
        redis.ask(&["EXISTS", "{pulsehub}:ids:0"]).await,
    ];
    assert_eq!(left, [0, 0], "nothing was written");
    redis.ask::<()>(&["DEL", "{pulsehub}:latest:b"]).await;
    assert_eq!(broker.publish(batch).await.unwrap().offsets, [1, 2, 3, 4]);
}
