//! What is special to the log in Redis.

use pulsehub::{
    broker::{Broker, PublishError, Published, journal::RetentionRule},
    bytesize::ByteSize,
    telemetry::Telemetry,
    time::Span,
    topic::Topic,
};

use super::{Fixture, Place, event, numbered};
use crate::support::{self, admitted, eventually, filter, proxy::Proxy, redis::RedisServer};

#[tokio::test]
async fn a_key_of_another_kind_refuses_the_batch_whole() {
    let fixture = Fixture::redis().await;
    let broker = fixture.open().await;
    let Place::Redis(redis) = &fixture.place else { unreachable!("it was made so") };
    redis.ask::<()>(&["SET", "{pulsehub}:latest:b", "a text"]).await;
    let mut batch = numbered("a", 0..2);
    batch.extend(numbered("b", 0..2));
    let refused = broker.publish(admitted(batch.clone())).await;
    let Err(PublishError::Unavailable { reason, .. }) = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("{pulsehub}:latest:b"), "{reason}");
    let left: Vec<u32> = vec![
        redis.ask(&["EXISTS", "{pulsehub}:log", "{pulsehub}:topics", "{pulsehub}:latest:a"]).await,
        redis.ask(&["EXISTS", "{pulsehub}:ids:0"]).await,
    ];
    assert_eq!(left, [0, 0], "nothing was written");
    redis.ask::<()>(&["DEL", "{pulsehub}:latest:b"]).await;
    assert_eq!(broker.publish(admitted(batch)).await.unwrap().offsets, [1, 2, 3, 4]);
}

#[tokio::test]
async fn what_lies_beyond_the_budget_is_not_unpacked() {
    let mut fixture = Fixture::redis().await;
    fixture.config.recent_bytes = ByteSize(1);
    let Place::Redis(redis) = &fixture.place else { unreachable!("it was made so") };
    let broker = fixture.open().await;
    for id in 0..4 {
        broker.publish(admitted(numbered("a", id..id + 1))).await.unwrap();
    }
    // Whoever unpacks the first or the last says so: they are no blocks any more.
    let spoil = "local all = redis.call('XRANGE', KEYS[1], '-', '+')
        redis.call('DEL', KEYS[1])
        for number, entry in ipairs(all) do
          local fields = (number == 1 or number == #all) and {'b', 'junk'} or entry[2]
          redis.call('XADD', KEYS[1], entry[1], unpack(fields))
        end";
    redis.ask::<()>(&["EVAL", spoil, "1", "{pulsehub}:log"]).await;
    let all = filter(&["**"]);
    let chunk = broker.read(1, 4, &all, 1).await.unwrap();
    assert_eq!((chunk.reached, chunk.blocks.len()), (2, 1));
    assert_eq!(broker.newest(&all, 1, 3).within(1).await.unwrap().after, 2);
    for end in [
        broker.read(0, 4, &all, 1).await.err(),
        broker.newest(&all, 3, 3).within(1 << 20).await.err(),
    ] {
        assert!(end.unwrap().to_string().contains("is damaged"), "then this test shows nothing");
    }
}

#[tokio::test]
async fn ids_are_known_through_one_change_of_generation_and_no_longer() {
    let mut fixture = Fixture::redis().await;
    fixture.config.dedupe_ids = 20;
    let broker = fixture.open().await;
    let publish = async |ids| broker.publish(admitted(numbered("a", ids))).await.unwrap();
    assert_eq!(publish(0..8).await.offsets, (1..=8).collect::<Vec<_>>());
    assert_eq!(publish(8..16).await.offsets, (9..=16).collect::<Vec<_>>());
    // One batch of which the older half is in the generation before.
    let both = publish(4..12).await;
    assert_eq!((both.offsets, both.accepted), ((5..=12).collect::<Vec<_>>(), 0));
    assert_eq!(publish(16..24).await.accepted, 8);
    assert_eq!(publish(0..8).await.accepted, 8, "the oldest are forgotten");
}

#[tokio::test]
async fn what_was_stored_before_the_answer_was_lost_is_no_duplicate() {
    let fixture = Fixture::redis().await;
    let Place::Redis(redis) = &fixture.place else { unreachable!("it was made so") };
    let way = Proxy::to(redis.port()).await;
    let (server, clock) = (support::redis::server(&way.url()), fixture.clock.clone());
    let broker = Broker::join(fixture.config.clone(), server, clock, Telemetry::new());
    let broker = broker.await.unwrap();
    broker.publish(admitted(numbered("before", 0..1))).await.unwrap();
    way.hold(b":latest:lost");
    let publishing = tokio::spawn({
        let broker = broker.clone();
        async move { broker.publish(admitted(numbered("lost", 0..3))).await }
    });
    way.is_holding().await;
    let is_stored = async || {
        let entries: u64 = redis.ask(&["XLEN", "{pulsehub}:log"]).await;
        (entries == 2).then_some(())
    };
    eventually("the batch in Redis", is_stored).await;
    way.lead_to(redis.port());
    let Published { offsets, accepted, .. } = publishing.await.unwrap().unwrap();
    assert_eq!((offsets, accepted), (vec![2, 3, 4], 3), "nobody but the hub sent it again");
    way.release();
    // Whoever does send it again is told so, and what is new beside it is stored.
    let again = broker.publish(admitted(numbered("lost", 0..3))).await.unwrap();
    assert_eq!((again.offsets, again.accepted), (vec![2, 3, 4], 0));
    let some = broker.publish(admitted(numbered("lost", 2..5))).await.unwrap();
    assert_eq!((some.offsets, some.accepted), (vec![4, 5, 6], 2));
    broker.close().await;
}

#[tokio::test]
async fn every_question_fetched_every_topic_from_redis() {
    let mut fixture = Fixture::redis().await;
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    let Place::Redis(redis) = &fixture.place else { unreachable!("it was made so") };
    for batch in 0..3 {
        let topics = (batch * 100..(batch + 1) * 100).map(|n| format!("t{}.{n}", n / 10));
        let events = topics.map(|topic| event(&topic, "s", "1", Some("k"), "1")).collect();
        broker.publish(admitted(events)).await.unwrap();
    }
    // How often Redis was asked for the whole of a hash, or a piece of it.
    let wholes = async || -> u64 {
        let stats: String = redis.ask(&["INFO", "commandstats"]).await;
        let calls = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let wanted = ["hgetall", "hscan"].contains(&name);
            rest.split(',').next().filter(|_| wanted)?.parse::<u64>().ok()
        };
        stats.lines().filter_map(calls).sum()
    };
    let ask = async |patterns: &[&str]| {
        let filter = filter(patterns);
        broker.read(0, 250, &filter, 1).await.unwrap();
        broker.topics().trimmed_through(&filter).await.unwrap();
        let newest = broker.newest(&filter, 3, 300).within(1 << 20).await.unwrap();
        let latest = broker.latest(filter.clone()).all().await.unwrap();
        (newest.after, latest.records().map(|record| record.offset()).collect::<Vec<_>>())
    };
    let index = broker.topics().index().await.unwrap();
    assert_eq!(index.page("t29.", "t29.297", 5).len(), 2);
    let before = wholes().await;
    for _ in 0..5 {
        assert_eq!(ask(&["t7.70", "t9.91"]).await, (0, vec![71, 92]));
        assert_eq!(ask(&["t7.*"]).await, (77, (71..=80).collect()));
        assert_eq!(ask(&["**"]).await.0, 297);
    }
    broker.publish(admitted(vec![event("t7.new", "s", "1", Some("k"), "1")])).await.unwrap();
    assert_eq!(ask(&["t7.*"]).await.1.last(), Some(&301), "a new topic is found");
    assert_eq!(wholes().await, before, "nothing was taken, and new names are met in the log");

    // What retention takes is asked for once, whoever asks.
    fixture.clock.set(super::START + 3_601_000);
    broker.maintain().await;
    assert_eq!(broker.topics().trimmed_through(&filter(&["t7.*"])).await.unwrap(), 301);
    let before = wholes().await;
    for _ in 0..5 {
        assert_eq!(broker.topics().trimmed_through(&filter(&["t9.*"])).await.unwrap(), 100);
        assert_eq!(broker.topics().trimmed_through(&filter(&["t7.70"])).await.unwrap(), 71);
    }
    assert_eq!(wholes().await, before);
}

/// Another node's turn it is, so that nothing is taken but where a test says so.
async fn no_retention_of_its_own(redis: &RedisServer) {
    redis.ask::<()>(&["SET", "{pulsehub}:maintainer", "another"]).await;
}

#[tokio::test]
async fn a_moment_two_days_ahead_kept_retention_from_everything_behind_it() {
    const DAY: u64 = 86_400_000;
    let mut fixture = Fixture::redis().await;
    fixture.config.max_age = Span::seconds(3600);
    let short = RetentionRule {
        topics: vec!["short.*".parse().unwrap()],
        max_age: Some(Span::seconds(600)),
        max_bytes: None,
    };
    fixture.config.retention = vec![short];
    let broker = fixture.open().await;
    let Place::Redis(redis) = &fixture.place else { unreachable!("it was made so") };
    no_retention_of_its_own(redis).await;
    let start = fixture.clock.now();
    let publish = async |topic: &str, count: usize| {
        for number in 0..count {
            let id = format!("{topic}{}{number}", fixture.clock.now());
            broker.publish(admitted(vec![event(topic, "s", &id, None, "1")])).await.unwrap();
        }
    };
    let kept = async |topic: &str| -> u64 {
        let all = [Topic::parse(topic).unwrap()];
        broker.topics().infos(all.to_vec()).await.unwrap().iter().map(|info| info.events).sum()
    };
    publish("a", 3).await;
    fixture.clock.set(start + 2 * DAY);
    publish("a", 70).await; // more than are looked at in one step
    publish("short.a", 3).await;
    fixture.clock.set(start + 1000);
    broker.maintain().await;
    assert_eq!((kept("a").await, kept("short.a").await), (73, 3), "nothing of it is old");
    publish("short.a", 3).await;
    publish("a", 3).await;
    fixture.clock.set(start + 700_000);
    publish("a", 1).await;
    broker.maintain().await;
    assert_eq!((kept("a").await, kept("short.a").await), (77, 0));
    fixture.clock.set(start + 3_700_000);
    broker.maintain().await;
    assert_eq!(kept("a").await, 1, "that of ten minutes after");
}

#[tokio::test]
async fn after_every_step_of_retention_names_were_fetched_anew() {
    let fixture = Fixture::redis().await;
    let broker = fixture.open().await;
    let Place::Redis(redis) = &fixture.place else { unreachable!("it was made so") };
    no_retention_of_its_own(redis).await;
    let events = (0..30).map(|n| event(&format!("t.{n}"), "s", "1", None, "1")).collect();
    broker.publish(admitted(events)).await.unwrap();
    let scans = async || -> u64 {
        let stats: String = redis.ask(&["INFO", "commandstats"]).await;
        let calls =
            |line: &str| line.strip_prefix("cmdstat_hscan:calls=")?.split(',').next()?.parse().ok();
        stats.lines().find_map(calls).unwrap_or(0)
    };
    assert_eq!(broker.topics().index().await.unwrap().page("t.", "", 100).len(), 30);
    // Another node has taken something; a literal question tells this one.
    redis.ask::<u64>(&["HINCRBY", "{pulsehub}:meta", "trims", "1"]).await;
    broker.topics().infos(vec!["t.1".parse().unwrap()]).await.unwrap();
    let before = scans().await;
    assert_eq!(broker.topics().index().await.unwrap().page("t.", "", 100).len(), 30);
    assert_eq!(scans().await, before);
}

#[tokio::test]
async fn who_asked_for_the_head_was_kept_waiting_by_others_who_did() {
    let fixture = Fixture::redis().await;
    let broker = fixture.open().await;
    let asking = (0..100).map(|_| {
        let broker = broker.clone();
        tokio::spawn(async move {
            for _ in 0..6 {
                broker.head_of_all().await?;
            }
            Ok::<(), pulsehub::broker::ReadError>(())
        })
    });
    for answer in futures_util::future::join_all(asking).await {
        answer.unwrap().unwrap();
    }
}
