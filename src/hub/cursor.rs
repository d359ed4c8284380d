//! A cursor: one subscription's place in the log, and what comes next for it.
//!
//! Replay, resume, live and lagging are the same here: while the position lies before what the
//! view's tail covers, the cursor reads history from the broker; from there it follows the tail.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use super::{
    SubscriberGuard,
    item::{CursorItem, Gap},
    lag::Lag,
    latest::{Conflated, LatestValue},
    snapshot::Snapshot,
    task_waker::Subscriber,
    view::{Next, View, ViewTail},
};
use crate::{
    broker::{LogChunk, ReadError},
    dialect::Frame,
    event::Record,
    position::{Offset, Position},
    protocol::GapReason,
    topic::TopicFilter,
};

/// Steps in one turn that give nothing out, each through one piece of history, after which others get theirs.
const STEPS: usize = 2;

/// One subscription. Dropping it ends the subscription.
pub struct Cursor {
    guard: SubscriberGuard,
    view: Arc<View>,
    subscriber: Arc<Subscriber>,
    position: Offset,
    /// In mode `latest`: how many records had matched up to the position.
    seen: u64,
    phase: Phase,
    /// A gap to be said before anything else; on the heap, as what a cursor needs before it follows the tail is:
    /// most follow it all their life.
    gap: Option<Box<Gap>>,
    said_live: bool,
    /// Whether it began with a gap or newest values.
    was_owing: bool,
    /// Whether the tail may hold more than was taken.
    more: bool,
}

enum Phase {
    /// Sends the newest values as they were when the subscription began.
    Snapshot(Box<Snapshot>),
    /// Reads history.
    History(Box<History>),
    /// Follows the view's tail.
    Tail,
}

/// What is read of history, up to `until`.
struct History {
    until: Offset,
    reading: Option<HistoryRead>,
    /// In mode `latest`: the newest values of what was read.
    fold: Option<Conflated>,
}

impl Phase {
    fn history(until: Offset) -> Self {
        Self::History(Box::new(History { until, reading: None, fold: None }))
    }
}

type HistoryRead = Pin<Box<dyn Future<Output = Result<LogChunk, ReadError>> + Send>>;

/// Where a cursor begins, decided by [`Hub::subscribe`].
pub(super) struct Beginning {
    pub(super) position: Offset,
    /// In mode `latest`: how many records will have matched where the tail takes over.
    pub(super) seen: u64,
    pub(super) snapshot: Option<Snapshot>,
    /// In mode `latest`: history up to here is read before the tail is followed.
    pub(super) fold_until: Option<Offset>,
    pub(super) gap: Option<Gap>,
}

impl Cursor {
    pub(super) fn new(
        guard: SubscriberGuard,
        view: Arc<View>,
        subscriber: Arc<Subscriber>,
        beginning: Beginning,
    ) -> Self {
        let phase = match (beginning.snapshot, beginning.fold_until) {
            (Some(snapshot), _) => Phase::Snapshot(Box::new(snapshot)),
            (None, Some(until)) if until > beginning.position => Phase::history(until),
            _ => Phase::Tail,
        };
        let position = beginning.position;
        let was_owing = beginning.gap.is_some() || matches!(phase, Phase::Snapshot(_));
        subscriber.position.store(position, Ordering::Relaxed);
        Self {
            guard,
            view,
            subscriber,
            position,
            seen: beginning.seen,
            phase,
            gap: beginning.gap.map(Box::new),
            said_live: false,
            was_owing,
            more: true,
        }
    }

    /// Where the subscription stands: all that matches up to here was given out.
    pub fn position(&self) -> Position {
        self.guard.hub.position(self.position)
    }

    /// Whether a gap or newest values that lie at or before the position were not given out yet.
    pub fn is_owing(&self) -> bool {
        self.gap.is_some() || matches!(self.phase, Phase::Snapshot(_))
    }

    /// The subscription's name.
    pub fn sub(&self) -> &str {
        self.view.key.form.sub()
    }

    /// What it matches.
    pub fn filter(&self) -> &TopicFilter {
        &self.view.key.filter
    }

    /// How far behind the subscription is, readable from outside its task.
    pub fn lag(&self) -> Lag {
        Lag {
            view: self.view.clone(),
            subscriber: self.subscriber.clone(),
            hub: self.guard.hub.clone(),
        }
    }

    /// The next item. Pending until there is one: the task is woken by the [`TaskWaker`](super::TaskWaker) given at
    /// [`Hub::subscribe`](super::Hub::subscribe), or by the broker when history was being read.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<CursorItem> {
        if let Some(gap) = self.gap.take() {
            return Poll::Ready(CursorItem::Gap(*gap));
        }
        if matches!(self.phase, Phase::Tail) {
            self.more |= self.subscriber.ready.swap(false, Ordering::AcqRel);
            if !self.more {
                return Poll::Pending;
            }
        }
        for _ in 0..STEPS {
            let step = match &mut self.phase {
                Phase::Snapshot(_) => ready!(self.poll_snapshot(cx)),
                Phase::History(_) => ready!(self.poll_history(cx)),
                Phase::Tail => self.step_tail(),
            };
            match step {
                CursorStep::Again => {}
                CursorStep::Item(item) => return Poll::Ready(item),
                CursorStep::Nothing => {
                    self.more = false;
                    return Poll::Pending;
                }
            }
        }
        // What is in memory is always ready: without this, a rare match in it would hold up everybody else.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether everything that matches up to `head` was delivered, and nothing after it; then the position moves to
    /// `head`. A client that resumed on a node that is behind may be after it. `head` must have been read from the hub
    /// before the last [`poll_next`](Self::poll_next).
    pub fn settle(&mut self, head: Offset) -> bool {
        let settled = matches!(self.phase, Phase::Tail)
            && self.gap.is_none()
            && self.said_live
            && self.position <= head
            && match &self.view.tail {
                ViewTail::Frames(frames) => {
                    matches!(frames.lock().next(self.position), Next::Nothing)
                }
                ViewTail::Latest(conflated) => conflated.lock().through() <= self.position,
            };
        if settled {
            self.move_to(head);
        }
        settled
    }

    fn poll_snapshot(&mut self, cx: &mut Context<'_>) -> Poll<CursorStep> {
        let Phase::Snapshot(snapshot) = &mut self.phase else {
            return Poll::Ready(CursorStep::Again);
        };
        let values = match ready!(snapshot.poll_next(cx)) {
            Ok(Some(values)) => values,
            Ok(None) => {
                let until = snapshot.until;
                self.phase = Phase::Tail;
                self.move_to(until);
                return Poll::Ready(CursorStep::Again);
            }
            Err(error) => return Poll::Ready(CursorStep::Item(CursorItem::Failed(error))),
        };
        let offset = if snapshot.is_over() { snapshot.until } else { values.last() };
        let position = Position { epoch: self.guard.hub.epoch(), offset };
        let skipped = self.skipped_if_latest(0);
        let frame = self.view.key.form.frame(position, values.records(), skipped);
        Poll::Ready(CursorStep::Item(CursorItem::Frame(frame)))
    }

    fn poll_history(&mut self, cx: &mut Context<'_>) -> Poll<CursorStep> {
        let Phase::History(history) = &mut self.phase else {
            return Poll::Ready(CursorStep::Again);
        };
        let until = history.until;
        if self.position >= until {
            return Poll::Ready(self.end_history());
        }
        let future = history.reading.get_or_insert_with(|| {
            let (broker, filter) = (self.guard.hub.broker().clone(), self.view.key.filter.clone());
            let (position, budget) = (self.position, self.guard.hub.chunk_bytes());
            Box::pin(async move { broker.read(position, until, &filter, budget).await })
        });
        let read = ready!(future.as_mut().poll(cx));
        history.reading = None;
        Poll::Ready(match read {
            Ok(chunk) => self.take_chunk(&chunk, until),
            Err(error) => CursorStep::Item(CursorItem::Failed(error)),
        })
    }

    fn take_chunk(&mut self, chunk: &LogChunk, until: Offset) -> CursorStep {
        if chunk.trimmed_through > self.position {
            if let Some(folded) = self.unfold() {
                return folded; // what came before the gap; the next read finds the gap again
            }
            let first = self.guard.hub.broker().epochs().position(self.position + 1);
            let (from, reason) = match chunk.lost_from {
                Some(lost) => (lost, GapReason::Epoch),
                None => (first, GapReason::Retention),
            };
            self.move_to(chunk.trimmed_through);
            return CursorStep::Item(CursorItem::Gap(Gap { from, to: self.position(), reason }));
        }
        let view = self.view.clone();
        let position = self.position;
        let reached = chunk.reached.min(until);
        let matching = chunk
            .blocks
            .iter()
            .flat_map(|block| block.records_after(position))
            .take_while(|record| record.offset() <= reached)
            .filter(|record| view.key.filter.matches(record.topic()));
        if let ViewTail::Latest(_) = &view.tail {
            if let Phase::History(history) = &mut self.phase {
                let fold = history.fold.get_or_insert_with(|| self.guard.hub.fold(position));
                matching.for_each(|record| fold.take_in(record.offset(), &LatestValue::of(record)));
                let full = fold.bytes() >= self.guard.hub.chunk_bytes();
                self.move_to(reached);
                return if full {
                    self.unfold().unwrap_or(CursorStep::Again)
                } else {
                    CursorStep::Again
                };
            }
            return CursorStep::Again;
        }
        let mut bytes = 0;
        let mut whole = true;
        let batch: Vec<Record<'_>> = matching
            .take_while(|record| {
                whole = bytes < self.guard.hub.chunk_bytes();
                bytes += record.json().len();
                whole
            })
            .collect();
        let offset = match batch.last() {
            Some(last) if !whole => last.offset(),
            _ => reached,
        };
        self.move_to(offset);
        if batch.is_empty() {
            return CursorStep::Again;
        }
        CursorStep::Item(CursorItem::Frame(view.key.form.frame(
            self.position(),
            batch.into_iter(),
            None,
        )))
    }

    fn end_history(&mut self) -> CursorStep {
        let folded = self.unfold();
        self.phase = Phase::Tail;
        // In mode `latest`, what came meanwhile has its time, at which the task is woken.
        self.more = !self.said_live || matches!(self.view.tail, ViewTail::Frames(_));
        folded.unwrap_or(CursorStep::Again)
    }

    /// The values gathered from history as one frame.
    fn unfold(&mut self) -> Option<CursorStep> {
        let Phase::History(history) = &mut self.phase else { return None };
        let mut fold = history.fold.take()?;
        let frame = fold.changed(&self.view.key.form, self.guard.hub.epoch(), 0, 0)?;
        Some(CursorStep::Item(CursorItem::Frame(Frame { through: self.position, ..frame })))
    }

    fn step_tail(&mut self) -> CursorStep {
        // The head before the tail: what was dispatched up to it is in the tail by now.
        let head = self.guard.hub.head().offset;
        let view = self.view.clone();
        let next = match &view.tail {
            ViewTail::Frames(frames) => frames.lock().next(self.position),
            ViewTail::Latest(conflated) => {
                let mut conflated = conflated.lock();
                let through = conflated.through();
                let next = if self.position < conflated.evicted_through() {
                    Next::Behind(through)
                } else {
                    let (form, epoch) = (&view.key.form, self.guard.hub.epoch());
                    match conflated.changed(form, epoch, self.position, self.seen) {
                        Some(frame) => Next::Frame(frame, true), // what changes next waits for its time
                        None => Next::Nothing,
                    }
                };
                if !matches!(next, Next::Nothing) {
                    self.seen = conflated.matched(); // the position will be `through`
                }
                next
            }
        };
        match next {
            Next::Frame(frame, last) => {
                self.move_to(frame.through);
                self.more = !self.said_live || !last;
                CursorStep::Item(CursorItem::Frame(frame))
            }
            Next::Behind(until) => {
                self.phase = Phase::history(until);
                CursorStep::Again
            }
            Next::Nothing => {
                self.move_to(self.position.max(head));
                if self.said_live {
                    return CursorStep::Nothing;
                }
                self.said_live = true;
                CursorStep::Item(CursorItem::Live {
                    position: self.position(),
                    was_owing: self.was_owing,
                })
            }
        }
    }

    fn skipped_if_latest(&self, skipped: u64) -> Option<u64> {
        matches!(self.view.tail, ViewTail::Latest(_)).then_some(skipped)
    }

    fn move_to(&mut self, position: Offset) {
        if position != self.position {
            self.position = position;
            self.subscriber.position.store(position, Ordering::Relaxed);
        }
    }
}

enum CursorStep {
    Again,
    Item(CursorItem),
    Nothing,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor")
            .field("view", &self.view.key)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
