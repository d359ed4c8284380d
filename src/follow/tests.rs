//! Followers over a log of one node, with their pace in the tests' hands.

use std::{
    sync::{
        Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::*;
use crate::{
    admission::OwnEvent,
    broker::journal::RetentionRule,
    bytesize::ByteSize,
    config::Config,
    event::Block,
    telemetry::Telemetry,
    time::{Clock, Span},
    topic::{Topic, TopicPattern},
};

const START: u64 = 1_795_176_000_000;
/// Bytes of the newest blocks in memory.
const RING: usize = 64 << 10;
const DEADLINE: Duration = Duration::from_secs(60);

struct Bench {
    feed: Feed,
    clock: Clock,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// Topics `short` are kept for a minute.
    fn new() -> Self {
        let mut journal = Config::load(None, [], &[]).unwrap().journal;
        let rule = |topic: &str, seconds| RetentionRule {
            topics: vec![TopicPattern::parse(topic).unwrap()],
            max_age: Some(Span::seconds(seconds)),
            max_bytes: None,
        };
        journal.retention = vec![rule("short", 60), rule("long", 100_000)];
        journal.recent_bytes = ByteSize(RING as u64);
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let broker = Broker::open(journal, folder.path(), clock.clone(), Telemetry::new()).unwrap();
        Self { feed: Feed::new(broker), clock, _folder: folder }
    }

    /// Publishes one event, whose payload is `data`; gives its block.
    async fn publish(&self, topic: &str, data: String) -> Arc<Block> {
        let (topic, data) = (Topic::parse(topic).unwrap(), RawValue::from_string(data).unwrap());
        let event = OwnEvent::new(&topic, "test", START, data);
        let before = self.head();
        self.feed.broker().publish(event.into()).await.unwrap();
        self.feed.broker().recent(before).unwrap().remove(0)
    }

    fn head(&self) -> Offset {
        self.feed.broker().head().offset
    }

    fn follower(&self, after: Offset) -> Follower {
        self.feed.follow("test", TopicFilter::everything(), after)
    }
}

/// A payload of so many bytes.
fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// Reads up to the head; gives the offsets and asks for every payload.
async fn read_all(bench: &Bench, follower: &mut Follower) -> Vec<Offset> {
    let mut offsets = Vec::new();
    while let Some(delivery) = follower.next_up_to(bench.head()).await.unwrap() {
        assert!(!delivery.has_gap);
        for event in delivery.events() {
            assert!(!event.payload().is_null());
            offsets.push(event.record().offset());
        }
    }
    offsets
}

#[tokio::test]
async fn who_stalls_for_thirty_seconds_delays_nobody_and_costs_no_memory() {
    const EVENTS: u64 = 160;
    const BYTES: usize = 64 << 10;
    let bench = Bench::new();
    let (mut stalled, mut other) = (bench.follower(0), bench.follower(0));
    let mut blocks: Vec<Weak<Block>> = Vec::new();
    blocks.push(Arc::downgrade(&bench.publish("long", text(BYTES)).await));
    // It has its hands full with this, and asks for nothing more.
    let in_hand = stalled.next().await.unwrap();
    in_hand.events().for_each(|event| assert!(event.payload().is_string()));
    let all = async {
        assert_eq!(other.next().await.unwrap().records().count(), 1);
        for n in 2..=EVENTS {
            bench.clock.set(START + n * 190);
            blocks.push(Arc::downgrade(&bench.publish("long", text(BYTES)).await));
            let delivery = other.next().await.unwrap();
            let offsets: Vec<_> = delivery.records().map(|record| record.offset()).collect();
            assert_eq!(offsets, [n]);
            delivery.events().for_each(|event| assert!(event.payload().is_string()));
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("somebody waits for who stalls");
    let held = blocks.iter().filter_map(Weak::upgrade).map(|block| block.bytes()).sum::<usize>();
    assert!(held <= RING + 2 * BYTES, "{held} bytes of blocks, of which one is in hand");
    assert!(bench.feed.payloads.held() <= 9 << 20, "{}", bench.feed.payloads.held());
    drop(in_hand);
    // All the rest is there when it goes on.
    let rest = read_all(&bench, &mut stalled).await;
    assert_eq!(rest, (2..=EVENTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_payload_is_parsed_once_for_all_while_its_block_is_among_the_newest() {
    // With what stands around it, 32 of them are 8 MiB.
    const BYTES: usize = (256 << 10) - 200;
    let bench = Bench::new();
    for _ in 0..10 {
        bench.publish("long", text(BYTES)).await;
    }
    // From memory and from the file, at once and one after the other.
    let mut followers = [bench.follower(0), bench.follower(0), bench.follower(5)];
    for (follower, count) in followers.iter_mut().zip([10, 10, 5]) {
        assert_eq!(read_all(&bench, follower).await.len(), count);
    }
    assert_eq!(bench.feed.parsed(), 10);
    // More than 8 MiB later what is that old is not held for anybody.
    let mut newest = bench.follower(10);
    for _ in 0..40 {
        bench.publish("long", text(BYTES)).await;
        read_all(&bench, &mut newest).await;
    }
    assert_eq!(bench.feed.parsed(), 50);
    for parsed in [68, 86] {
        read_all(&bench, &mut bench.follower(0)).await;
        assert_eq!(bench.feed.parsed(), parsed, "all but the newest 32 blocks again");
    }
}

#[tokio::test]
async fn payloads_that_take_more_memory_than_their_json_are_held_for_fewer_blocks() {
    let bench = Bench::new();
    let (mut follower, numbers) = (bench.follower(0), 100_000);
    for _ in 0..20 {
        bench.publish("long", format!("[{}0]", "0,".repeat(numbers))).await;
        read_all(&bench, &mut follower).await;
    }
    // What an array takes that has grown to so many.
    let one = numbers.next_power_of_two() * size_of::<serde_json::Value>();
    let held = bench.feed.payloads.held();
    assert!(
        (one..=(32 << 20) + one + 1000).contains(&held),
        "{held} bytes, of which {one} for each"
    );
}

#[tokio::test]
async fn objects_of_one_member_took_eight_times_what_was_counted() {
    let bench = Bench::new();
    let objects = 10_000;
    bench.publish("long", format!("[{}0]", "{\"a\":0},".repeat(objects))).await;
    read_all(&bench, &mut bench.follower(0)).await;
    // Each has a node of a tree with room for eleven members, beside its own name.
    let node = 11 * (size_of::<String>() + size_of::<serde_json::Value>());
    let held = bench.feed.payloads.held();
    assert!(held > objects * (node + size_of::<serde_json::Value>()), "{held}");
}

#[tokio::test]
async fn a_follower_that_could_not_read_told_nobody() {
    let mut bench = Bench::new();
    bench.feed.patience = Duration::from_millis(1);
    for _ in 0..3 {
        bench.publish("long", text(RING)).await;
    }
    let file = rusqlite::Connection::open(bench._folder.path().join("journal.db")).unwrap();
    file.execute_batch("ALTER TABLE blocks RENAME TO hidden").unwrap();
    let mut follower = bench.follower(0);
    let next = tokio::time::timeout(DEADLINE, follower.next()).await.expect("it tells nobody");
    assert!(next.is_err());
    assert_eq!(follower.reached(), 0, "nothing is skipped");
}

#[tokio::test]
async fn what_retention_left_beside_what_it_took_is_read() {
    let bench = Bench::new();
    for n in 0..9 {
        // Of which one is about as much as is read at a time: the gap is told once even so.
        bench.publish(if n % 2 == 0 { "long" } else { "short" }, text(256 << 10)).await;
    }
    // The last of all is of those that go.
    bench.publish("short", "1".to_owned()).await;
    bench.clock.set(START + 61_000);
    bench.feed.broker().maintain().await;
    let mut follower = bench.follower(0);
    let (mut offsets, mut gaps) = (Vec::new(), 0);
    while let Some(delivery) = follower.next_up_to(bench.head()).await.unwrap() {
        gaps += u32::from(delivery.has_gap);
        offsets.extend(delivery.records().map(|record| record.offset()));
    }
    assert_eq!((offsets, gaps), (vec![1, 3, 5, 7, 9], 1));
}

/// The offsets of the newest events of each topic.
struct Offsets {
    feed: Feed,
    taken: Mutex<Vec<Offset>>,
    made: AtomicUsize,
}

impl Follow for Offsets {
    type Error = ReadError;

    fn name(&self) -> &'static str {
        "offsets"
    }

    fn filter(&self) -> TopicFilter {
        TopicFilter::everything()
    }

    async fn rebuild(&self) -> Result<Offset, ReadError> {
        // The first time it cannot be done.
        if self.made.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(ReadError("broken".to_owned()));
        }
        let broker = self.feed.broker();
        let head = broker.head().offset;
        *self.taken.lock() = vec![head];
        Ok(head)
    }

    fn take_in(&self, delivery: &Delivery) {
        assert!(!delivery.has_gap);
        self.taken.lock().extend(delivery.records().map(|record| record.offset()));
    }
}

#[tokio::test]
async fn who_missed_events_is_made_anew_and_anybody_can_wait_until_all_is_in() {
    let bench = Bench::new();
    for topic in ["short", "long", "short", "long"] {
        bench.publish(topic, "1".to_owned()).await;
    }
    bench.clock.set(START + 61_000);
    bench.feed.broker().maintain().await;
    let made = AtomicUsize::new(0);
    let offsets = Offsets { feed: bench.feed.clone(), taken: Mutex::default(), made };
    let progress = Progress::default();
    let keeping_up = bench.feed.keep_up(&offsets, Some(0), progress.clone());
    let waiting = async {
        progress.reaches(4).await;
        assert_eq!(
            (offsets.made.load(Ordering::Relaxed), &offsets.taken.lock()[..]),
            (2, &[4][..])
        );
        for topic in ["short", "long"] {
            bench.publish(topic, "1".to_owned()).await;
        }
        progress.reaches(bench.head()).await;
    };
    let waited = async {
        tokio::select! {
            () = waiting => {}
            _ = keeping_up.run() => {}
        }
    };
    tokio::time::timeout(DEADLINE, waited).await.expect("it hangs");
    assert_eq!(*offsets.taken.lock(), [4, 5, 6]);
    assert_eq!(progress.offset(), 6);
}
