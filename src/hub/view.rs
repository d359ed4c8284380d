//! A view: what all equal subscriptions share — the match, the frames, the list of who listens.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use parking_lot::Mutex;
use slab::Slab;

use super::{
    latest::{Conflated, LatestBytes, Room, Values},
    pace::{Pace, WakeTime},
    task_waker::Subscriber,
};
use crate::{
    dialect::{Form, Frame},
    event::Block,
    position::{Epoch, Offset, Position},
    topic::TopicFilter,
};

/// What makes subscriptions equal, so that they share a view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ViewKey {
    pub(super) form: Form,
    pub(super) filter: TopicFilter,
    /// In mode `latest`, how often frames are made.
    pub(super) pace: Option<Pace>,
}

/// Shared by the registry, the dispatcher and the view's cursors.
#[derive(Debug)]
pub(super) struct View {
    pub(super) key: ViewKey,
    pub(super) tail: ViewTail,
    /// Notified on every append; apart from the tail's lock, so that those woken do not wait for it.
    pub(super) subscribers: Mutex<Slab<Arc<Subscriber>>>,
}

/// What a view keeps of the newest events.
#[derive(Debug)]
pub(super) enum ViewTail {
    /// Mode `all`: ready-made frames.
    Frames(Mutex<Frames>),
    /// Mode `latest`: the newest record of each key.
    Latest(Mutex<Conflated>),
}

/// The newest frames in order. Holds every matching event above `covered_from` that was dispatched.
#[derive(Debug)]
pub(super) struct Frames {
    covered_from: Offset,
    /// The number of the first frame held; frames are numbered in order as they are appended.
    first: u64,
    frames: VecDeque<Frame>,
}

/// What the tail has for a cursor.
#[derive(Debug)]
pub(super) enum Next {
    /// This frame, and whether it is the last there is.
    Frame(Frame, bool),
    /// History up to this offset must be read first.
    Behind(Offset),
    /// Nothing yet.
    Nothing,
}

impl View {
    /// In mode `latest`, what it holds is counted in `latest_bytes` too.
    pub(super) fn new(
        key: ViewKey,
        covered_from: Offset,
        room: Room,
        latest_bytes: &Arc<LatestBytes>,
    ) -> Self {
        let tail = match key.pace {
            None => ViewTail::Frames(Mutex::new(Frames {
                covered_from,
                first: 0,
                frames: VecDeque::new(),
            })),
            Some(_) => {
                let conflated = Conflated::new(covered_from, room, latest_bytes.clone());
                ViewTail::Latest(Mutex::new(conflated))
            }
        };
        Self { key, tail, subscribers: Mutex::default() }
    }

    /// Takes in the records of `block` at `matching` (indices, ascending, at least one); `values` are
    /// those of the same block. The caller decides when those who listen are called.
    pub(super) fn append(
        &self,
        epoch: Epoch,
        block: &Block,
        values: &mut Values<'_>,
        matching: &[u32],
    ) -> Appended {
        match &self.tail {
            ViewTail::Frames(frames) => {
                let records = matching.iter().filter_map(|index| block.record(*index as usize));
                let offset = records.clone().next_back().map_or(0, |record| record.offset());
                let frame = self.key.form.frame(Position { epoch, offset }, records, None);
                let size = frame.bytes.len();
                let mut frames = frames.lock();
                frames.frames.push_back(frame);
                Appended::Frame { number: frames.first + frames.frames.len() as u64 - 1, size }
            }
            ViewTail::Latest(conflated) => {
                let mut conflated = conflated.lock();
                for index in matching {
                    if let Some((offset, value)) = values.get(*index) {
                        conflated.take_in(offset, value);
                    }
                }
                Appended::Latest
            }
        }
    }

    /// In mode `latest`: gives up the values that changed longest ago; history still has them.
    pub(super) fn shrink_to(&self, bytes: usize) {
        if let ViewTail::Latest(conflated) = &self.tail {
            conflated.lock().shrink_to(bytes);
        }
    }

    pub(super) fn is_latest(&self) -> bool {
        matches!(self.tail, ViewTail::Latest(_))
    }

    /// How many listen.
    pub(super) fn subscriber_count(&self) -> usize {
        self.subscribers.lock().len()
    }

    /// Tells everybody who listens that there is something new.
    pub(super) fn notify(&self) {
        self.subscribers.lock().iter().for_each(|(_, subscriber)| subscriber.notify());
    }

    /// In mode `latest`: when the next frame is due, and that it is now being waited for.
    pub(super) fn schedule(&self, now: Instant) -> WakeTime {
        match (&self.tail, self.key.pace) {
            (ViewTail::Latest(conflated), Some(pace)) => conflated.lock().schedule(now, pace),
            _ => WakeTime::Now,
        }
    }

    /// In mode `latest`: the time that was waited for has come.
    pub(super) fn tick(&self, now: Instant) {
        if let ViewTail::Latest(conflated) = &self.tail {
            conflated.lock().ticked(now);
        }
        self.notify();
    }

    /// Forgets frame `number` if it is still the oldest held.
    pub(super) fn forget(&self, number: u64) {
        if let ViewTail::Frames(frames) = &self.tail {
            let mut frames = frames.lock();
            if frames.first == number
                && let Some(frame) = frames.frames.pop_front()
            {
                frames.first += 1;
                frames.covered_from = frame.through;
            }
        }
    }

    /// Forgets everything: dispatch has passed over what lies before `offset`.
    pub(super) fn restart(&self, offset: Offset) {
        match &self.tail {
            ViewTail::Frames(frames) => {
                let mut frames = frames.lock();
                frames.first += frames.frames.len() as u64;
                frames.frames.clear();
                frames.covered_from = offset;
            }
            ViewTail::Latest(conflated) => conflated.lock().evict_through(offset),
        }
        self.notify();
    }

    /// Whether a cursor at `position` has to read history before it can follow the tail.
    pub(super) fn is_behind(&self, position: Offset) -> bool {
        match &self.tail {
            ViewTail::Frames(frames) => matches!(frames.lock().next(position), Next::Behind(_)),
            ViewTail::Latest(_) => true, // it folds history
        }
    }

    /// Whether something may match that a cursor at `position` has not had.
    pub(super) fn is_lagging(&self, position: Offset) -> bool {
        let newest = match &self.tail {
            ViewTail::Frames(frames) => {
                let frames = frames.lock();
                frames.frames.back().map_or(frames.covered_from, |frame| frame.through)
            }
            ViewTail::Latest(conflated) => conflated.lock().through(),
        };
        position < newest
    }

    /// The position of the cursor that is furthest behind, if one is.
    pub(super) fn slowest(&self) -> Option<Offset> {
        let slowest = {
            let subscribers = self.subscribers.lock();
            subscribers
                .iter()
                .map(|(_, subscriber)| subscriber.position.load(Ordering::Relaxed))
                .min()
        };
        slowest.filter(|position| self.is_lagging(*position))
    }
}

/// What became of an append.
#[derive(Debug, Clone, Copy)]
pub(super) enum Appended {
    /// A frame was made.
    Frame {
        /// Its number in the view.
        number: u64,
        /// Its bytes.
        size: usize,
    },
    /// Values were taken in, to be framed when they are due.
    Latest,
}

impl Frames {
    /// What comes after `position`.
    pub(super) fn next(&self, position: Offset) -> Next {
        if position < self.covered_from {
            return Next::Behind(self.covered_from);
        }
        let index = self.frames.partition_point(|frame| frame.through <= position);
        match self.frames.get(index) {
            None => Next::Nothing,
            // The position lies inside the frame: it came from another node or another cut.
            Some(frame) if frame.first <= position => Next::Behind(frame.through),
            Some(frame) => Next::Frame(frame.clone(), index + 1 == self.frames.len()),
        }
    }
}
