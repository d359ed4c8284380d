//! Follows the log for what projections keep of newest events. Every node does, by itself.

use std::{
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
    /// Held to take in an event or to read what is kept; nothing is written or waited for meanwhile.
    kept: Mutex<Vec<Kept>>,
    /// How often something was taken in; 0 until the log was read.
    changes: watch::Sender<u64>,
    progress: Progress,
}

/// Events of a list's topics that are looked through for it when the hub starts.
const LOOK_BACK: usize = 1000;
/// What is looked through for them, beside what is in memory.
const LOOK_BACK_BYTES: usize = 64 << 20;
/// Read at a time, in bytes.
const CHUNK: usize = 256 << 10;

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
            kept: Mutex::default(),
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

    /// What is collected under this number, as JSON.
    pub(super) fn value(&self, number: usize) -> Value {
        self.with(number, |rule, kept| rule.value(kept)).unwrap_or_default()
    }

    /// How many keys are present in what is collected under this number; None until the log was read.
    pub(super) fn present(&self, number: usize) -> Option<usize> {
        self.with(number, |_, kept| kept.present())
    }

    /// Calls `read` with what is collected under this number; None until the log was read.
    pub(super) fn with<T>(
        &self,
        number: usize,
        read: impl FnOnce(&CollectRule, &Kept) -> T,
    ) -> Option<T> {
        let kept = self.0.kept.lock();
        Some(read(self.0.collect_rules.get(number)?, kept.get(number)?))
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
        *self.0.kept.lock() = all;
        self.0.changes.send_modify(|changes| *changes += 1);
        Ok(head)
    }

    fn take_in(&self, delivery: &Delivery) {
        let mut kept = self.0.kept.lock();
        for event in delivery.events() {
            let record = event.record();
            for (rule, kept) in self.0.collect_rules.iter().zip(kept.iter_mut()) {
                if rule.filter.matches(record.topic()) {
                    self.look_at(rule, kept, record, event.payload());
                }
            }
        }
        drop(kept);
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}
