//! The seam of history and live: whoever joins wherever, while others publish, gets each event once.
//!
//! Memory is so small, by chance, that cursors fall behind the view's tail and the log's ring.

mod conflated;
mod world;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pulsehub::{
    broker::journal::RetentionRule,
    bytesize::ByteSize,
    hub::{CursorItem, Start, Subscription, TaskWaker},
    position::{Offset, Position},
    protocol::{Mode, SubscribedStart},
    time::Span,
    topic::{TopicFilter, TopicPattern},
};
use tokio::time::timeout;

use self::world::{START, World, any_filter, dawdle, form, read_message};
use crate::support::{
    DEADLINE,
    checker::{Answer, Evidence, Seen, Sent, Step},
    dice::Dice,
};

/// How the subscription began, to be judged once it is known which events there were.
struct Began {
    seen: Seen,
    start: Start,
    answer: SubscribedStart,
    /// The newest offset when it was asked for.
    head_before: Offset,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_wherever_gets_each_event_once_in_order() {
    let first = Dice::first_seed(1000);
    for seed in first..first + 200 {
        let run = one_run(seed, false);
        timeout(DEADLINE, run).await.unwrap_or_else(|_| panic!("seed {seed}: it hangs"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_lies_in_a_gap_and_nothing_else_does() {
    let first = Dice::first_seed(5000);
    let mut gaps = 0;
    for seed in first..first + 100 {
        let run = one_run(seed, true);
        gaps += timeout(DEADLINE, run).await.unwrap_or_else(|_| panic!("seed {seed}: it hangs"));
    }
    assert!(gaps > 20, "retention met too few readers to judge: {gaps}");
}

/// Publishers, readers and perhaps retention at once; gives the number of gaps that were said.
async fn one_run(seed: u64, trimming: bool) -> usize {
    let mut dice = Dice::new(seed);
    let rules = if trimming { rules(&mut dice) } else { Vec::new() };
    let world = World::new(&mut dice, rules);
    // What lies before: three stretches, received a second apart, whose first offsets are known.
    let mut sent = Vec::new();
    let mut firsts = Vec::new();
    for stretch in 0..3 {
        world.clock.set(START + stretch * 1000);
        firsts.push(world.broker.head().offset + 1);
        let batches = dice.within(1..8);
        let past = world.publisher(dice.split(), format!("past{stretch}"), batches);
        sent.extend(past.await.unwrap());
    }
    let expected = world.broker.head().offset + 60;
    let publishers: Vec<_> = (0..3)
        .map(|n| world.publisher(dice.split(), format!("p{n}"), dice.within(5..15)))
        .collect();
    let readers = (0..6).map(|n| {
        let (start, dice) = (any_start(&mut dice), dice.split());
        follow(&world, format!("seed {seed}, reader {n}"), start, dice, expected)
    });
    let readers = futures_util::future::join_all(readers.collect::<Vec<_>>());
    let published = async {
        for publisher in publishers {
            sent.extend(publisher.await.unwrap());
        }
        world.finish().await
    };
    let trimmed = async {
        if trimming {
            trim_by_chance(&world, dice.split(), expected).await;
        }
    };
    let (began, last, ()) = tokio::join!(readers, published, trimmed);
    let mut evidence = Evidence { sent, has_retention: trimming, ..Evidence::default() };
    let topics = stored(&evidence.sent);
    let mut gaps = 0;
    for mut began in began {
        began.seen.through = last;
        if !trimming {
            began.judge_start(&topics, &firsts);
        }
        gaps += began.seen.steps.iter().filter(|step| matches!(step, Step::Gap { .. })).count();
        evidence.seen.push(began.seen);
    }
    evidence.kept = world.close().await;
    assert_eq!(evidence.judge(), [], "seed {seed}");
    assert!(trimming || gaps == 0, "seed {seed}: {gaps} gaps");
    gaps
}

/// A start that needs no knowledge of the log: positions are cut down to its head when it begins.
fn any_start(dice: &mut Dice) -> AnyStart {
    match dice.within(0..4) {
        0 => AnyStart::Live,
        1 => AnyStart::Last(dice.within(0..60) as usize),
        2 => AnyStart::Since(START + dice.within(0..4) * 1000),
        _ => AnyStart::Resume(dice.within(0..101)),
    }
}

enum AnyStart {
    Live,
    Last(usize),
    Since(u64),
    /// At this many hundredths of the way to the head.
    Resume(u64),
}

/// Joins at some moment and reads to the end.
async fn follow(
    world: &World,
    name: String,
    start: AnyStart,
    mut dice: Dice,
    expected: Offset,
) -> Began {
    world.reached(dice.within(0..expected)).await;
    dawdle(&mut dice).await;
    let filter = any_filter(&mut dice);
    let head = world.broker.head();
    let start = match start {
        AnyStart::Live => Start::Live,
        AnyStart::Last(count) => Start::Last(count),
        AnyStart::Since(time) => Start::Since(time),
        AnyStart::Resume(part) => {
            Start::Resume(Position { offset: head.offset * part / 100, ..head })
        }
    };
    let waker = Arc::new(TaskWaker::default());
    let subscription = Subscription {
        form: form(),
        filter: filter.clone(),
        mode: Mode::All,
        max_hz: None,
        start,
        owner: None,
    };
    let (cursor, answer) = world.hub.subscribe(subscription, waker.clone()).await.unwrap();
    let after = answer.position.offset;
    let mut reader = world.reader(cursor, waker, dice);
    assert_eq!(reader.position(), after, "{name}");
    let mut seen = Seen { name, filter, after, through: 0, steps: Vec::new() };
    let mut lives = 0;
    while let Some(item) = reader.next().await {
        match item {
            CursorItem::Frame(frame) => {
                let message = read_message(&frame);
                let events = message["events"].as_array().unwrap();
                assert_eq!(events.len(), frame.events, "{}", seen.name);
                seen.steps.extend(events.iter().map(|event| Step::Event {
                    offset: event["offset"].as_u64().unwrap(),
                    id: event["id"].as_str().unwrap().to_owned(),
                }));
                assert_eq!(reader.position(), frame.through, "{}", seen.name);
            }
            CursorItem::Gap(gap) => seen.steps.push(Step::Gap {
                from: gap.from.offset,
                to: gap.to.offset,
                reason: gap.reason.name().to_owned(),
            }),
            CursorItem::Live { .. } => lives += 1,
            CursorItem::Failed(error) => panic!("{}: {error}", seen.name),
        }
    }
    assert_eq!(lives, 1, "{}: `live` is said once", seen.name);
    Began { seen, start, answer, head_before: head.offset }
}

/// The topic of each offset.
fn stored(sent: &[Sent]) -> BTreeMap<Offset, String> {
    let stored = sent.iter().filter_map(|sent| match sent.answer {
        Answer::Stored(offset) => Some((offset, sent.topic.clone())),
        Answer::Unknown | Answer::Refused => None,
    });
    stored.collect()
}

impl Began {
    /// Whether the subscription began where it had asked to, while nothing is ever trimmed.
    fn judge_start(&self, topics: &BTreeMap<Offset, String>, firsts: &[Offset]) {
        let Self { seen, start, answer, head_before } = self;
        let Seen { name, filter, .. } = seen;
        let (after, head) = (answer.position.offset, answer.head.offset);
        assert!(answer.recovered, "{name}");
        assert!(after <= head && *head_before <= head, "{name}");
        match *start {
            // What was stored before it was asked for may come only if it is still being dispatched.
            Start::Live | Start::Last(0) => {}
            Start::Last(count) => {
                let there = matching(topics, filter, 1, head);
                let wanted = there.min(count);
                assert_eq!(matching(topics, filter, after + 1, head), wanted, "{name}");
            }
            Start::Since(time) => {
                let stretch = ((time - START) / 1000) as usize;
                let first = firsts.get(stretch).copied();
                assert_eq!(after, first.map_or(head, |first| first - 1), "{name}");
            }
            Start::Resume(position) => assert_eq!(after, position.offset, "{name}"),
            Start::Latest => unreachable!("not thrown here"),
        }
    }
}

fn matching(
    topics: &BTreeMap<Offset, String>,
    filter: &TopicFilter,
    from: Offset,
    to: Offset,
) -> usize {
    let range = topics.iter().filter(|(offset, _)| (from..=to).contains(offset));
    range.filter(|(_, topic)| filter.matches(topic)).count()
}

/// Rules that take something while the run lasts: by age, or by bytes, or both.
fn rules(dice: &mut Dice) -> Vec<RetentionRule> {
    let pattern = |text: &str| TopicPattern::parse(text).unwrap();
    let by_age = RetentionRule {
        topics: vec![pattern("short.*"), pattern("a.*")],
        max_age: Some(Span(Duration::from_secs(dice.within(2..20)))),
        max_bytes: None,
    };
    let by_bytes = RetentionRule {
        topics: vec![pattern("b.**")],
        max_age: None,
        max_bytes: Some(ByteSize(dice.within(300..3000))),
    };
    match dice.within(0..3) {
        0 => vec![by_age],
        1 => vec![by_bytes],
        _ => vec![by_age, by_bytes],
    }
}

/// Moves the clock and lets retention work, at moments of chance.
async fn trim_by_chance(world: &World, mut dice: Dice, expected: Offset) {
    let mut now = START + 3000;
    for _ in 0..dice.within(1..8) {
        world.reached(dice.within(0..expected)).await;
        now += dice.within(0..8) * 1000;
        world.clock.set(now);
        world.broker.maintain().await;
    }
}
