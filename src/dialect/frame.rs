//! Ready-made frames: the bytes a subscriber's socket gets for a run of matching records.

use std::sync::Arc;

use bytes::Bytes;

use super::{Dialect, StreamForm, hub_v1, simple, sse};
use crate::{
    event::Record,
    position::{Offset, Position},
};

/// In which bytes a subscription's events come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Form {
    /// `events` messages of the subscription with this name.
    Messages(Arc<str>),
    /// Simple mode: one event object a frame, with its position.
    Events,
    /// Simple mode: one bare payload a frame.
    Data,
    /// Server-sent events.
    Stream(StreamForm),
}

/// Events on their way to a subscriber, in one of the [`Form`]s; clones share the bytes.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The first event's offset.
    pub first: Offset,
    /// Everything that matches up to here is in this frame or before it.
    pub through: Offset,
    /// How many events it holds.
    pub events: usize,
    /// What goes onto the wire.
    pub bytes: Bytes,
}

impl Form {
    /// The dialect whose bytes these are.
    pub fn dialect(&self) -> Dialect {
        match self {
            Form::Messages(_) => Dialect::HubV1,
            Form::Events | Form::Data => Dialect::Simple,
            Form::Stream(_) => Dialect::Sse,
        }
    }

    /// The subscription's name: the dialect's own, where a client cannot have a second one.
    pub fn sub(&self) -> &str {
        match self {
            Form::Messages(sub) => sub,
            Form::Events | Form::Data => "simple",
            Form::Stream(_) => "sse",
        }
    }

    /// Makes a frame of `records`, which moves a subscriber to `position`.
    ///
    /// `skipped`, in mode `latest`, is how many matching events were passed over.
    pub fn frame<'a>(
        &self,
        position: Position,
        records: impl Iterator<Item = Record<'a>>,
        skipped: Option<u64>,
    ) -> Frame {
        let (mut first, mut events) = (0, 0);
        let mut counted = records.inspect(|record| {
            if events == 0 {
                first = record.offset();
            }
            events += 1;
        });
        let bytes = match self {
            Form::Messages(sub) => hub_v1::events(sub, position, &mut counted, skipped),
            Form::Events => simple::events(position.epoch, counted),
            Form::Data => simple::payloads(counted),
            Form::Stream(form) => sse::events(*form, position.epoch, &mut counted),
        };
        Frame { first, through: position.offset, events, bytes }
    }
}
