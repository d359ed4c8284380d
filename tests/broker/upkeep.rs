//! What the journal does between commits: merging, and dropping what has had its time.

use pulsehub::{
    broker::{Broker, journal},
    bytesize::ByteSize,
    position::Offset,
};
use rusqlite::Connection;

use super::{Fixture, START, all_topics, numbered, read_all};
use crate::support::{admitted, event, filter};

const DAY: u64 = 86_400_000;

/// The fixture's file; the hub may be running.
fn database(fixture: &Fixture) -> Connection {
    Connection::open(fixture.folder().join("journal.db")).unwrap()
}

/// Publishes each in a commit of its own.
async fn publish_one_by_one(broker: &Broker, topic: &str, ids: std::ops::Range<usize>) {
    for id in ids {
        broker.publish(admitted(numbered(topic, id..id + 1))).await.unwrap();
    }
}

#[tokio::test]
async fn merging_is_invisible_to_a_reader_in_the_middle() {
    let mut fixture = Fixture::journal();
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    for round in 0..300 {
        let topic = ["a", "b", "c"][round % 3];
        broker.publish(admitted(numbered(topic, round..round + 1))).await.unwrap();
    }
    let wanted = filter(&["b"]);
    let chunk = broker.read(0, 300, &wanted, 1000).await.unwrap();
    let first: Vec<Offset> = chunk
        .blocks
        .iter()
        .flat_map(|block| block.records().filter(|r| r.topic() == "b").map(|r| r.offset()))
        .collect();
    assert!(chunk.reached < 300);
    broker.maintain().await;
    let report = journal::check(fixture.folder()).unwrap();
    assert_eq!((report.faults, report.events), (vec![], 300));
    assert!(report.blocks < 60, "300 small blocks became {}", report.blocks);
    let (rest, _) = read_all(&broker, chunk.reached, &wanted, 1000).await;
    let all: Vec<Offset> = first.into_iter().chain(rest).collect();
    assert_eq!(all, (0..100).map(|n| n * 3 + 2).collect::<Vec<_>>());
    assert_eq!(broker.newest(&wanted, 3, 300).within(usize::MAX).await.unwrap().after, 292);
}

#[tokio::test]
async fn a_damaged_block_took_the_good_ones_before_it_with_it_when_they_were_merged() {
    let mut fixture = Fixture::journal();
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    publish_one_by_one(&broker, "a", 0..20).await;
    broker.close().await;
    drop(broker);
    // Before there are enough of them to be merged.
    let damaged = "UPDATE blocks SET body = zeroblob(40) WHERE first = 20";
    assert_eq!(database(&fixture).execute(damaged, []).unwrap(), 1);
    let broker = fixture.open().await;
    publish_one_by_one(&broker, "a", 20..80).await;
    broker.maintain().await;
    let base = fixture.head_after(20);
    let good: Vec<Offset> = (1..20).chain(base + 1..=base + 60).collect();
    assert_eq!(read_all(&broker, 0, &filter(&["a"]), 1 << 20).await, (good, 20));
    let report = journal::check(fixture.folder()).unwrap();
    assert_eq!(report.events, 79);
    assert!(report.blocks < 60, "the good ones were merged: {} are left", report.blocks);
}

#[tokio::test]
async fn merging_over_a_clock_that_was_put_right_wrote_wrong_times_for_good() {
    let mut fixture = Fixture::journal();
    fixture.config.recent_bytes = ByteSize(1);
    fixture.clock.set(START + 2 * DAY);
    let broker = fixture.open().await;
    publish_one_by_one(&broker, "ahead", 0..16).await;
    fixture.clock.set(START);
    publish_one_by_one(&broker, "right", 0..40).await;
    broker.maintain().await;
    broker.close().await;
    drop(broker);
    let report = journal::check(fixture.folder()).unwrap();
    assert_eq!((report.faults, report.events), (vec![], 56));
    assert!(report.blocks < 30, "56 small blocks became {}", report.blocks);
    let broker = fixture.open().await;
    let topics = all_topics(&broker).await;
    let received: Vec<_> = topics.iter().map(|info| info.last_received).collect();
    assert_eq!(received, [START + 2 * DAY, START]);
    let right = filter(&["right"]);
    assert_eq!(broker.epochs().locate(START, broker.head().offset).await.unwrap(), 16);
    let chunk = broker.read(16, 56, &right, 1 << 20).await.unwrap();
    let records = chunk.blocks.iter().flat_map(|block| block.records_after(16));
    assert!(records.map(|record| record.received()).eq(std::iter::repeat_n(START, 40)));
}

#[tokio::test]
async fn ids_of_a_clock_that_was_ahead_stopped_all_later_ones_from_being_dropped() {
    let fixture = Fixture::journal();
    fixture.clock.set(START + 2 * DAY);
    let broker = fixture.open().await;
    publish_one_by_one(&broker, "a", 0..600).await;
    fixture.clock.set(START);
    broker.publish(admitted(numbered("b", 0..1))).await.unwrap();
    broker.close().await;
    drop(broker);
    let rows = || {
        let count = "SELECT count(*) FROM ids";
        database(&fixture).query_row(count, [], |row| row.get::<_, usize>(0)).unwrap()
    };
    let broker = fixture.open().await;
    broker.maintain().await;
    assert_eq!(rows(), 601, "their window is not over");
    let again = broker.publish(admitted(numbered("a", 0..600))).await.unwrap();
    assert_eq!((again.accepted, again.offsets.len()), (0, 600));
    fixture.clock.set(START + 121_000);
    broker.maintain().await;
    assert_eq!(rows(), 0);
}

#[tokio::test]
async fn newest_values_of_topics_without_events_belonged_to_nobody_after_a_start_at_the_limit() {
    let mut fixture = Fixture::journal();
    let broker = fixture.open().await;
    broker.publish(admitted(vec![event("x", "s", "1", Some("k"), "1")])).await.unwrap();
    broker.publish(admitted(vec![event("y", "s", "1", Some("k"), "1")])).await.unwrap();
    fixture.clock.set(START + 3_601_000);
    broker.maintain().await;
    assert_eq!(broker.latest(filter(&["**"])).all().await.unwrap().len(), 2);
    broker.close().await;
    drop(broker);
    fixture.config.max_topics = 2;
    let broker = fixture.open().await;
    broker.publish(admitted(vec![event("x", "s", "2", Some("j"), "2")])).await.unwrap();
    broker.maintain().await;
    let orphans = "SELECT count(*) FROM latest WHERE topic_id NOT IN (SELECT id FROM topics)";
    let orphans = database(&fixture).query_row(orphans, [], |row| row.get::<_, usize>(0)).unwrap();
    assert_eq!(orphans, 0);
}

#[tokio::test]
async fn a_topic_with_the_number_of_one_before_it_showed_that_ones_newest_values() {
    // The number is used again, or it was by an earlier version.
    for change in ["DELETE FROM topics", "UPDATE topics SET topic = 'other'"] {
        let fixture = Fixture::journal();
        let broker = fixture.open().await;
        broker.publish(admitted(vec![event("gone", "s", "1", Some("k"), "1")])).await.unwrap();
        broker.close().await;
        drop(broker);
        let all = format!("{change}; DELETE FROM blocks; DELETE FROM block_topics;");
        database(&fixture).execute_batch(&all).unwrap();
        let broker = fixture.open().await;
        broker.publish(admitted(vec![event("other", "s", "1", Some("j"), "2")])).await.unwrap();
        let newest = broker.latest(filter(&["other"])).all().await.unwrap();
        let topics: Vec<_> = newest.records().map(|record| record.topic()).collect();
        assert_eq!(topics, ["other"], "{change}");
    }
}
