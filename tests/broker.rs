//! The contract every broker passes, and what is special to the journal.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use pulsehub::{
    broker::{
        Broker, PublishError, ReplayStart,
        journal::{self, Config, RetentionRule, Sync},
    },
    bytesize::ByteSize,
    event::Event,
    position::Offset,
    telemetry::Telemetry,
    time::{Clock, Span},
    topic::{TopicFilter, TopicPattern},
};

use crate::support::{event, eventually, filter};

const START: u64 = 1_800_000_000_000;

struct Fixture {
    folder: tempfile::TempDir,
    clock: Clock,
    config: Config,
}

impl Fixture {
    fn new() -> Self {
        let config = Config {
            sync: Sync::Normal,
            max_age: Span::seconds(3600),
            max_bytes: ByteSize(1 << 30),
            retention: Vec::new(),
            dedupe_window: Span::seconds(120),
            dedupe_ids: 1000,
            latest_keys: 10,
            max_topics: 1000,
            recent_bytes: ByteSize(1 << 20),
            queue_bytes: ByteSize(1 << 20),
            queue_timeout: Span::seconds(5),
        };
        Self { folder: tempfile::tempdir().unwrap(), clock: Clock::manual(START), config }
    }

    fn open(&self) -> Broker {
        self.open_at(self.folder.path()).unwrap()
    }

    fn open_at(&self, folder: &Path) -> Result<Broker, journal::OpenError> {
        Broker::open(self.config.clone(), folder, self.clock.clone(), Telemetry::new())
    }
}

fn numbered(topic: &str, ids: std::ops::Range<usize>) -> Vec<Event> {
    ids.map(|id| event(topic, "s", &format!("{topic}-{id}"), None, &format!("{{\"n\":{id}}}")))
        .collect()
}

/// Every matching offset above `after`, read in chunks of `budget`, and what was lost.
async fn read_all(
    broker: &Broker,
    after: Offset,
    filter: &TopicFilter,
    budget: usize,
) -> (Vec<Offset>, Offset) {
    let until = broker.head().offset;
    let (mut position, mut trimmed, mut found) = (after, 0, Vec::new());
    while position < until {
        let chunk = broker.read(position, until, filter, budget).await.unwrap();
        assert!(chunk.reached > position, "a read gets on");
        trimmed = trimmed.max(chunk.trimmed_through);
        for block in &chunk.blocks {
            for record in block.records_after(position) {
                if record.offset() <= chunk.reached && filter.matches(record.topic()) {
                    found.push(record.offset());
                }
            }
        }
        position = chunk.reached;
    }
    (found, trimmed)
}

#[tokio::test]
async fn a_batch_gets_consecutive_offsets_and_is_read_back_in_order() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    let mut tail = broker.tail();
    let first = broker.publish(numbered("a.b", 0..3)).await.unwrap();
    assert_eq!(first.offsets, [1, 2, 3]);
    assert_eq!((first.position.offset, first.accepted), (3, 3));
    let second = broker.publish(numbered("a.c", 0..2)).await.unwrap();
    assert_eq!(second.offsets, [4, 5]);
    assert_eq!(*tail.borrow_and_update(), 5, "announced before it is answered");
    for budget in [1, 100, 1 << 20] {
        assert_eq!(read_all(&broker, 0, &filter(&["**"]), budget).await, (vec![1, 2, 3, 4, 5], 0));
        assert_eq!(read_all(&broker, 1, &filter(&["a.b"]), budget).await, (vec![2, 3], 0));
    }
}

#[tokio::test]
async fn a_repeated_id_is_stored_once_and_answered_with_its_first_offset() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    let twice = || vec![event("a", "s", "x", None, "1"), event("a", "s", "x", None, "2")];
    let published = broker.publish(twice()).await.unwrap();
    assert_eq!((published.offsets, published.accepted), (vec![1, 1], 1));
    let others =
        vec![event("b", "s", "x", None, "1"), event("a", "t", "x", None, "1"), twice().remove(0)];
    let published = broker.publish(others).await.unwrap();
    assert_eq!((published.offsets, published.accepted), (vec![2, 3, 1], 2));
    assert_eq!(published.position.offset, 3);
    // Retries that meet their original in flight get its offset too.
    let racing = (0..20).map(|_| {
        let broker = broker.clone();
        tokio::spawn(async move { broker.publish(vec![event("r", "s", "r", None, "1")]).await })
    });
    let mut accepted = 0;
    for answer in futures_util::future::join_all(racing).await {
        let published = answer.unwrap().unwrap();
        assert_eq!(published.offsets, [4]);
        accepted += published.accepted;
    }
    assert_eq!(accepted, 1);
    broker.close().await;
    drop(broker);
    let broker = fixture.open();
    let again = broker.publish(twice()).await.unwrap();
    assert_eq!((again.offsets, again.accepted), (vec![1, 1], 0), "also across a restart");
    fixture.clock.set(START + 121_000);
    let later = broker.publish(twice()).await.unwrap();
    assert_eq!((later.offsets, later.accepted), (vec![5, 5], 1), "only within the window");
}

#[tokio::test]
async fn the_hubs_own_ids_are_not_remembered() {
    let broker = Fixture::new().open();
    let mut ours = event("a", "s", "x", None, "1");
    ours.id_is_ours = true;
    assert_eq!(broker.publish(vec![ours.clone()]).await.unwrap().accepted, 1);
    assert_eq!(broker.publish(vec![ours]).await.unwrap().accepted, 1);
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash_and_no_offset_is_given_twice() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    broker.publish(numbered("a", 0..10)).await.unwrap();
    // The files as they are at this moment: what a crash would leave.
    let crashed = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, crashed.path().join(path.file_name().unwrap())).unwrap();
    }
    let epoch = broker.epoch();
    let broker = fixture.open_at(crashed.path()).unwrap();
    assert_eq!((broker.epoch(), broker.head().offset), (epoch, 10));
    assert_eq!(broker.publish(numbered("b", 0..1)).await.unwrap().offsets, [11]);
    assert_eq!(read_all(&broker, 0, &filter(&["**"]), 1).await.0, (1..=11).collect::<Vec<_>>());
}

#[tokio::test]
async fn history_beyond_memory_is_read_from_the_file() {
    let mut fixture = Fixture::new();
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open();
    for round in 0..40 {
        let topic = if round % 10 == 0 { "rare.x" } else { "common.y" };
        broker.publish(numbered(topic, round * 5..round * 5 + 5)).await.unwrap();
    }
    assert!(broker.recent(0).is_none(), "memory reaches back only a little");
    let rare: Vec<Offset> = (0..4).flat_map(|n| n * 50 + 1..=n * 50 + 5).collect();
    for pattern in ["rare.x", "rare.*", "*.x"] {
        for budget in [1, 600, 1 << 20] {
            assert_eq!(read_all(&broker, 0, &filter(&[pattern]), budget).await, (rare.clone(), 0));
        }
    }
    assert_eq!(read_all(&broker, 0, &filter(&["**"]), 700).await.0, (1..=200).collect::<Vec<_>>());
    assert_eq!(broker.locate(&filter(&["rare.x"]), ReplayStart::Last(7), 200).await.unwrap(), 103);
    assert_eq!(broker.locate(&filter(&["**"]), ReplayStart::Last(7), 200).await.unwrap(), 193);
    assert_eq!(broker.locate(&filter(&["**"]), ReplayStart::Last(7), 100).await.unwrap(), 93);
    assert_eq!(broker.locate(&filter(&["rare.x"]), ReplayStart::Last(99), 200).await.unwrap(), 0);
    assert_eq!(broker.locate(&filter(&["none"]), ReplayStart::Last(1), 200).await.unwrap(), 0);
}

#[tokio::test]
async fn a_replay_since_a_time_begins_before_the_first_event_received_then() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    for step in 0..5 {
        fixture.clock.set(START + step * 1000);
        broker.publish(numbered("a", step as usize * 2..step as usize * 2 + 2)).await.unwrap();
    }
    let since = |time| ReplayStart::Since(time);
    let all = filter(&["**"]);
    assert_eq!(broker.locate(&all, since(0), 10).await.unwrap(), 0);
    assert_eq!(broker.locate(&all, since(START + 1001), 10).await.unwrap(), 4);
    assert_eq!(broker.locate(&all, since(START + 2000), 10).await.unwrap(), 4);
    assert_eq!(broker.locate(&all, since(START + 4001), 10).await.unwrap(), 10);
}

#[tokio::test]
async fn latest_is_the_newest_of_each_key_with_removal_and_a_cap() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    let keyed = |id: &str, key: &str, data: &str| event("m", "s", id, Some(key), data);
    broker
        .publish(vec![keyed("1", "a", "1"), keyed("2", "b", "1"), keyed("3", "a", "2")])
        .await
        .unwrap();
    broker.publish(vec![event("m", "s", "4", None, "\"no key\"")]).await.unwrap();
    broker.publish(vec![event("other", "s", "5", None, "5")]).await.unwrap();
    let latest = async |patterns: &[&str]| -> Vec<(Offset, String)> {
        let block = broker.latest(&filter(patterns)).await.unwrap();
        let data = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
        block.records().map(|record| (record.offset(), data(record.data()))).collect()
    };
    let text = |offset: Offset, data: &str| (offset, data.to_owned());
    assert_eq!(latest(&["m"]).await, [text(2, "1"), text(3, "2"), text(4, "\"no key\"")]);
    assert_eq!(latest(&["*"]).await.len(), 4);
    broker.publish(vec![keyed("6", "a", "null")]).await.unwrap();
    assert_eq!(latest(&["m"]).await, [text(2, "1"), text(4, "\"no key\"")]);
    let many = (0..30).map(|n| keyed(&format!("k{n}"), &format!("k{n}"), &n.to_string()));
    broker.publish(many.collect()).await.unwrap();
    broker.maintain().await;
    let kept = latest(&["m"]).await;
    assert!(kept.len() <= 10, "capped at 10, has {}", kept.len());
    assert_eq!(kept.last(), Some(&text(36, "29")), "the newest stay");
}

#[tokio::test]
async fn retention_by_age_trims_and_says_exactly_what_is_lost_to_whom() {
    let mut fixture = Fixture::new();
    let rule = |topics: &str, seconds| RetentionRule {
        topics: vec![TopicPattern::parse(topics).unwrap()],
        max_age: Some(Span::seconds(seconds)),
        max_bytes: None,
    };
    fixture.config.retention = vec![rule("short.*", 60), rule("long.*", 100_000)];
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open();
    for topic in ["short.a", "normal.a", "long.a"] {
        broker.publish(numbered(topic, 0..2)).await.unwrap(); // 1-2, 3-4, 5-6
    }
    let mut mixed = numbered("short.a", 2..3); // 7
    mixed.extend(numbered("long.a", 2..3)); // 8
    broker.publish(mixed).await.unwrap();
    fixture.clock.set(START + 61_000);
    broker.publish(numbered("quiet.a", 0..1)).await.unwrap(); // 9
    broker.maintain().await;
    let read = async |pattern: &str| read_all(&broker, 0, &filter(&[pattern]), 1 << 20).await;
    assert_eq!(read("short.*").await, (vec![], 7));
    assert_eq!(read("normal.*").await, (vec![3, 4], 0), "nothing lost, no gap");
    assert_eq!(read("long.*").await, (vec![5, 6, 8], 0));
    fixture.clock.set(START + 3_601_000);
    broker.publish(numbered("late.a", 0..1)).await.unwrap(); // 10
    broker.maintain().await;
    assert_eq!(read("normal.*").await, (vec![], 4));
    assert_eq!(read("long.*").await, (vec![5, 6, 8], 0));
    assert_eq!(read("quiet.a").await, (vec![9], 0));
    assert_eq!(broker.trimmed_through(&filter(&["**"])), 7);
    assert_eq!(broker.trimmed_through(&filter(&["normal.a"])), 4);
    assert_eq!(broker.trimmed_through(&filter(&["long.a", "quiet.*"])), 0);
    broker.close().await;
    drop(broker);
    let broker = fixture.open();
    assert_eq!(broker.trimmed_through(&filter(&["short.a"])), 7, "remembered");
    let counts: BTreeMap<_, _> =
        broker.topics().into_iter().map(|t| (t.topic.to_string(), t.events)).collect();
    assert_eq!((counts["short.a"], counts["normal.a"], counts["long.a"]), (0, 0, 3));
    // A changed rule is applied to what is there already.
    drop(broker);
    fixture.config.retention[1].max_age = Some(Span::seconds(10));
    let broker = fixture.open();
    broker.maintain().await;
    assert_eq!(broker.trimmed_through(&filter(&["long.a"])), 8);
}

#[tokio::test]
async fn memory_forgets_what_retention_took() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    broker.publish(numbered("a", 0..3)).await.unwrap();
    fixture.clock.set(START + 3_000_000);
    broker.publish(numbered("b", 0..2)).await.unwrap();
    fixture.clock.set(START + 3_601_000);
    broker.maintain().await;
    assert_eq!(read_all(&broker, 0, &filter(&["**"]), 1 << 20).await, (vec![4, 5], 3));
    assert!(broker.recent(0).is_none());
    assert_eq!(broker.recent(3).unwrap().len(), 1, "what is left is still in memory");
}

#[tokio::test]
async fn retention_by_size_trims_the_oldest() {
    let mut fixture = Fixture::new();
    fixture.config.retention = vec![RetentionRule {
        topics: vec![TopicPattern::parse("small").unwrap()],
        max_age: None,
        max_bytes: Some(ByteSize(2000)),
    }];
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open();
    for round in 0..10 {
        broker.publish(numbered("small", round * 5..round * 5 + 5)).await.unwrap();
        broker.publish(numbered("free", round * 5..round * 5 + 5)).await.unwrap();
    }
    broker.maintain().await;
    let (small, lost) = read_all(&broker, 0, &filter(&["small"]), 1 << 20).await;
    assert!(!small.is_empty() && small.len() < 25, "{small:?}");
    assert_eq!(small.last(), Some(&95));
    assert_eq!(lost, small[0].saturating_sub(6), "exactly what is missing");
    let (free, lost) = read_all(&broker, 0, &filter(&["free"]), 1 << 20).await;
    assert_eq!((free.len(), lost), (50, 0));
    broker.close().await;
    drop(broker);
    fixture.config.retention.clear();
    fixture.config.max_bytes = ByteSize(1500);
    let broker = fixture.open();
    broker.maintain().await;
    let (free, lost) = read_all(&broker, 0, &filter(&["free"]), 1 << 20).await;
    assert!(free.len() < 50 && lost > 0 && free[0] > lost, "{lost} {free:?}");
    assert_eq!(free.last(), Some(&100));
}

#[tokio::test]
async fn merging_is_invisible_to_a_reader_in_the_middle() {
    let mut fixture = Fixture::new();
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open();
    for round in 0..300 {
        let topic = ["a", "b", "c"][round % 3];
        broker.publish(numbered(topic, round..round + 1)).await.unwrap();
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
    let report = journal::check(fixture.folder.path()).unwrap();
    assert_eq!((report.faults, report.events), (vec![], 300));
    assert!(report.blocks < 60, "300 small blocks became {}", report.blocks);
    let (rest, _) = read_all(&broker, chunk.reached, &wanted, 1000).await;
    let all: Vec<Offset> = first.into_iter().chain(rest).collect();
    assert_eq!(all, (0..100).map(|n| n * 3 + 2).collect::<Vec<_>>());
    assert_eq!(broker.locate(&wanted, ReplayStart::Last(3), 300).await.unwrap(), 292);
}

#[tokio::test]
async fn a_reader_that_follows_sees_each_event_of_many_publishers_once_and_in_order() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    let publishers = (0..8).map(|publisher| {
        let broker = broker.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                let id = format!("{publisher}-{n}");
                broker.publish(vec![event("t", "s", &id, None, "1")]).await.unwrap();
            }
        })
    });
    let publishers: Vec<_> = publishers.collect();
    let mut tail = broker.tail();
    let mut seen = Vec::new();
    while seen.len() < 400 {
        let after = seen.last().copied().unwrap_or(0);
        for block in broker.recent(after).unwrap() {
            seen.extend(block.records_after(after).map(|record| record.offset()));
        }
        if seen.len() < 400 {
            tail.changed().await.unwrap();
        }
    }
    assert_eq!(seen, (1..=400).collect::<Vec<_>>());
    for publisher in publishers {
        publisher.await.unwrap();
    }
}

#[tokio::test]
async fn too_many_topics_refuse_the_batch_whole() {
    let mut fixture = Fixture::new();
    fixture.config.max_topics = 3;
    let broker = fixture.open();
    broker.publish(numbered("a", 0..1)).await.unwrap();
    let batch = vec![
        event("a", "s", "n", None, "1"),
        event("b", "s", "1", None, "1"),
        event("c", "s", "1", None, "1"),
        event("d", "s", "1", None, "1"),
    ];
    let refused = broker.publish(batch).await;
    assert_eq!(refused, Err(PublishError::TooManyTopics { limit: 3 }));
    assert_eq!(broker.head().offset, 1);
    let fits = vec![event("b", "s", "1", None, "1"), event("c", "s", "1", None, "1")];
    assert_eq!(broker.publish(fits).await.unwrap().offsets, [2, 3]);
    // What holds nothing any more makes room; what it lost is still said.
    fixture.clock.set(START + 3_601_000);
    broker.maintain().await;
    assert_eq!(broker.publish(numbered("e", 0..1)).await.unwrap().offsets, [4]);
    assert_eq!(broker.trimmed_through(&filter(&["a"])), 3);
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let mut fixture = Fixture::new();
    fixture.config.queue_bytes = ByteSize(1000);
    fixture.config.queue_timeout = Span(std::time::Duration::from_millis(1));
    let broker = fixture.open();
    let large = format!("\"{}\"", "x".repeat(900));
    let publishing = (0..200).map(|n| {
        let (broker, large) = (broker.clone(), large.clone());
        tokio::spawn(async move {
            broker.publish(vec![event("a", "s", &n.to_string(), None, &large)]).await
        })
    });
    let answers = futures_util::future::join_all(publishing).await;
    let stored = answers.iter().filter(|answer| answer.as_ref().unwrap().is_ok()).count();
    for answer in answers {
        match answer.unwrap() {
            Ok(_) | Err(PublishError::Overloaded { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(broker.head().offset as usize, stored, "what was refused is not stored");
}

#[tokio::test]
async fn a_closed_journal_refuses_and_holds_what_it_took() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    broker.enqueue(numbered("a", 0..5)).await.unwrap();
    broker.close().await;
    assert_eq!(broker.publish(numbered("b", 0..1)).await, Err(PublishError::Closed));
    drop(broker);
    assert_eq!(fixture.open().head().offset, 5);
}

#[tokio::test]
async fn a_second_hub_on_the_same_folder_is_refused() {
    let fixture = Fixture::new();
    let _broker = fixture.open();
    let refused = fixture.open_at(fixture.folder.path()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("another pulsehub already uses"), "{refused}");
}

#[tokio::test]
async fn foreign_damaged_and_newer_files_are_refused_and_left_as_they_are() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    broker.publish(numbered("a", 0..5)).await.unwrap();
    broker.close().await;
    drop(broker);
    let path = fixture.folder.path().join("journal.db");
    let good = std::fs::read(&path).unwrap();
    let mut newer = good.clone();
    newer[63] = 99;
    let mut other_application = good.clone();
    other_application[68] = b'x';
    let mut damaged = good.clone();
    damaged[100..].fill(0xAB);
    let cases: [(&[u8], &str); 4] = [
        (b"this is no database, it is a shopping list", "not a pulsehub file"),
        (&other_application, "not a pulsehub file"),
        (&newer, "run a newer pulsehub"),
        (&damaged, "is damaged"),
    ];
    for (bytes, says) in cases {
        std::fs::write(&path, bytes).unwrap();
        let refused = fixture.open_at(fixture.folder.path()).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{says}: the file was changed");
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(fixture.open().head().offset, 5);
}

#[tokio::test]
async fn a_damaged_block_becomes_an_explicit_loss_and_reading_goes_on() {
    let mut fixture = Fixture::new();
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open();
    for round in 0..3 {
        broker.publish(numbered("a", round * 5..round * 5 + 5)).await.unwrap();
    }
    broker.close().await;
    drop(broker);
    let database = rusqlite::Connection::open(fixture.folder.path().join("journal.db")).unwrap();
    let body = vec![0u8; 40];
    let changed = database.execute("UPDATE blocks SET body = ? WHERE first = 6", [&body]).unwrap();
    assert_eq!(changed, 1);
    drop(database);
    let broker = fixture.open();
    let (found, lost) = read_all(&broker, 0, &filter(&["a"]), 1 << 20).await;
    assert_eq!((found, lost), (vec![1, 2, 3, 4, 5, 11, 12, 13, 14, 15], 10));
    let report = journal::check(fixture.folder.path()).unwrap();
    assert!(report.faults.iter().any(|fault| fault.contains("6–10")), "{:?}", report.faults);
}

#[tokio::test]
async fn a_failed_commit_is_answered_heals_and_loses_nothing_answered() {
    let fixture = Fixture::new();
    let broker = fixture.open();
    broker.publish(numbered("a", 0..5)).await.unwrap();
    // A second writer that holds the file makes every commit fail after its busy time.
    let path = fixture.folder.path().join("journal.db");
    let blocker = rusqlite::Connection::open(&path).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = broker.publish(numbered("b", 0..5)).await;
    assert!(matches!(refused, Err(PublishError::Unavailable { .. })), "{refused:?}");
    assert_eq!(broker.head().offset, 5);
    assert_eq!(read_all(&broker, 0, &filter(&["**"]), 1).await.0, [1, 2, 3, 4, 5]);
    blocker.execute_batch("ROLLBACK").unwrap();
    let stored = eventually("a publish after the trouble", || async {
        broker.publish(numbered("b", 0..5)).await.ok()
    })
    .await;
    assert_eq!(stored.offsets, [6, 7, 8, 9, 10]);
}

#[tokio::test]
async fn export_reads_what_a_running_hub_has_stored() {
    let fixture = Fixture::new();
    let broker = Arc::new(fixture.open());
    broker.publish(numbered("a", 0..5)).await.unwrap();
    let mut offsets = Vec::new();
    let done = journal::export(fixture.folder.path(), 2, |epoch, block| {
        assert_eq!(epoch, broker.epoch());
        offsets.extend(block.records_after(2).map(|record| record.offset()));
        Ok::<(), ()>(())
    });
    assert_eq!(done.unwrap(), Ok(()));
    assert_eq!(offsets, [3, 4, 5]);
}
