//! Follows the log for what projections keep of newest events. Every node does, by itself.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    ProjectionBounds,
    collect::{CollectRule, KeepPolicy, Kept},
};
use crate::{
    broker::ReadError,
    event::{Record, payload},
    follow::{Delivery, Feed, Follow, Progress},
    position::Offset,
    telemetry::{Limit, Telemetry},
    topic::TopicFilter,
};

/// What is kept of newest events at present. Cheap to clone.
#[derive(Clone)]
pub(super) struct Collector(Arc<CollectorInner>);

struct CollectorInner {
    feed: Feed,
    collect_rules: Vec<CollectRule>,
    bounds: ProjectionBounds,
    telemetry: Telemetry,
    /// Whether it was said that there are more.
    said_full: AtomicBool,
    /// Held to take in events or to read what is kept; nothing is written or waited for meanwhile.
    state: Mutex<CollectorState>,
    /// How often something came; 0 until the log was read.
    changes: watch::Sender<u64>,
    progress: Progress,
}

/// What is kept, and what has come but is taken in when it is read: whoever shows it beside series reads both as of one
/// offset, and series may lag behind.
#[derive(Default)]
struct CollectorState {
    kept: Vec<Kept>,
    /// Everything up to here was taken in.
    applied: Offset,
    /// Each with the bytes it kept in memory when it came.
    waiting: VecDeque<(Delivery, usize)>,
    /// Of all that waits.
    bytes: usize,
}

/// What is kept as of one offset. Empty until the log was read.
pub(super) struct CollectedView<'a> {
    rules: &'a [CollectRule],
    kept: &'a [Kept],
}

/// Events of a list's topics that are looked through for it when the hub starts.
const LOOK_BACK: usize = 1000;
/// What is looked through for them, beside what is in memory.
const LOOK_BACK_BYTES: usize = 64 << 20;
/// Read at a time, in bytes.
const CHUNK: usize = 256 << 10;
/// What waits to be taken in until it is read keeps at most so many bytes in memory, the events beside it in the same
/// blocks among them.
const WAITING_BYTES: usize = 8 << 20;

impl Collector {
    /// Collects what the rules ask for.
    pub(super) fn new(
        feed: Feed,
        collect_rules: Vec<CollectRule>,
        bounds: ProjectionBounds,
        telemetry: Telemetry,
    ) -> Self {
        Self(Arc::new(CollectorInner {
            feed,
            collect_rules,
            bounds,
            telemetry,
            said_full: AtomicBool::new(false),
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            progress: Progress::default(),
        }))
    }

    /// Moves when something was taken in; 0 until the log was read.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// How far the log has been followed: everything up to there has been looked at.
    pub(super) fn progress(&self) -> &Progress {
        &self.0.progress
    }

    /// Everything up to here was taken in, and is not read without any more.
    pub(super) fn applied(&self) -> Offset {
        self.0.state.lock().applied
    }

    /// Calls `read` with what is kept as of `at`, which the log was followed to, or with all there is. None if more was
    /// taken in already.
    pub(super) fn read<T>(
        &self,
        at: Option<Offset>,
        read: impl FnOnce(&CollectedView<'_>) -> T,
    ) -> Option<T> {
        let mut state = self.0.state.lock();
        if at.is_some_and(|at| at < state.applied) {
            return None;
        }
        self.apply(&mut state, at.unwrap_or(Offset::MAX));
        state.applied = state.applied.max(at.unwrap_or(0));
        Some(read(&CollectedView { rules: &self.0.collect_rules, kept: &state.kept }))
    }

    /// Takes in what waits, up to `through`.
    fn apply(&self, state: &mut CollectorState, through: Offset) {
        while let Some((delivery, bytes)) = state.waiting.pop_front() {
            let after = state.applied;
            let new = delivery.events().skip_while(|event| event.record().offset() <= after);
            for event in new.take_while(|event| event.record().offset() <= through) {
                let record = event.record();
                state.applied = record.offset();
                for (rule, kept) in self.0.collect_rules.iter().zip(state.kept.iter_mut()) {
                    if rule.filter.matches(record.topic()) {
                        self.look_at(rule, kept, record, event.payload());
                    }
                }
            }
            if delivery.position.offset > through {
                state.waiting.push_front((delivery, bytes));
                return;
            }
            state.bytes -= bytes;
        }
    }

    /// Follows the log for ever.
    pub(super) async fn run(&self) -> Infallible {
        self.0.feed.keep_up(self, None, self.0.progress.clone()).run().await
    }

    /// What the log holds up to `head` for one of them.
    async fn begin(&self, rule: &CollectRule, head: Offset) -> Result<Kept, ReadError> {
        let (feed, filter) = (&self.0.feed, &rule.filter);
        let mut kept = Kept::default();
        if let KeepPolicy::List(_) = rule.keep {
            let stretch =
                feed.broker().newest(filter, LOOK_BACK, head).within(LOOK_BACK_BYTES).await?;
            let mut follower = feed.follow(self.name(), filter.clone(), stretch.after);
            // What is left beside what retention took counts.
            while let Some(delivery) = follower.next_up_to(head).await? {
                for event in delivery.events() {
                    self.look_at(rule, &mut kept, event.record(), event.payload());
                }
            }
        } else {
            // The newest of each key outlive retention. What changed behind the head comes later.
            let mut reader = feed.broker().latest(filter.clone()).up_to(head);
            while let Some(newest) = reader.next(CHUNK).await? {
                for record in newest.records() {
                    self.look_at(rule, &mut kept, record, &payload(record));
                }
            }
        }
        kept.pass(head);
        Ok(kept)
    }

    fn look_at(&self, rule: &CollectRule, kept: &mut Kept, record: Record<'_>, data: &Value) {
        let Some(limit) = rule.take_in(kept, record, data, self.0.bounds) else { return };
        self.0.telemetry.hit(limit);
        if limit == Limit::LatestKeys && !self.0.said_full.swap(true, Ordering::Relaxed) {
            let (topic, most) = (record.topic(), self.0.bounds.keys);
            tracing::warn!(
                topic,
                most,
                "more keys are present than journal.latest_keys; the oldest are not counted"
            );
        }
    }
}

impl Follow for Collector {
    type Error = ReadError;

    fn name(&self) -> &'static str {
        "projections"
    }

    fn filter(&self) -> TopicFilter {
        let patterns = self.0.collect_rules.iter().flat_map(|rule| rule.filter.patterns());
        TopicFilter::new(patterns.cloned())
    }

    async fn rebuild(&self) -> Result<Offset, ReadError> {
        // What comes behind the head is followed; what is there now is read once.
        let head = self.0.feed.broker().head().offset;
        let mut all = Vec::with_capacity(self.0.collect_rules.len());
        for rule in &self.0.collect_rules {
            all.push(self.begin(rule, head).await?);
        }
        *self.0.state.lock() = CollectorState { kept: all, applied: head, ..Default::default() };
        self.0.changes.send_modify(|changes| *changes += 1);
        Ok(head)
    }

    fn take_in(&self, delivery: &Delivery) {
        for event in delivery.events() {
            // Parsed while it is shared with others who follow, and without the lock.
            event.payload();
        }
        let bytes = delivery.held();
        let mut state = self.0.state.lock();
        state.waiting.push_back((delivery.clone(), bytes));
        state.bytes += bytes;
        while state.bytes > WAITING_BYTES {
            let Some((oldest, _)) = state.waiting.front() else { break };
            let through = oldest.position.offset;
            self.apply(&mut state, through);
        }
        drop(state);
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

impl CollectedView<'_> {
    /// What is collected under this number, as JSON.
    pub(super) fn value(&self, number: usize) -> Value {
        let found = self.rules.get(number).zip(self.kept(number));
        found.map_or(Value::Null, |(rule, kept)| rule.value(kept))
    }

    /// How many keys are present in what is collected under this number.
    pub(super) fn present(&self, number: usize) -> Option<usize> {
        self.kept(number).map(Kept::present)
    }

    /// What is collected under this number.
    pub(super) fn kept(&self, number: usize) -> Option<&Kept> {
        self.kept.get(number)
    }
}
