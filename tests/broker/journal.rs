//! What is special to the journal: its files, their faults, and who may read them.

use std::{path::Path, sync::Arc};

use pulsehub::{
    broker::{
        Broker, PublishError, Resumption,
        journal::{self, RetentionRule},
    },
    bytesize::ByteSize,
    position::{Offset, Position},
    telemetry::Telemetry,
    topic::TopicPattern,
};

use super::{EPOCH_STEP, Fixture, Place, START, all_topics, numbered, read_all};
use crate::support::{admitted, event, eventually, filter};

impl Fixture {
    pub(super) fn folder(&self) -> &Path {
        match &self.place {
            Place::Folder(folder) => folder.path(),
            Place::Redis(_) => panic!("there is no folder"),
        }
    }
}

/// The files as they are at this moment: what a crash would leave.
fn copy_of(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

fn open_at(fixture: &Fixture, folder: &Path) -> Result<Broker, journal::JournalOpenError> {
    Broker::open(fixture.config.clone(), folder, fixture.clock.clone(), Telemetry::new())
}

#[tokio::test]
async fn retention_by_size_of_one_topic_trims_its_oldest() {
    let mut fixture = Fixture::journal();
    fixture.config.retention = vec![RetentionRule {
        topics: vec![TopicPattern::parse("small").unwrap()],
        max_age: None,
        max_bytes: Some(ByteSize(2000)),
    }];
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    for round in 0..10 {
        broker.publish(admitted(numbered("small", round * 5..round * 5 + 5))).await.unwrap();
        broker.publish(admitted(numbered("free", round * 5..round * 5 + 5))).await.unwrap();
    }
    broker.maintain().await;
    let (small, lost) = read_all(&broker, 0, &filter(&["small"]), 1 << 20).await;
    assert!(!small.is_empty() && small.len() < 25, "{small:?}");
    assert_eq!(small.last(), Some(&95));
    let all: Vec<Offset> = (0..50).map(|n| n / 5 * 10 + n % 5 + 1).collect();
    assert!(all.ends_with(&small), "{small:?}");
    assert_eq!(lost, all[all.len() - small.len() - 1], "exactly what is missing");
    let (free, lost) = read_all(&broker, 0, &filter(&["free"]), 1 << 20).await;
    assert_eq!((free.len(), lost), (50, 0));
}

#[tokio::test]
async fn a_topics_size_is_cut_by_events_and_leaves_the_newest_and_its_neighbours() {
    const MOST: u64 = 2000;
    let mut fixture = Fixture::journal();
    fixture.config.retention = vec![RetentionRule {
        topics: vec![TopicPattern::parse("small.*").unwrap()],
        max_age: None,
        max_bytes: Some(ByteSize(MOST)),
    }];
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    // All in one block, more than one event at a time too much.
    let mut batch = Vec::new();
    for n in 0..50 {
        for topic in ["small.a", "free", "small.b"] {
            batch.extend(numbered(topic, n..n + 1));
        }
    }
    let large = format!("\"{}\"", "x".repeat(3000));
    batch.push(event("small.large", "s", "1", None, &large));
    broker.publish(admitted(batch)).await.unwrap();
    broker.maintain().await;
    let kept = async |topic: &str| {
        let topics = all_topics(&broker).await;
        topics.into_iter().find(|info| info.topic.as_str() == topic).unwrap()
    };
    let one = kept("free").await.bytes / 50;
    for topic in ["small.a", "small.b"] {
        let info = kept(topic).await;
        assert!(info.bytes <= MOST && info.bytes + one + 5 > MOST, "{info:?}");
        let (found, lost) = read_all(&broker, 0, &filter(&[topic]), 1 << 20).await;
        assert_eq!((found.len() as u64, found.last()), (info.events, Some(&info.last_offset)));
        assert_eq!(lost + 3, found[0], "exactly what is missing");
    }
    assert_eq!(read_all(&broker, 0, &filter(&["free"]), 1 << 20).await.0.len(), 50);
    // The newest stays however large it is, and goes when it is no longer the newest.
    assert_eq!(read_all(&broker, 0, &filter(&["small.large"]), 1 << 20).await, (vec![151], 0));
    let two = ["2", "3"].map(|id| event("small.large", "s", id, None, &large));
    broker.publish(admitted(two.into())).await.unwrap();
    broker.maintain().await;
    assert_eq!(read_all(&broker, 0, &filter(&["small.large"]), 1 << 20).await, (vec![153], 152));
}

#[tokio::test]
async fn topics_are_told_while_those_to_be_forgotten_wait_for_the_file() {
    // The writer looks after its topics by itself, too: it may be quicker than who holds the file.
    for _ in 0..20 {
        if is_told_while_forgetting_waits().await {
            return;
        }
    }
    panic!("the topics were forgotten too soon each time");
}

async fn is_told_while_forgetting_waits() -> bool {
    let mut fixture = Fixture::journal();
    fixture.config.max_topics = 3;
    let broker = fixture.open().await;
    let names = async || {
        let topics = all_topics(&broker).await;
        topics.into_iter().map(|info| info.topic.as_str().to_owned()).collect::<Vec<_>>()
    };
    broker.publish(admitted(numbered("a", 0..1))).await.unwrap();
    broker.publish(admitted(numbered("b", 0..1))).await.unwrap();
    fixture.clock.set(START + 3_601_000);
    broker.maintain().await; // both are empty now, and there is room for one more
    let blocker = rusqlite::Connection::open(fixture.folder().join("journal.db")).unwrap();
    broker.publish(admitted(numbered("c", 0..1))).await.unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    if names().await.len() < 3 {
        return false;
    }
    let maintaining = tokio::spawn({
        let broker = broker.clone();
        async move { broker.maintain().await }
    });
    for _ in 0..1000 {
        assert_eq!(names().await, ["a", "b", "c"]);
        tokio::task::yield_now().await;
    }
    assert!(!maintaining.is_finished(), "who asked waited as long as the writer");
    blocker.execute_batch("ROLLBACK").unwrap();
    maintaining.await.unwrap();
    assert_eq!(names().await, ["c"]);
    true
}

#[tokio::test]
async fn the_hubs_own_ids_are_not_remembered() {
    let broker = Fixture::journal().open().await;
    let mut ours = event("a", "s", "x", None, "1");
    ours.id_is_ours = true;
    assert_eq!(broker.publish(admitted(vec![ours.clone()])).await.unwrap().accepted, 1);
    assert_eq!(broker.publish(admitted(vec![ours])).await.unwrap().accepted, 1);
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash_and_no_offset_is_given_twice() {
    let fixture = Fixture::journal();
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("a", 0..10))).await.unwrap();
    let crashed = copy_of(fixture.folder());
    let epoch = broker.epochs().newest();
    let broker = open_at(&fixture, crashed.path()).unwrap();
    assert_ne!(broker.epochs().newest(), epoch);
    assert_eq!((broker.head().offset, broker.epochs().position(10).epoch), (EPOCH_STEP, epoch));
    let next = EPOCH_STEP + 1;
    assert_eq!(broker.publish(admitted(numbered("b", 0..1))).await.unwrap().offsets, [next]);
    let all = (1..=10).chain([next]).collect::<Vec<_>>();
    assert_eq!(read_all(&broker, 0, &filter(&["**"]), 1).await, (all, 0));
}

#[tokio::test]
async fn a_copy_that_was_restored_does_not_take_the_lost_run_for_its_own() {
    let fixture = Fixture::journal();
    let broker = fixture.open().await;
    let shared = broker.publish(admitted(numbered("a", 0..10))).await.unwrap().position;
    let copy = copy_of(fixture.folder());
    let lost = broker.publish(admitted(numbered("a", 10..20))).await.unwrap().position;
    let broker = open_at(&fixture, copy.path()).unwrap();
    // As many again, so that offsets alone would not tell.
    let new = broker.publish(admitted(numbered("a", 20..30))).await.unwrap().position;
    assert_eq!(broker.epochs().resume(shared).await.unwrap(), Resumption::From(shared.offset));
    let base = Position { epoch: broker.epochs().newest(), offset: EPOCH_STEP };
    assert_eq!(broker.epochs().resume(lost).await.unwrap(), Resumption::Lost(base));
    assert_eq!(broker.epochs().resume(new).await.unwrap(), Resumption::From(new.offset));
    // What nobody ever gave out is nobody's.
    let never = Position { epoch: broker.epochs().newest(), offset: new.offset + 1 };
    assert_eq!(broker.epochs().resume(never).await.unwrap(), Resumption::Lost(broker.head()));
}

#[tokio::test]
async fn a_file_of_the_first_version_keeps_its_positions_and_becomes_one_of_the_second() {
    let fixture = Fixture::journal();
    let broker = fixture.open().await;
    let old = broker.publish(admitted(numbered("a", 0..5))).await.unwrap().position;
    broker.close().await;
    drop(broker);
    let path = fixture.folder().join("journal.db");
    let version = |database: &rusqlite::Connection| -> u32 {
        database.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    let database = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(version(&database), 2);
    let bits = u64::from_str_radix(&old.epoch.to_string(), 16).unwrap() as i64;
    database
        .execute_batch(&format!(
            "DELETE FROM meta WHERE key = 'lineage';
             INSERT INTO meta(key, value) VALUES ('epoch', {bits});
             PRAGMA user_version = 1;"
        ))
        .unwrap();
    drop(database);
    let exported = |through: &mut Vec<Position>| {
        journal::export(fixture.folder(), 0, |epoch, block| {
            through.push(Position { epoch, offset: block.last() });
            Ok::<(), ()>(())
        })
    };
    let mut before = Vec::new();
    assert_eq!(exported(&mut before).unwrap(), Ok(()));
    assert_eq!(before, [old], "a look at it changes nothing");

    let broker = fixture.open().await;
    assert_eq!(broker.epochs().resume(old).await.unwrap(), Resumption::From(old.offset));
    let beyond = Position { offset: old.offset + 1, ..old };
    assert_eq!(broker.epochs().resume(beyond).await.unwrap(), Resumption::Lost(broker.head()));
    let new = broker.publish(admitted(numbered("a", 5..6))).await.unwrap().position;
    assert_eq!(new, Position { epoch: broker.epochs().newest(), offset: EPOCH_STEP + 1 });
    broker.close().await;
    let mut after = Vec::new();
    assert_eq!(exported(&mut after).unwrap(), Ok(()));
    assert_eq!(after, [old, new]);
    assert_eq!(version(&rusqlite::Connection::open(&path).unwrap()), 2);
}

#[tokio::test]
async fn a_second_hub_on_the_same_folder_is_refused() {
    let fixture = Fixture::journal();
    let _broker = fixture.open().await;
    let refused = open_at(&fixture, fixture.folder()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("another pulsehub already uses"), "{refused}");
}

#[tokio::test]
async fn foreign_damaged_and_newer_files_are_refused_and_left_as_they_are() {
    let fixture = Fixture::journal();
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("a", 0..5))).await.unwrap();
    broker.close().await;
    drop(broker);
    let path = fixture.folder().join("journal.db");
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
        let refused = open_at(&fixture, fixture.folder()).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
        assert!(std::fs::read(&path).unwrap() == bytes, "{says}: the file was changed");
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(fixture.open().await.head().offset, fixture.head_after(5));
}

#[tokio::test]
async fn a_damaged_block_becomes_an_explicit_loss_and_reading_goes_on() {
    let mut fixture = Fixture::journal();
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    for round in 0..3 {
        broker.publish(admitted(numbered("a", round * 5..round * 5 + 5))).await.unwrap();
    }
    broker.close().await;
    drop(broker);
    let database = rusqlite::Connection::open(fixture.folder().join("journal.db")).unwrap();
    let body = vec![0u8; 40];
    let changed = database.execute("UPDATE blocks SET body = ? WHERE first = 6", [&body]).unwrap();
    assert_eq!(changed, 1);
    drop(database);
    let broker = fixture.open().await;
    let (found, lost) = read_all(&broker, 0, &filter(&["a"]), 1 << 20).await;
    assert_eq!((found, lost), (vec![1, 2, 3, 4, 5, 11, 12, 13, 14, 15], 10));
    // A search ends before it, so that whoever reads on from there is told.
    let newest = broker.newest(&filter(&["a"]), 7, 15).within(usize::MAX).await.unwrap();
    assert_eq!((newest.after, newest.first, newest.is_cut), (5, 6, false));
    let report = journal::check(fixture.folder()).unwrap();
    assert!(report.faults.iter().any(|fault| fault.contains("6–10")), "{:?}", report.faults);
}

#[tokio::test]
async fn an_event_of_an_unknown_topic_is_no_loss_of_the_first_topic() {
    let fixture = Fixture::journal();
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("first", 0..5))).await.unwrap();
    broker.publish(admitted(numbered("other", 0..5))).await.unwrap();
    broker.close().await;
    drop(broker);
    let database = rusqlite::Connection::open(fixture.folder().join("journal.db")).unwrap();
    assert_eq!(database.execute("DELETE FROM topics WHERE topic = 'other'", []).unwrap(), 1);
    drop(database);
    fixture.clock.set(START + 3_000_000);
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("first", 5..10))).await.unwrap();
    fixture.clock.set(START + 3_600_000);
    broker.maintain().await;
    let first = filter(&["first"]);
    assert_eq!(broker.topics().trimmed_through(&first).await.unwrap(), 5, "a slip is nobody's gap");
    let base = fixture.head_after(10);
    let second = (base + 1..=base + 5).collect::<Vec<_>>();
    assert_eq!(read_all(&broker, 5, &first, 1 << 20).await, (second, 0));
    assert_eq!(
        broker.publish(admitted(numbered("other", 5..6))).await.unwrap().offsets,
        [base + 6]
    );
}

#[tokio::test]
async fn a_failed_commit_is_answered_heals_and_loses_nothing_answered() {
    let fixture = Fixture::journal();
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("a", 0..5))).await.unwrap();
    // A second writer that holds the file makes every commit fail after its busy time.
    let path = fixture.folder().join("journal.db");
    let blocker = rusqlite::Connection::open(&path).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = broker.publish(admitted(numbered("b", 0..5))).await;
    assert!(matches!(refused, Err(PublishError::Unavailable { .. })), "{refused:?}");
    assert_eq!(broker.head().offset, 5);
    assert_eq!(read_all(&broker, 0, &filter(&["**"]), 1).await.0, [1, 2, 3, 4, 5]);
    blocker.execute_batch("ROLLBACK").unwrap();
    let stored = eventually("a publish after the trouble", || async {
        broker.publish(admitted(numbered("b", 0..5))).await.ok()
    })
    .await;
    assert_eq!(stored.offsets, [6, 7, 8, 9, 10]);
}

#[tokio::test]
async fn export_reads_what_a_running_hub_has_stored() {
    let fixture = Fixture::journal();
    let broker = Arc::new(fixture.open().await);
    broker.publish(admitted(numbered("a", 0..5))).await.unwrap();
    let mut offsets = Vec::new();
    let done = journal::export(fixture.folder(), 2, |epoch, block| {
        assert_eq!(epoch, broker.epochs().newest());
        offsets.extend(block.records_after(2).map(|record| record.offset()));
        Ok::<(), ()>(())
    });
    assert_eq!(done.unwrap(), Ok(()));
    assert_eq!(offsets, [3, 4, 5]);
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_was_told_as_one_that_stored_nothing() {
    let fixture = Fixture::journal();
    let broker = fixture.open().await;
    let file = rusqlite::Connection::open(fixture.folder().join("journal.db")).unwrap();
    // Only the commit finds out.
    file.execute_batch(
        "CREATE TABLE known(id INTEGER PRIMARY KEY);
         CREATE TABLE bad(id INTEGER REFERENCES known(id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER spoil AFTER INSERT ON blocks BEGIN INSERT INTO bad VALUES (new.first); END",
    )
    .unwrap();
    let answer = broker.publish(admitted(numbered("a", 0..2))).await;
    let Err(PublishError::Unknown { ids, .. }) = &answer else { panic!("{answer:?}") };
    assert_eq!(ids.iter().map(|id| &**id).collect::<Vec<_>>(), ["a-0", "a-1"]);
    file.execute_batch("DROP TRIGGER spoil").unwrap();
    let again = broker.publish(admitted(numbered("a", 0..2))).await.unwrap();
    assert_eq!((again.offsets, again.accepted), (vec![1, 2], 2), "it was not stored this time");
    broker.close().await;
}
