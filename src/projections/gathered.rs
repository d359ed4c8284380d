//! Follows the log for what projections keep of newest events. Every node does, by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    Bounds,
    gathering::{Gathering, Keep, Kept},
};
use crate::{
    broker::{Broker, LatestReader, ReadError},
    event::{Record, payload},
    follow::{Delivery, Follower},
    position::Offset,
    telemetry::{Limit, Telemetry},
    topic::TopicFilter,
};

/// What is kept of newest events at present. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gathered(Arc<Inner>);

struct Inner {
    gatherings: Vec<Gathering>,
    bounds: Bounds,
    telemetry: Telemetry,
    /// Whether it was said that there are more.
    said_full: AtomicBool,
    /// Held to take in an event or to read what is kept; nothing is written or waited for meanwhile.
    kept: Mutex<Vec<Kept>>,
    /// How often something was taken in; 0 until the log was read.
    changes: watch::Sender<u64>,
    /// How far the log was followed.
    reached: watch::Sender<Offset>,
}

/// Events of a list's topics that are looked through for it when the hub starts.
const LOOK_BACK: usize = 1000;
/// What is looked through for them, beside what is in memory.
const LOOK_BACK_BYTES: usize = 64 << 20;
/// Read at a time, in bytes.
const CHUNK: usize = 256 << 10;
/// How long after a failure the log is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Gathered {
    /// What `gatherings` ask for.
    pub(super) fn new(gatherings: Vec<Gathering>, bounds: Bounds, telemetry: Telemetry) -> Self {
        Self(Arc::new(Inner {
            gatherings,
            bounds,
            telemetry,
            said_full: AtomicBool::new(false),
            kept: Mutex::default(),
            changes: watch::Sender::new(0),
            reached: watch::Sender::new(0),
        }))
    }

    /// Moves when something was taken in; 0 until the log was read.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// How far the log has been followed: everything up to there has been looked at.
    pub(super) fn reached(&self) -> watch::Receiver<Offset> {
        self.0.reached.subscribe()
    }

    /// What is gathered under this number, as JSON.
    pub(super) fn value(&self, number: usize) -> Value {
        self.with(number, |gathering, kept| gathering.value(kept)).unwrap_or_default()
    }

    /// How many keys are present in what is gathered under this number; None until the log was read.
    pub(super) fn present(&self, number: usize) -> Option<usize> {
        self.with(number, |_, kept| kept.present())
    }

    /// Calls `read` with what is gathered under this number; None until the log was read.
    pub(super) fn with<T>(
        &self,
        number: usize,
        read: impl FnOnce(&Gathering, &Kept) -> T,
    ) -> Option<T> {
        let kept = self.0.kept.lock();
        Some(read(self.0.gatherings.get(number)?, kept.get(number)?))
    }

    /// Follows the log for ever.
    pub(super) async fn run(&self, broker: &Broker) {
        let mut failing = false;
        loop {
            match self.follow(broker, &mut failing).await {
                Ok(()) => {} // events were missed: what is kept is made anew
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "projections cannot follow the log; trying again");
                    }
                    failing = true;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn follow(&self, broker: &Broker, failing: &mut bool) -> Result<(), ReadError> {
        // What comes behind the head is followed; what is there now is read once.
        let head = broker.head().offset;
        let mut all = Vec::with_capacity(self.0.gatherings.len());
        for gathering in &self.0.gatherings {
            all.push(self.begin(gathering, broker, head).await?);
        }
        *self.0.kept.lock() = all;
        self.0.changes.send_modify(|changes| *changes += 1);
        *failing = false;
        let patterns = self.0.gatherings.iter().flat_map(|gathering| gathering.filter.patterns());
        let filter = TopicFilter::new(patterns.cloned());
        if filter.patterns().is_empty() {
            self.0.reached.send_replace(Offset::MAX);
            return std::future::pending().await;
        }
        let mut reader = Follower::new(filter, broker.clone(), head);
        let mut tail = broker.tail();
        loop {
            let head = *tail.borrow_and_update();
            while let Some(delivery) = reader.next_up_to(head).await? {
                if delivery.has_gap {
                    return Ok(());
                }
                self.take_in_all(&delivery);
            }
            self.0.reached.send_replace(head);
            // A closed log sends no more, and nothing is left to wait for.
            if tail.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn take_in_all(&self, delivery: &Delivery) {
        let mut kept = self.0.kept.lock();
        for record in delivery.records() {
            let mut data = None;
            for (gathering, kept) in self.0.gatherings.iter().zip(kept.iter_mut()) {
                if gathering.filter.matches(record.topic()) {
                    let data = data.get_or_insert_with(|| payload(record));
                    self.take_in(gathering, kept, record, data);
                }
            }
        }
        drop(kept);
        self.0.changes.send_modify(|changes| *changes += 1);
    }

    /// What the log holds up to `head` for one of them.
    async fn begin(
        &self,
        gathering: &Gathering,
        broker: &Broker,
        head: Offset,
    ) -> Result<Kept, ReadError> {
        let mut kept = Kept::default();
        if let Keep::List(_) = gathering.keep {
            let filter = &gathering.filter;
            let mut at = broker.newest(filter, LOOK_BACK, head, LOOK_BACK_BYTES).await?.after;
            while at < head {
                let chunk = broker.read(at, head, filter, CHUNK).await?;
                let records = chunk.blocks.iter().flat_map(|block| block.records_after(at));
                for record in records.take_while(|record| record.offset() <= chunk.reached) {
                    if filter.matches(record.topic()) {
                        self.take_in(gathering, &mut kept, record, &payload(record));
                    }
                }
                at = chunk.reached; // what is left beside what retention took counts
            }
        } else {
            // The newest of each key outlive retention. What changed behind the head comes later.
            let mut reader = LatestReader::new(broker.clone(), gathering.filter.clone(), head);
            while let Some(newest) = reader.next(CHUNK).await? {
                for record in newest.records() {
                    self.take_in(gathering, &mut kept, record, &payload(record));
                }
            }
        }
        kept.pass(head);
        Ok(kept)
    }

    fn take_in(&self, gathering: &Gathering, kept: &mut Kept, record: Record<'_>, data: &Value) {
        let Some(limit) = gathering.take_in(kept, record, data, self.0.bounds) else { return };
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
