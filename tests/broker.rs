//! The contract every broker passes; what is special to one stands below it.

mod journal;
mod redis;
mod upkeep;

use std::collections::BTreeMap;

use pulsehub::{
    broker::{
        Broker, PublishError, Published, TopicInfo,
        journal::{JournalConfig, RetentionRule, Sync},
    },
    bytesize::ByteSize,
    event::Event,
    position::Offset,
    telemetry::Telemetry,
    time::{Clock, Span},
    topic::{Topic, TopicFilter, TopicPattern},
};

use crate::support::{admit, admitted, event, filter, redis::RedisServer};

const START: u64 = 1_800_000_000_000;

/// Where a log is kept, to be opened again and again.
struct Fixture {
    place: Place,
    clock: Clock,
    config: JournalConfig,
}

enum Place {
    Folder(tempfile::TempDir),
    Redis(RedisServer),
}

impl Fixture {
    fn journal() -> Self {
        Self::at(Place::Folder(tempfile::tempdir().unwrap()))
    }

    async fn redis() -> Self {
        Self::at(Place::Redis(RedisServer::start().await))
    }

    fn at(place: Place) -> Self {
        let config = JournalConfig {
            sync: Sync::Normal,
            max_age: Span::seconds(3600),
            max_bytes: ByteSize(1 << 30),
            retention: Vec::new(),
            dedupe_window: Span::seconds(120),
            dedupe_ids: 1000,
            latest_keys: 10,
            max_topics: 1000,
            reserve: ByteSize(0),
            recent_bytes: ByteSize(1 << 20),
            queue_bytes: ByteSize(1 << 20),
            queue_timeout: Span::seconds(5),
        };
        Self { place, clock: Clock::manual(START), config }
    }

    async fn open(&self) -> Broker {
        let (config, clock) = (self.config.clone(), self.clock.clone());
        match &self.place {
            Place::Folder(folder) => {
                Broker::open(config, folder.path(), clock, Telemetry::new()).unwrap()
            }
            Place::Redis(redis) => {
                Broker::join(config, redis.server(), clock, Telemetry::new()).await.unwrap()
            }
        }
    }

    /// The head of a log that is opened again and whose newest event is at `head`: each start of a file
    /// begins an epoch, while Redis ran on.
    fn head_after(&self, head: Offset) -> Offset {
        match &self.place {
            Place::Folder(_) => (head / EPOCH_STEP + 1) * EPOCH_STEP,
            Place::Redis(_) => head,
        }
    }
}

/// An epoch begins at a multiple of this.
const EPOCH_STEP: Offset = 1_000_000_000;

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod on_the_journal {
            $(#[tokio::test] async fn $name() { super::$name(super::Fixture::journal()).await })*
        }
        mod on_redis {
            $(#[tokio::test] async fn $name() { super::$name(super::Fixture::redis().await).await })*
        }
    };
}

contract!(
    a_batch_gets_consecutive_offsets_and_is_read_back_in_order,
    a_repeated_id_is_stored_once_and_answered_with_its_first_offset,
    a_batch_of_thousands_keeps_every_offset_id_and_newest_value,
    history_beyond_memory_is_read_back,
    a_replay_since_a_time_begins_before_the_first_event_received_then,
    the_newest_are_found_piece_by_piece_however_rare_they_are,
    no_search_for_many_topics_goes_through_the_whole_log,
    latest_is_the_newest_of_each_key_with_removal_and_a_cap,
    newest_values_come_in_pieces_however_many_there_are,
    retention_by_age_trims_and_says_exactly_what_is_lost_to_whom,
    what_another_topic_lost_shortened_a_search_for_the_newest,
    memory_forgets_what_retention_took,
    retention_by_size_trims_the_oldest,
    retention_by_size_never_takes_the_newest,
    a_reader_that_follows_sees_each_event_of_many_publishers_once_and_in_order,
    too_many_topics_refuse_the_batch_whole,
    what_has_no_room_is_left_out_of_a_batch_that_is_stored_as_far_as_it_fits,
    a_forgotten_topic_makes_no_gap_for_one_that_lost_nothing,
    the_newest_values_of_the_hubs_own_topics_outlive_the_limit_of_topics,
    the_hubs_own_topics_take_no_room_and_go_when_they_hold_nothing,
    a_clock_that_was_ahead_freezes_nothing_once_it_is_put_right,
    a_full_queue_says_so,
    a_closed_broker_refuses_and_holds_what_it_took,
);

fn numbered(topic: &str, ids: std::ops::Range<usize>) -> Vec<Event> {
    ids.map(|id| event(topic, "s", &format!("{topic}-{id}"), None, &format!("{{\"n\":{id}}}")))
        .collect()
}

async fn all_topics(broker: &Broker) -> Vec<TopicInfo> {
    let topics = broker.topics();
    let names = topics.index().await.unwrap().page("", "", usize::MAX);
    topics.infos(names).await.unwrap()
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

async fn a_batch_gets_consecutive_offsets_and_is_read_back_in_order(fixture: Fixture) {
    let broker = fixture.open().await;
    let mut tail = broker.tail();
    let first = broker.publish(admitted(numbered("a.b", 0..3))).await.unwrap();
    assert_eq!(first.offsets, [1, 2, 3]);
    assert_eq!((first.position.offset, first.accepted), (3, 3));
    let second = broker.publish(admitted(numbered("a.c", 0..2))).await.unwrap();
    assert_eq!(second.offsets, [4, 5]);
    assert_eq!(*tail.borrow_and_update(), 5, "announced before it is answered");
    let piece = broker.read(0, 5, &filter(&["**"]), 1).await.unwrap();
    assert_eq!((piece.blocks.len(), piece.reached), (1, 3), "however much is in memory");
    for budget in [1, 100, 1 << 20] {
        assert_eq!(read_all(&broker, 0, &filter(&["**"]), budget).await, (vec![1, 2, 3, 4, 5], 0));
        assert_eq!(read_all(&broker, 1, &filter(&["a.b"]), budget).await, (vec![2, 3], 0));
    }
}

async fn a_repeated_id_is_stored_once_and_answered_with_its_first_offset(fixture: Fixture) {
    let broker = fixture.open().await;
    let twice = || vec![event("a", "s", "x", None, "1"), event("a", "s", "x", None, "2")];
    let published = broker.publish(admitted(twice())).await.unwrap();
    assert_eq!((published.offsets, published.accepted), (vec![1, 1], 1));
    let others =
        vec![event("b", "s", "x", None, "1"), event("a", "t", "x", None, "1"), twice().remove(0)];
    let published = broker.publish(admitted(others)).await.unwrap();
    assert_eq!((published.offsets, published.accepted), (vec![2, 3, 1], 2));
    assert_eq!(published.position.offset, 3);
    // Retries that meet their original in flight get its offset too.
    let racing = (0..20).map(|_| {
        let broker = broker.clone();
        tokio::spawn(async move {
            broker.publish(admitted(vec![event("r", "s", "r", None, "1")])).await
        })
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
    let broker = fixture.open().await;
    let again = broker.publish(admitted(twice())).await.unwrap();
    assert_eq!((again.offsets, again.accepted), (vec![1, 1], 0), "also across a restart");
    fixture.clock.set(START + 121_000);
    let later = broker.publish(admitted(twice())).await.unwrap();
    let next = fixture.head_after(4) + 1;
    assert_eq!((later.offsets, later.accepted), (vec![next; 2], 1), "only within the window");
}

async fn a_batch_of_thousands_keeps_every_offset_id_and_newest_value(mut fixture: Fixture) {
    const KEYS: usize = 2200;
    const TOPICS: usize = 2100;
    fixture.config.dedupe_ids = 100_000;
    fixture.config.latest_keys = KEYS;
    fixture.config.max_topics = 2 * TOPICS;
    fixture.config.queue_bytes = ByteSize(16 << 20);
    let broker = fixture.open().await;
    let keyed = |data: &'static str| (0..KEYS).map(move |n| (n.to_string(), data));
    let of_keys = |prefix: &str, data: &'static str| -> Vec<Event> {
        let event = |(key, data): (String, &str)| event("k", prefix, &key, Some(&key), data);
        keyed(data).map(event).collect()
    };
    let mut batch = of_keys("first", "1");
    batch.extend((0..TOPICS).map(|n| event(&format!("t.t{n}"), "s", "x", None, "2")));
    let all: Vec<Offset> = (11..).take(batch.len()).collect();
    broker.publish(admitted(numbered("before", 0..10))).await.unwrap();
    assert_eq!(broker.publish(admitted(batch.clone())).await.unwrap().offsets, all);
    let again = broker.publish(admitted(batch.clone())).await.unwrap();
    assert_eq!((again.offsets, again.accepted), (all.clone(), 0));
    // Some that are known among some that are not.
    let mut mixed = numbered("after", 0..3);
    mixed.extend(batch.drain(300..303));
    let mixed = broker.publish(admitted(mixed)).await.unwrap();
    let next = all.last().unwrap() + 1;
    assert_eq!(mixed.offsets, [next, next + 1, next + 2, 311, 312, 313]);
    let latest = async |pattern: &str| -> Vec<Offset> {
        let block = broker.latest(filter(&[pattern])).all().await.unwrap();
        block.records().map(|record| record.offset()).collect()
    };
    assert_eq!(latest("k").await, all[..KEYS]);
    assert_eq!(latest("t.*").await, all[KEYS..]);
    let topics = all_topics(&broker).await;
    let last = |topic: &str| topics.iter().find(|one| one.topic.as_str() == topic).unwrap();
    let (k, t) = (last("k"), last("t.t2099"));
    assert_eq!((k.events, k.last_offset), (KEYS as u64, all[KEYS - 1]));
    assert_eq!((t.events, Some(&t.last_offset)), (1, all.last()));
    broker.publish(admitted(of_keys("second", "null"))).await.unwrap();
    assert_eq!(latest("k").await, [0; 0], "all were removed");
}

async fn history_beyond_memory_is_read_back(mut fixture: Fixture) {
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    for round in 0..40 {
        let topic = if round % 10 == 0 { "rare.x" } else { "common.y" };
        broker.publish(admitted(numbered(topic, round * 5..round * 5 + 5))).await.unwrap();
    }
    assert!(broker.recent(0).is_none(), "memory reaches back only a little");
    let rare: Vec<Offset> = (0..4).flat_map(|n| n * 50 + 1..=n * 50 + 5).collect();
    for pattern in ["rare.x", "rare.*", "*.x"] {
        for budget in [1, 600, 1 << 20] {
            assert_eq!(read_all(&broker, 0, &filter(&[pattern]), budget).await, (rare.clone(), 0));
        }
    }
    assert_eq!(read_all(&broker, 0, &filter(&["**"]), 700).await.0, (1..=200).collect::<Vec<_>>());
    assert_eq!(
        broker.newest(&filter(&["rare.x"]), 7, 200).within(usize::MAX).await.unwrap().after,
        103
    );
    assert_eq!(
        broker.newest(&filter(&["**"]), 7, 200).within(usize::MAX).await.unwrap().after,
        193
    );
    assert_eq!(broker.newest(&filter(&["**"]), 7, 100).within(usize::MAX).await.unwrap().after, 93);
    // Where there are fewer than asked for, all of them come.
    let all = broker.newest(&filter(&["rare.x"]), 99, 200).within(usize::MAX).await.unwrap().after;
    assert_eq!(read_all(&broker, all, &filter(&["rare.x"]), 700).await, (rare, 0));
    let none = broker.newest(&filter(&["none"]), 1, 200).within(usize::MAX).await.unwrap().after;
    assert_eq!(read_all(&broker, none, &filter(&["none"]), 700).await, (vec![], 0));
}

async fn a_replay_since_a_time_begins_before_the_first_event_received_then(fixture: Fixture) {
    let broker = fixture.open().await;
    for step in 0..5 {
        fixture.clock.set(START + step * 1000);
        broker
            .publish(admitted(numbered("a", step as usize * 2..step as usize * 2 + 2)))
            .await
            .unwrap();
    }
    assert_eq!(broker.epochs().locate(0, 10).await.unwrap(), 0);
    assert_eq!(broker.epochs().locate(START + 1001, 10).await.unwrap(), 4);
    assert_eq!(broker.epochs().locate(START + 2000, 10).await.unwrap(), 4);
    assert_eq!(broker.epochs().locate(START + 4001, 10).await.unwrap(), 10);
}

async fn the_newest_are_found_piece_by_piece_however_rare_they_are(mut fixture: Fixture) {
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    for round in 0..3 {
        broker.publish(admitted(numbered("rare", round..round + 1))).await.unwrap(); // 1, 102, 203
        for n in 0..100 {
            let n = round * 100 + n;
            broker.publish(admitted(numbered("common", n..n + 1))).await.unwrap();
        }
    }
    let rare = filter(&["rare"]);
    let head = broker.head().offset;
    let first = broker.newest(&rare, 1, head).within(1).await.unwrap();
    assert_eq!(first.after, 202, "however little is looked through");
    assert!((203..=head).contains(&first.until), "{first:?}");
    for budget in [1, 3000, usize::MAX] {
        let (mut until, mut found, mut stretches) = (head, Vec::new(), 0);
        while until > 0 {
            let stretch = broker.newest(&rare, 5, until).within(budget).await.unwrap();
            assert!(stretch.after < until, "it gets on: {stretch:?}");
            let mut at = stretch.after;
            while at < stretch.until {
                let chunk = broker.read(at, stretch.until, &rare, 1 << 20).await.unwrap();
                let records = chunk.blocks.iter().flat_map(|block| block.records_after(at));
                let records = records.take_while(|record| record.offset() <= chunk.reached);
                let rare = records.filter(|record| record.topic() == "rare");
                found.extend(rare.map(|record| record.offset()));
                at = chunk.reached;
            }
            (until, stretches) = (stretch.after, stretches + 1);
        }
        found.sort_unstable();
        assert_eq!(found, [1, 102, 203]);
        // A journal knows which block holds which topic, and needs not look through others.
        let is_redis = matches!(fixture.place, Place::Redis(_));
        let is_in_pieces = budget == 1 || is_redis && budget < usize::MAX;
        assert_eq!(stretches > 1, is_in_pieces, "{stretches} with {budget}");
    }
}

async fn no_search_for_many_topics_goes_through_the_whole_log(mut fixture: Fixture) {
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    for round in 0..2 {
        // More of them than a journal looks up one by one: 1 to 40, 51 to 90.
        let rare = (0..40).map(|n| event(&format!("rare.{n}"), "s", &round.to_string(), None, "1"));
        broker.publish(admitted(rare.collect())).await.unwrap();
        for n in 0..10 {
            // Too large to be merged with others.
            let data = format!("\"{}\"", "x".repeat(70 << 10));
            let event = event("common", "s", &format!("{round} {n}"), None, &data);
            broker.publish(admitted(vec![event])).await.unwrap();
        }
    }
    let rare = filter(&["rare.*"]);
    let newest = broker.newest(&rare, 50, 100).within(1).await.unwrap();
    assert_eq!((newest.after, newest.until), (50, 90), "what lies behind them costs nothing");
    let between = broker.newest(&rare, 50, 50).within(1).await.unwrap();
    assert_eq!((between.after, between.until), (49, 50));
    let all = broker.newest(&rare, 50, 100).within(usize::MAX).await.unwrap();
    assert_eq!((all.after, all.until), (30, 90));
    assert_eq!(broker.newest(&rare, 50, 100).within(usize::MAX).await.unwrap().after, 30);
}

async fn latest_is_the_newest_of_each_key_with_removal_and_a_cap(fixture: Fixture) {
    let broker = fixture.open().await;
    let keyed = |id: &str, key: &str, data: &str| event("m", "s", id, Some(key), data);
    broker
        .publish(admitted(vec![keyed("1", "a", "1"), keyed("2", "b", "1"), keyed("3", "a", "2")]))
        .await
        .unwrap();
    broker.publish(admitted(vec![event("m", "s", "4", None, "\"no key\"")])).await.unwrap();
    broker.publish(admitted(vec![event("other", "s", "5", None, "5")])).await.unwrap();
    let latest = async |patterns: &[&str]| -> Vec<(Offset, String)> {
        let block = broker.latest(filter(patterns)).all().await.unwrap();
        let data = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
        block.records().map(|record| (record.offset(), data(record.data()))).collect()
    };
    let text = |offset: Offset, data: &str| (offset, data.to_owned());
    assert_eq!(latest(&["m"]).await, [text(2, "1"), text(3, "2"), text(4, "\"no key\"")]);
    assert_eq!(latest(&["*"]).await.len(), 4);
    broker.publish(admitted(vec![keyed("6", "a", "null")])).await.unwrap();
    assert_eq!(latest(&["m"]).await, [text(2, "1"), text(4, "\"no key\"")]);
    let many = (0..30).map(|n| keyed(&format!("k{n}"), &format!("k{n}"), &n.to_string()));
    broker.publish(admitted(many.collect())).await.unwrap();
    broker.maintain().await;
    let kept = latest(&["m"]).await;
    assert!(kept.len() <= 10, "capped at 10, has {}", kept.len());
    assert_eq!(kept.last(), Some(&text(36, "29")), "the newest stay");
}

async fn newest_values_come_in_pieces_however_many_there_are(mut fixture: Fixture) {
    const PIECE: usize = 20_000;
    fixture.config.latest_keys = 200;
    let broker = fixture.open().await;
    let fill = format!("\"{}\"", "x".repeat(500));
    let keyed = |key: usize, data: &str| {
        let key = key.to_string();
        event("big", "s", &key, Some(&key), data)
    };
    let small = |n: usize| event(&format!("t.t{n}"), "s", "x", None, &fill);
    broker.publish(admitted((0..300).map(small).collect())).await.unwrap();
    broker.publish(admitted((0..200).map(|key| keyed(key, &fill)).collect())).await.unwrap();
    for (pattern, first, last) in [("**", 1, 500), ("t.*", 1, 300), ("big", 301, 500)] {
        let mut reader = broker.latest(filter(&[pattern])).up_to(500);
        let (mut found, mut pieces) = (Vec::new(), 0);
        while let Some(block) = reader.next(PIECE).await.unwrap() {
            assert!(block.bytes() <= PIECE + 1000, "{} bytes in a piece", block.bytes());
            found.extend(block.records().map(|record| record.offset()));
            pieces += 1;
        }
        assert_eq!(found, (first..=last).collect::<Vec<_>>());
        assert!(pieces > 4 && reader.is_over(), "{pieces} pieces");
    }

    // What changes meanwhile comes as an event, and what is removed does not come at all.
    let mut reader = broker.latest(filter(&["**"])).up_to(500);
    let first = reader.next(PIECE).await.unwrap().unwrap();
    broker.publish(admitted(vec![event("big", "s", "new", Some("199"), "1")])).await.unwrap();
    broker.publish(admitted(vec![event("big", "s", "gone", Some("198"), "null")])).await.unwrap();
    let mut found = Vec::from_iter(first.records().map(|record| record.offset()));
    while let Some(block) = reader.next(PIECE).await.unwrap() {
        found.extend(block.records().map(|record| record.offset()));
    }
    assert_eq!(found, (1..=498).collect::<Vec<_>>());
    let newest = broker.latest(filter(&["big"])).all().await.unwrap();
    assert_eq!(Vec::from_iter(newest.records().map(|record| record.offset())).last(), Some(&501));
}

async fn retention_by_age_trims_and_says_exactly_what_is_lost_to_whom(mut fixture: Fixture) {
    let rule = |topics: &str, seconds| RetentionRule {
        topics: vec![TopicPattern::parse(topics).unwrap()],
        max_age: Some(Span::seconds(seconds)),
        max_bytes: None,
    };
    fixture.config.retention = vec![rule("short.*", 60), rule("long.*", 100_000)];
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    for topic in ["short.a", "normal.a", "long.a"] {
        broker.publish(admitted(numbered(topic, 0..2))).await.unwrap(); // 1-2, 3-4, 5-6
    }
    let mut mixed = numbered("short.a", 2..3); // 7
    mixed.extend(numbered("long.a", 2..3)); // 8
    broker.publish(admitted(mixed)).await.unwrap();
    fixture.clock.set(START + 61_000);
    broker.publish(admitted(numbered("quiet.a", 0..1))).await.unwrap(); // 9
    broker.maintain().await;
    let read = async |pattern: &str| read_all(&broker, 0, &filter(&[pattern]), 1 << 20).await;
    assert_eq!(read("short.*").await, (vec![], 7));
    assert_eq!(read("normal.*").await, (vec![3, 4], 0), "nothing lost, no gap");
    assert_eq!(read("long.*").await, (vec![5, 6, 8], 0));
    fixture.clock.set(START + 3_601_000);
    broker.publish(admitted(numbered("late.a", 0..1))).await.unwrap(); // 10
    broker.maintain().await;
    assert_eq!(read("normal.*").await, (vec![], 4));
    assert_eq!(read("long.*").await, (vec![5, 6, 8], 0));
    assert_eq!(read("quiet.a").await, (vec![9], 0));
    assert_eq!(broker.topics().trimmed_through(&filter(&["**"])).await.unwrap(), 7);
    assert_eq!(broker.topics().trimmed_through(&filter(&["normal.a"])).await.unwrap(), 4);
    assert_eq!(broker.topics().trimmed_through(&filter(&["long.a", "quiet.*"])).await.unwrap(), 0);
    broker.close().await;
    drop(broker);
    let broker = fixture.open().await;
    assert_eq!(
        broker.topics().trimmed_through(&filter(&["short.a"])).await.unwrap(),
        7,
        "remembered"
    );
    let counts: BTreeMap<_, _> =
        all_topics(&broker).await.into_iter().map(|t| (t.topic.to_string(), t.events)).collect();
    assert_eq!((counts["short.a"], counts["normal.a"], counts["long.a"]), (0, 0, 3));
    // A changed rule is applied to what is there already.
    drop(broker);
    fixture.config.retention[1].max_age = Some(Span::seconds(10));
    let broker = fixture.open().await;
    broker.maintain().await;
    assert_eq!(broker.topics().trimmed_through(&filter(&["long.a"])).await.unwrap(), 8);
}

async fn what_another_topic_lost_shortened_a_search_for_the_newest(mut fixture: Fixture) {
    fixture.config.retention = vec![RetentionRule {
        topics: vec![TopicPattern::parse("short.*").unwrap()],
        max_age: Some(Span::seconds(60)),
        max_bytes: None,
    }];
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("a", 0..3))).await.unwrap(); // 1-3
    broker.publish(admitted(numbered("short.a", 0..1))).await.unwrap(); // 4
    broker.publish(admitted(numbered("a", 3..5))).await.unwrap(); // 5-6
    fixture.clock.set(START + 61_000);
    broker.publish(admitted(numbered("a", 5..6))).await.unwrap(); // 7
    broker.maintain().await;
    let all = filter(&["**"]);
    assert_eq!(broker.topics().trimmed_through(&all).await.unwrap(), 4);
    let newest = broker.newest(&all, 5, 7).within(usize::MAX).await.unwrap();
    let (found, lost) = read_all(&broker, newest.after, &all, 1 << 20).await;
    assert!(found.ends_with(&[3, 5, 6, 7]), "{newest:?} {found:?}");
    // Redis counts what its stream still holds; that it lies in the loss shows.
    assert!(found.len() == 5 || newest.first <= lost, "{newest:?} {found:?}");
    assert_eq!(lost, 4, "it is told");
    assert_eq!(broker.epochs().locate(START, 7).await.unwrap(), 0);
}

async fn memory_forgets_what_retention_took(fixture: Fixture) {
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("a", 0..3))).await.unwrap();
    fixture.clock.set(START + 3_000_000);
    broker.publish(admitted(numbered("b", 0..2))).await.unwrap();
    fixture.clock.set(START + 3_601_000);
    broker.maintain().await;
    assert_eq!(read_all(&broker, 0, &filter(&["**"]), 1 << 20).await, (vec![4, 5], 3));
    assert!(broker.recent(0).is_none());
    assert_eq!(broker.recent(3).unwrap().len(), 1, "what is left is still in memory");
}

async fn retention_by_size_trims_the_oldest(mut fixture: Fixture) {
    fixture.config.max_bytes = ByteSize(1500);
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    for round in 0..20 {
        broker.publish(admitted(numbered("free", round * 5..round * 5 + 5))).await.unwrap();
    }
    broker.maintain().await;
    let (free, lost) = read_all(&broker, 0, &filter(&["free"]), 1 << 20).await;
    assert!(free.len() < 50 && lost > 0 && free[0] > lost, "{lost} {free:?}");
    assert_eq!(free.last(), Some(&100));
}

async fn retention_by_size_never_takes_the_newest(mut fixture: Fixture) {
    fixture.config.max_bytes = ByteSize(1);
    fixture.config.recent_bytes = ByteSize(1);
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("a", 0..5))).await.unwrap();
    broker.publish(admitted(numbered("b", 0..5))).await.unwrap();
    broker.maintain().await;
    broker.maintain().await;
    let (found, lost) = read_all(&broker, 0, &filter(&["**"]), 1 << 20).await;
    assert_eq!(found.last(), Some(&10), "{lost}");
    assert_eq!(lost, found[0] - 1);
    // By its age the newest goes as well.
    fixture.clock.set(START + 3_601_000);
    broker.maintain().await;
    assert_eq!(read_all(&broker, 0, &filter(&["**"]), 1 << 20).await, (vec![], 10));
}

async fn a_reader_that_follows_sees_each_event_of_many_publishers_once_and_in_order(
    fixture: Fixture,
) {
    let broker = fixture.open().await;
    let publishers = (0..8).map(|publisher| {
        let broker = broker.clone();
        tokio::spawn(async move {
            for n in 0..50 {
                let id = format!("{publisher}-{n}");
                broker.publish(admitted(vec![event("t", "s", &id, None, "1")])).await.unwrap();
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

async fn too_many_topics_refuse_the_batch_whole(mut fixture: Fixture) {
    fixture.config.max_topics = 3;
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("a", 0..1))).await.unwrap();
    let batch = vec![
        event("a", "s", "n", None, "1"),
        event("b", "s", "1", None, "1"),
        event("c", "s", "1", None, "1"),
        event("d", "s", "1", None, "1"),
    ];
    let refused = broker.publish(admitted(batch)).await;
    let Err(PublishError::TooManyTopics { limit: 3, topics }) = refused else {
        panic!("{refused:?}")
    };
    // For two of the three there is room, whichever.
    assert!(topics.len() == 1 && ["b", "c", "d"].contains(&topics.iter().next().unwrap().as_str()));
    assert_eq!(broker.head().offset, 1);
    let fits = vec![event("b", "s", "1", None, "1"), event("c", "s", "1", None, "1")];
    assert_eq!(broker.publish(admitted(fits)).await.unwrap().offsets, [2, 3]);
    // What holds nothing any more makes room; what it lost is still said.
    fixture.clock.set(START + 3_601_000);
    broker.maintain().await;
    assert_eq!(broker.publish(admitted(numbered("e", 0..1))).await.unwrap().offsets, [4]);
    let lost =
        async |topics: &[&str]| broker.topics().trimmed_through(&filter(topics)).await.unwrap();
    assert_eq!([lost(&["a"]).await, lost(&["c"]).await, lost(&["*"]).await], [1, 3, 3]);
}

async fn what_has_no_room_is_left_out_of_a_batch_that_is_stored_as_far_as_it_fits(
    mut fixture: Fixture,
) {
    fixture.config.max_topics = 1;
    let broker = fixture.open().await;
    let none = broker.publish(admitted(Vec::new()).what_fits(0)).await.unwrap();
    assert_eq!((none.position, none.offsets.len(), none.left_out), (broker.head(), 0, None));
    broker.publish(admitted(numbered("a", 0..1))).await.unwrap();
    let batch = || [numbered("b", 0..1), numbered("a", 1..3)].concat();
    let left_out = |published: Published| {
        let left_out = published.left_out.unwrap();
        assert_eq!(left_out.limit, 1);
        left_out.topics.iter().map(Topic::to_string).collect::<Vec<_>>()
    };
    let few = broker.publish(admitted(batch()).what_fits(3)).await;
    assert!(matches!(few, Err(PublishError::TooManyTopics { .. })), "{few:?}");
    assert_eq!(broker.head().offset, 1, "fewer than are wanted: nothing is stored");
    let stored = broker.publish(admitted(batch()).what_fits(2)).await.unwrap();
    assert_eq!((stored.position.offset, stored.accepted), (3, 2));
    assert_eq!(stored.offsets, [2, 3]);
    assert_eq!(left_out(stored), ["b"]);
    let nothing = broker.publish(admitted(numbered("c", 0..1)).what_fits(0)).await.unwrap();
    assert_eq!((nothing.position, nothing.accepted), (broker.head(), 0));
    assert_eq!(left_out(nothing), ["c"]);
}

async fn a_forgotten_topic_makes_no_gap_for_one_that_lost_nothing(mut fixture: Fixture) {
    fixture.config.max_topics = 3;
    fixture.config.retention = vec![RetentionRule {
        topics: vec![TopicPattern::parse("gone.a").unwrap()],
        max_age: Some(Span::seconds(1000)),
        max_bytes: None,
    }];
    let broker = fixture.open().await;
    let one = |topic: &str, id: &str| vec![event(topic, "s", id, Some("k"), "1")];
    broker.publish(admitted(numbered("gone.a", 0..1))).await.unwrap();
    // Redis keeps it for longer, and must not give it out.
    fixture.clock.set(START + 1_200_000);
    broker.publish(admitted(one("quiet", "1"))).await.unwrap();
    broker.publish(admitted(numbered("gone.b", 0..1))).await.unwrap();
    broker.maintain().await;
    assert_eq!(broker.publish(admitted(one("new", "1"))).await.unwrap().offsets, [4]);
    let lost = async |broker: &Broker, topics: &[&str]| {
        broker.topics().trimmed_through(&filter(topics)).await.unwrap()
    };
    let read = async |broker: &Broker, topics: &[&str]| {
        read_all(broker, 0, &filter(topics), 1 << 20).await
    };
    let judge = async |broker: &Broker| {
        assert_eq!(lost(broker, &["quiet"]).await, 0, "it lost nothing");
        assert!(!broker.topics().has_lost(&filter(&["quiet"]), 0).await.unwrap());
        assert_eq!(read(broker, &["quiet"]).await, (vec![2], 0));
        assert_eq!([lost(broker, &["gone.a"]).await, lost(broker, &["gone.*"]).await], [1, 1]);
        assert_eq!(lost(broker, &["gone.b", "new", "never"]).await, 0);
        assert_eq!(read(broker, &["gone.a"]).await, (vec![], 1));
        assert_eq!(read(broker, &["gone.*"]).await, (vec![3], 1));
        let topics = all_topics(broker).await;
        let names: Vec<_> = topics.iter().map(|info| info.topic.as_str()).collect();
        assert_eq!(names, ["gone.b", "new", "quiet"]);
    };
    judge(&broker).await;
    let refused = broker.publish(admitted(one("more", "1"))).await;
    assert!(matches!(refused, Err(PublishError::TooManyTopics { .. })), "{refused:?}");
    broker.close().await;
    drop(broker);
    let broker = fixture.open().await;
    judge(&broker).await;
    // Of more forgotten topics than the log may hold, the one that lost something longest ago is not
    // remembered. One that comes back has what it had lost.
    fixture.clock.set(START + 7_300_000);
    broker.maintain().await;
    let next = fixture.head_after(4) + 1;
    assert_eq!(broker.publish(admitted(one("quiet", "2"))).await.unwrap().offsets, [next]);
    let each = [lost(&broker, &["never"]).await, lost(&broker, &["gone.a"]).await];
    assert_eq!(each, [1, 1]);
    assert_eq!([lost(&broker, &["quiet"]).await, lost(&broker, &["gone.*"]).await], [2, 3]);
    let topics = all_topics(&broker).await;
    let told: Vec<_> = topics
        .iter()
        .map(|info| (info.topic.as_str(), info.events, info.trimmed_through))
        .collect();
    assert_eq!(told, [("quiet", 1, 2)]);
    broker.close().await;
    drop(broker);
    let broker = fixture.open().await;
    assert_eq!([lost(&broker, &["quiet"]).await, lost(&broker, &["gone.*"]).await], [2, 3]);
}

async fn the_newest_values_of_the_hubs_own_topics_outlive_the_limit_of_topics(
    mut fixture: Fixture,
) {
    fixture.config.max_topics = 1;
    let broker = fixture.open().await;
    let known =
        vec![event("hub.x", "s", "1", Some("k"), "1"), event("a", "s", "1", Some("k"), "1")];
    broker.publish(admitted(known)).await.unwrap();
    fixture.clock.set(START + 3_601_000);
    broker.maintain().await;
    broker.publish(admitted(numbered("b", 0..1))).await.unwrap();
    let latest = broker.latest(filter(&["hub.*", "*"])).all().await.unwrap();
    let topics: Vec<_> = latest.records().map(|record| record.topic().to_owned()).collect();
    assert_eq!(topics, ["hub.x", "b"]);
}

async fn the_hubs_own_topics_take_no_room_and_go_when_they_hold_nothing(mut fixture: Fixture) {
    fixture.config.max_topics = 2;
    let broker = fixture.open().await;
    let own = |topic, data| event(topic, "s", data, Some("k"), data);
    let many = ["hub.i.a", "hub.i.b", "hub.i.c"].map(|topic| own(topic, "1"));
    broker.publish(admitted(many.into())).await.unwrap();
    broker
        .publish(admitted(vec![own("hub.i.a", "null"), event("x", "s", "1", None, "1")]))
        .await
        .unwrap();
    broker.publish(admitted(vec![event("y", "s", "1", None, "1")])).await.unwrap();
    let refused = broker.publish(admitted(vec![event("z", "s", "1", None, "1")])).await;
    let z = std::iter::once(Topic::parse("z").unwrap()).collect();
    assert_eq!(refused, Err(PublishError::TooManyTopics { limit: 2, topics: z }));
    let names = async || {
        let mut names: Vec<String> =
            all_topics(&broker).await.iter().map(|info| info.topic.to_string()).collect();
        names.sort();
        names
    };
    broker.maintain().await;
    assert_eq!(names().await.len(), 5, "they hold events");
    fixture.clock.set(START + 3_601_000);
    broker.maintain().await;
    assert_eq!(names().await, ["hub.i.b", "hub.i.c"], "newest values outlive retention");
    for topic in ["hub.i.d", "x", "z"] {
        broker.publish(admitted(vec![event(topic, "s", "2", None, "1")])).await.unwrap();
    }
    let refused = broker.publish(admitted(vec![event("y", "s", "2", None, "1")])).await;
    assert!(matches!(refused, Err(PublishError::TooManyTopics { .. })), "{refused:?}");
}

async fn a_clock_that_was_ahead_freezes_nothing_once_it_is_put_right(fixture: Fixture) {
    const HOUR: u64 = 3_600_000;
    let broker = fixture.open().await;
    broker.publish(admitted(numbered("a", 0..1))).await.unwrap();
    fixture.clock.set(START + HOUR);
    broker.publish(admitted(numbered("b", 0..1))).await.unwrap();
    fixture.clock.set(START + 1000);
    broker.publish(admitted(numbered("c", 0..1))).await.unwrap();
    let received = async |topic: &str| {
        let topics = all_topics(&broker).await;
        topics.iter().find(|info| info.topic.as_str() == topic).unwrap().last_received
    };
    assert_eq!((received("b").await, received("c").await), (START + HOUR, START + 1000));
    // Back by as much as a clock that is set a little, time stands still instead.
    fixture.clock.set(START + 500);
    broker.publish(admitted(numbered("d", 0..1))).await.unwrap();
    assert_eq!(received("d").await, START + 1000);
}

async fn a_full_queue_says_so(mut fixture: Fixture) {
    fixture.config.queue_bytes = ByteSize(1000);
    fixture.config.queue_timeout = Span(std::time::Duration::from_millis(1));
    let broker = fixture.open().await;
    let large = format!("\"{}\"", "x".repeat(900));
    let publishing = (0..200).map(|n| {
        let (broker, large) = (broker.clone(), large.clone());
        tokio::spawn(async move {
            broker.publish(admitted(vec![event("a", "s", &n.to_string(), None, &large)])).await
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
    assert!(stored > 0 && stored < 200, "{stored} of 200");
    assert_eq!(broker.head().offset as usize, stored, "what was refused is not stored");
}

async fn a_closed_broker_refuses_and_holds_what_it_took(fixture: Fixture) {
    let broker = fixture.open().await;
    broker.enqueue(admit(numbered("a", 0..5))).await.unwrap();
    broker.close().await;
    assert_eq!(broker.publish(admitted(numbered("b", 0..1))).await, Err(PublishError::Closed));
    drop(broker);
    assert_eq!(fixture.open().await.head().offset, fixture.head_after(5));
}
