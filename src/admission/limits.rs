//! How much one batch may hold.

use crate::{event::Event, limits::Limits};

/// How much one batch may hold.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Bytes of one event: its attributes and its `data` without insignificant white space.
    pub event: usize,
    /// Events of one batch.
    pub batch: usize,
}

/// More events than [`BatchLimits::batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch has at most {limit} events: send it in parts")]
pub struct BatchTooLong {
    /// The limit.
    pub limit: usize,
}

/// More bytes than [`BatchLimits::event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event has at most {limit} bytes, this one has {bytes}")]
pub struct EventTooLarge {
    /// What it has.
    pub bytes: usize,
    /// The limit.
    pub limit: usize,
}

impl BatchLimits {
    /// Refuses a batch of more events than there may be.
    pub fn check_count(&self, count: usize) -> Result<(), BatchTooLong> {
        let limit = self.batch;
        if count > limit { Err(BatchTooLong { limit }) } else { Ok(()) }
    }

    /// Refuses an event that is larger than one may be.
    pub fn check(&self, event: &Event) -> Result<(), EventTooLarge> {
        let (bytes, limit) = (size(event), self.event);
        if bytes > limit { Err(EventTooLarge { bytes, limit }) } else { Ok(()) }
    }
}

impl From<&Limits> for BatchLimits {
    fn from(limits: &Limits) -> Self {
        Self { event: limits.event.as_usize(), batch: limits.batch }
    }
}

fn size(event: &Event) -> usize {
    let length = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
    event.topic.as_str().len()
        + event.id.len()
        + event.source.len()
        + length(&event.kind)
        + event.time.len()
        + length(&event.key)
        + event.data.get().len()
}
