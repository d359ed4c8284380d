//! Dispatch: takes blocks from the broker's tail and appends them to the views they match.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use parking_lot::MutexGuard;
use tokio_util::sync::CancellationToken;

use super::{
    Hub,
    latest::Values,
    pace::WakeTime,
    view::{Appended, View},
};
use crate::{
    broker::ReadError, event::Block, position::Offset, telemetry::Limit, topic::TopicFilter,
};

/// What a frame costs beside its bytes: its entry in the view and in the backlog.
const FRAME_OVERHEAD: usize = 128;
/// How long blocks are dispatched before others get their turn.
const TURN: Duration = Duration::from_millis(1);
/// How long to wait before reading the log again after it failed.
const RETRY: Duration = Duration::from_millis(200);
/// Branches of the index and matches that are gone through before those who wait for the registry have their turn.
const RUN: usize = 4096;

impl Hub {
    /// Dispatches what the broker announces until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut dispatcher = Dispatcher::new(self);
        let mut tail = dispatcher.hub.0.broker.tail();
        loop {
            tail.mark_unchanged();
            let wait = match dispatcher.catch_up().await {
                Ok(()) => dispatcher.next_tick(),
                Err(error) => {
                    tracing::error!(%error, "dispatch cannot read the log; trying again");
                    Some(Instant::now() + RETRY)
                }
            };
            let tick = async {
                match wait {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = tail.changed() => if changed.is_err() { return },
                () = tick => {}
            }
            dispatcher.tick(Instant::now());
        }
    }
}

struct Dispatcher {
    hub: Hub,
    dispatched: Offset,
    /// Frames in the order they were made over all views; the oldest are forgotten first.
    backlog: VecDeque<(Weak<View>, u64, usize)>,
    backlog_bytes: usize,
    /// Views in mode `latest` that wait for their time.
    due: BinaryHeap<Reverse<Waiting>>,
}

struct Waiting(Instant, Weak<View>);

impl Dispatcher {
    fn new(hub: Hub) -> Self {
        let dispatched = hub.head().offset;
        Self { hub, dispatched, backlog: VecDeque::new(), backlog_bytes: 0, due: BinaryHeap::new() }
    }

    /// Dispatches everything committed.
    async fn catch_up(&mut self) -> Result<(), ReadError> {
        let broker = self.hub.broker().clone();
        loop {
            let committed = broker.head().offset;
            if committed <= self.dispatched {
                return Ok(());
            }
            if let Some(blocks) = broker.recent(self.dispatched) {
                self.dispatch_all(&blocks).await;
            } else {
                let chunk = broker
                    .read(
                        self.dispatched,
                        committed,
                        &TopicFilter::everything(),
                        self.hub.chunk_bytes(),
                    )
                    .await?;
                if chunk.trimmed_through > self.dispatched {
                    self.pass_over(chunk.trimmed_through);
                    continue;
                }
                self.dispatch_all(&chunk.blocks).await;
                self.advance(chunk.reached);
            }
            // So that a long stretch of history does not hold the worker from the readers.
            tokio::task::yield_now().await;
        }
    }

    /// Where many views match, others get their turn between blocks. Few small ones are done in one: what a socket then
    /// has to write goes out together.
    async fn dispatch_all(&mut self, blocks: &[Arc<Block>]) {
        let mut begun = Instant::now();
        for block in blocks {
            self.dispatch(block);
            if begun.elapsed() >= TURN {
                tokio::task::yield_now().await;
                begun = Instant::now();
            }
        }
    }

    fn dispatch(&mut self, block: &Block) {
        if block.last() <= self.dispatched {
            return;
        }
        let epoch = self.hub.epoch();
        let now = Instant::now();
        let mut values = Values::of(block);
        let mut matches = self.matching(block);
        let room = self.hub.0.config.tail_bytes.as_usize();
        let mut made = 0;
        // Frames are delivered at once; newest values wait for their time anyway. Where there may be more frames than
        // the views have room for, those come first that most listen to.
        match matches.len().saturating_mul(block.bytes()) > room {
            false => matches.sort_by_key(|(view, _)| view.is_latest()),
            true => matches.sort_by_cached_key(|(view, _)| {
                (view.is_latest(), Reverse(view.subscriber_count()))
            }),
        }
        for (view, matching) in matches {
            if made > room && !view.is_latest() {
                // Its cursors read the log when they get there, as if the frame had been made and discarded.
                view.restart(block.last());
                continue;
            }
            match view.append(epoch, block, &mut values, &matching) {
                Appended::Frame { number, size } => {
                    made += size + FRAME_OVERHEAD;
                    view.notify();
                    self.backlog.push_back((Arc::downgrade(&view), number, size + FRAME_OVERHEAD));
                    self.backlog_bytes += size + FRAME_OVERHEAD;
                }
                Appended::Latest => match view.schedule(now) {
                    WakeTime::Now => view.notify(),
                    WakeTime::At(due) => {
                        self.due.push(Reverse(Waiting(due, Arc::downgrade(&view))))
                    }
                    WakeTime::Scheduled => {}
                },
            }
        }
        self.fit();
        self.advance(block.last());
    }

    /// The views that match, each with the indices of its records. A view that joins meanwhile begins after what has
    /// been matched by then, and reads earlier events from the log.
    fn matching(&self, block: &Block) -> Vec<(Arc<View>, Vec<u32>)> {
        let mut registry = self.hub.0.registry.lock();
        let mut by_slot: HashMap<usize, usize> = HashMap::new();
        let mut matches: Vec<(Arc<View>, Vec<u32>)> = Vec::new();
        let mut topic = "";
        let mut slots = Vec::new();
        let (mut done, mut ended) = (0, registry.ended);
        for (index, record) in block.records().enumerate() {
            if record.offset() <= self.dispatched {
                continue;
            }
            if record.topic() != topic {
                topic = record.topic();
                slots.clear();
                done += registry.index.lookup(topic, &mut slots);
            }
            for slot in &slots {
                let at = *by_slot.entry(*slot).or_insert_with(|| {
                    matches.push((registry.views[*slot].clone(), Vec::new()));
                    matches.len() - 1
                });
                matches[at].1.push(index as u32);
            }
            done += slots.len();
            if done >= RUN {
                registry.matched_through = registry.matched_through.max(record.offset());
                MutexGuard::bump(&mut registry);
                (done, topic) = (0, ""); // there may be other views now
                if registry.ended != ended {
                    ended = registry.ended;
                    by_slot.retain(|slot, at| {
                        let view = registry.views.get(*slot);
                        view.is_some_and(|view| Arc::ptr_eq(view, &matches[*at].0))
                    });
                }
            }
        }
        registry.matched_through = registry.matched_through.max(block.last());
        matches
    }

    /// Keeps all views within `hub.tail_bytes`. Newest values may use half of it. Frames use what is left by these and
    /// by the frames made of them. Cursors that miss what is discarded here read the log.
    fn fit(&mut self) {
        let most = self.hub.0.config.tail_bytes.as_usize();
        let held = &self.hub.0.latest_bytes;
        if held.values.load(Ordering::Relaxed) > most / 2 {
            self.fit_latest(most / 2);
        }
        let latest = held.values.load(Ordering::Relaxed) + held.frames.load(Ordering::Relaxed);
        while self.backlog_bytes.saturating_add(latest) > most {
            let Some((view, number, size)) = self.backlog.pop_front() else { break };
            self.backlog_bytes -= size;
            if let Some(view) = view.upgrade() {
                view.forget(number);
            }
        }
        let held = self.backlog_bytes.saturating_add(latest);
        self.hub.0.telemetry.view_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// Each view keeps its share of `most`, but at most three quarters of it, so that a quarter of the whole can arrive
    /// before all views are examined again.
    fn fit_latest(&self, most: usize) {
        self.hub.0.telemetry.hit(Limit::TailBytes);
        let views: Vec<Arc<View>> = {
            let registry = self.hub.0.registry.lock();
            let views = registry.views.iter().map(|(_, view)| view);
            views.filter(|view| view.is_latest()).cloned().collect()
        };
        let share = most / 4 * 3 / views.len().max(1);
        views.iter().for_each(|view| view.shrink_to(share));
    }

    /// Retention went past dispatch: every cursor finds the gap when it reads history.
    fn pass_over(&mut self, trimmed_through: Offset) {
        let views: Vec<Arc<View>> = {
            let mut registry = self.hub.0.registry.lock();
            registry.matched_through = registry.matched_through.max(trimmed_through);
            registry.views.iter().map(|(_, view)| view.clone()).collect()
        };
        views.iter().for_each(|view| view.restart(trimmed_through));
        self.advance(trimmed_through);
    }

    fn advance(&mut self, offset: Offset) {
        self.dispatched = self.dispatched.max(offset);
        self.hub.0.head.store(self.dispatched, Ordering::Release);
    }

    /// Calls the views whose time has come.
    fn tick(&mut self, now: Instant) {
        while self.due.peek().is_some_and(|Reverse(Waiting(due, _))| *due <= now) {
            let Some(Reverse(Waiting(_, view))) = self.due.pop() else { break };
            if let Some(view) = view.upgrade() {
                view.tick(now);
            }
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse(Waiting(due, _))| *due)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
