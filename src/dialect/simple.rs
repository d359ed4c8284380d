//! Simple mode: a WebSocket on which only the hub sends, one event or payload a frame. There is no message for a gap, so a gap
//! ends the connection and the client connects again.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::{
    event::Record,
    position::{Epoch, Position},
    protocol::{ServerMessage, wire},
};

pub(super) fn say(message: &ServerMessage<'_>) -> Option<Bytes> {
    matches!(message, ServerMessage::Ping { .. }).then(wire::ping)
}

/// Each event has its position, so that a client that reconnects can continue after it.
pub(super) fn events<'a>(epoch: Epoch, records: impl Iterator<Item = Record<'a>>) -> Bytes {
    let (mut out, mut place) = (Vec::new(), String::new());
    for record in records {
        let position = Position { epoch, offset: record.offset() };
        place.clear();
        // Writing to memory cannot fail.
        let _ = write!(place, "{{\"position\":\"{position}\",");
        let rest = record.json().strip_prefix(b"{").unwrap_or_default();
        wire::put_text_header(&mut out, place.len() + rest.len());
        out.extend_from_slice(place.as_bytes());
        out.extend_from_slice(rest);
    }
    out.into()
}

pub(super) fn payloads<'a>(records: impl Iterator<Item = Record<'a>>) -> Bytes {
    let mut out = Vec::new();
    for record in records {
        wire::put_text_header(&mut out, record.data().len());
        out.extend_from_slice(record.data());
    }
    out.into()
}
