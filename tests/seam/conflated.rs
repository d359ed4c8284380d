//! The seam in mode `latest`: whoever joins ends with the newest values, and every event is counted.

use std::{collections::BTreeMap, future::poll_fn, sync::Arc, task::Poll};

use pulsehub::{
    dialect::Form,
    hub::{CursorItem, Start, Subscription, TaskWaker},
    position::{Offset, Position},
    protocol::Mode,
    topic::TopicFilter,
};
use tokio::time::timeout;

use super::world::{World, any_filter, dawdle, form, read_message};
use crate::support::{DEADLINE, admitted, dice::Dice, event, eventually, filter};

/// The newest offset of each (topic, key).
type Screen = BTreeMap<(String, String), Offset>;

/// What one subscription ended with.
struct Ended {
    name: String,
    filter: TopicFilter,
    start: Start,
    after: Offset,
    screen: Screen,
    /// Events that came from behind the start, and those that were said to be passed over.
    counted: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mode_latest_ends_with_the_newest_values_and_counts_what_it_passed_over() {
    let first = Dice::first_seed(9000);
    for seed in first..first + 100 {
        let run = one_run(seed);
        timeout(DEADLINE, run).await.unwrap_or_else(|_| panic!("seed {seed}: it hangs"));
    }
}

#[tokio::test]
async fn a_value_that_changes_again_waits_for_its_time() {
    let world = World::new(&mut Dice::new(1), Vec::new());
    let waker = Arc::new(TaskWaker::default());
    let subscription = Subscription {
        form: Form::Data,
        filter: filter(&["**"]),
        mode: Mode::Latest,
        max_hz: Some(0.01),
        start: Start::Live,
        owner: None,
    };
    let (mut cursor, _) = world.hub.subscribe(subscription, waker.clone()).await.unwrap();
    let mut next = async || {
        let next = poll_fn(|cx| {
            waker.listen(cx.waker());
            cursor.poll_next(cx)
        });
        timeout(DEADLINE, next).await.unwrap()
    };
    assert!(matches!(next().await, CursorItem::Live { .. }));
    world.broker.publish(admitted(vec![event("a", "s", "1", None, "1")])).await.unwrap();
    assert!(matches!(next().await, CursorItem::Frame(_)));
    let second =
        world.broker.publish(admitted(vec![event("a", "s", "2", None, "2")])).await.unwrap();
    eventually("the second value is dispatched", async || {
        (world.hub.head().offset >= second.position.offset).then_some(())
    })
    .await;
    let is_pending = poll_fn(|cx| Poll::Ready(cursor.poll_next(cx).is_pending())).await;
    assert!(is_pending, "a hundred seconds have not passed");
    world.close().await;
}

#[tokio::test]
async fn a_read_that_failed_amid_the_newest_values_was_followed_by_live() {
    let world = World::new(&mut Dice::new(1), Vec::new());
    // Each is more than one piece, whatever the dice say of pieces.
    let data = "1".repeat(100_000);
    let value = |n: u32| event("a", "s", &n.to_string(), Some(&n.to_string()), &data);
    world.broker.publish(admitted((0..4).map(value).collect())).await.unwrap();
    let waker = Arc::new(TaskWaker::default());
    let subscription = Subscription {
        form: Form::Data,
        filter: filter(&["**"]),
        mode: Mode::All,
        max_hz: None,
        start: Start::Latest,
        owner: None,
    };
    let (mut cursor, _) = world.hub.subscribe(subscription, waker.clone()).await.unwrap();
    let mut next = async || {
        let next = poll_fn(|cx| {
            waker.listen(cx.waker());
            cursor.poll_next(cx)
        });
        timeout(DEADLINE, next).await.unwrap()
    };
    let mut count = 0;
    let mut take = |item: CursorItem| match item {
        CursorItem::Frame(frame) => {
            count += frame.events;
            true
        }
        _ => false,
    };
    assert!(take(next().await), "the first piece is read before the answer");
    let file = rusqlite::Connection::open(world.file()).unwrap();
    file.execute_batch("ALTER TABLE latest RENAME TO away").unwrap();
    for _ in 0..2 {
        let item = next().await;
        assert!(matches!(item, CursorItem::Failed(_)), "{item:?}");
    }
    file.execute_batch("ALTER TABLE away RENAME TO latest").unwrap();
    let mut item = next().await;
    while !matches!(item, CursorItem::Live { .. }) {
        assert!(take(item));
        item = next().await;
    }
    assert_eq!(count, 4, "of the values");
    world.close().await;
}

async fn one_run(seed: u64) {
    let mut dice = Dice::new(seed);
    let world = World::new(&mut dice, Vec::new());
    let past = world.publisher(dice.split(), "past".into(), dice.within(1..30));
    past.await.unwrap();
    let expected = world.broker.head().offset + 50;
    let publishers: Vec<_> = (0..3)
        .map(|n| world.publisher(dice.split(), format!("p{n}"), dice.within(4..12)))
        .collect();
    let readers =
        (0..6).map(|n| follow(&world, format!("seed {seed}, reader {n}"), dice.split(), expected));
    let readers = futures_util::future::join_all(readers.collect::<Vec<_>>());
    let published = async {
        for publisher in publishers {
            publisher.await.unwrap();
        }
        world.finish().await
    };
    let (ended, _) = tokio::join!(readers, published);
    let log = everything(&world).await;
    world.close().await;
    for ended in ended {
        ended.judge(&log);
    }
}

async fn follow(world: &World, name: String, mut dice: Dice, expected: Offset) -> Ended {
    world.reached(dice.within(0..expected)).await;
    dawdle(&mut dice).await;
    let filter = any_filter(&mut dice);
    let head = world.broker.head();
    let start = match dice.within(0..4) {
        0 => Start::Live,
        1 => Start::Last(dice.within(0..20) as usize),
        2 => Start::Latest,
        _ => Start::Resume(Position { offset: dice.within(0..head.offset + 1), ..head }),
    };
    let waker = Arc::new(TaskWaker::default());
    let subscription = Subscription {
        form: form(),
        filter: filter.clone(),
        mode: Mode::Latest,
        max_hz: Some(60.0),
        start,
        owner: None,
    };
    let (cursor, answer) = world.hub.subscribe(subscription, waker.clone()).await.unwrap();
    let after = answer.position.offset;
    let mut reader = world.reader(cursor, waker, dice);
    let mut ended = Ended { name, filter, start, after, screen: Screen::new(), counted: 0 };
    let mut position = 0;
    while let Some(item) = reader.next().await {
        match item {
            CursorItem::Frame(frame) => {
                let message = read_message(&frame);
                ended.counted += message["skipped"].as_u64().unwrap();
                for event in message["events"].as_array().unwrap() {
                    let offset = event["offset"].as_u64().unwrap();
                    ended.counted += u64::from(offset > after);
                    let text = |name: &str| event[name].as_str().unwrap().to_owned();
                    let before = ended.screen.insert((text("topic"), text("key")), offset);
                    assert!(before.is_none_or(|before| before < offset), "{}", ended.name);
                }
                assert!(frame.through >= position, "{}: the position went back", ended.name);
                position = frame.through;
            }
            CursorItem::Live { .. } => {}
            CursorItem::Gap(gap) => panic!("{}: {gap:?}", ended.name),
            CursorItem::Failed(error) => panic!("{}: {error}", ended.name),
        }
    }
    ended
}

/// Topic and key of all that was published.
async fn everything(world: &World) -> BTreeMap<Offset, (String, String)> {
    let (until, all) = (world.broker.head().offset, crate::support::filter(&["**"]));
    let (mut log, mut position) = (BTreeMap::new(), 0);
    while position < until {
        let chunk = world.broker.read(position, until, &all, 1 << 20).await.unwrap();
        for record in chunk.blocks.iter().flat_map(|block| block.records_after(position)) {
            let key: String = serde_json::from_slice(record.key().unwrap()).unwrap();
            log.insert(record.offset(), (record.topic().to_owned(), key));
        }
        position = chunk.reached;
    }
    log
}

impl Ended {
    fn judge(&self, log: &BTreeMap<Offset, (String, String)>) {
        let matching = || log.iter().filter(|(_, (topic, _))| self.filter.matches(topic));
        // A start from the newest values shows what was there before it, too.
        let from = if self.start == Start::Latest { 0 } else { self.after };
        let behind = |after| matching().filter(move |(offset, _)| **offset > after);
        let wanted: Screen = behind(from).map(|(offset, slot)| (slot.clone(), *offset)).collect();
        assert_eq!(self.screen, wanted, "{}, {:?} at {}", self.name, self.start, self.after);
        let matched = behind(self.after).count() as u64;
        assert_eq!(self.counted, matched, "{}, {:?} at {}", self.name, self.start, self.after);
    }
}
