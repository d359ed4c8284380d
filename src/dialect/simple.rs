//! Simple mode: a WebSocket on which the hub alone speaks, one event or payload a frame. A client that reads no messages
//! cannot be told of a gap: the connection ends, and it asks anew.

use bytes::Bytes;

use crate::protocol::{ServerMessage, wire};

pub(super) fn say(message: &ServerMessage<'_>) -> Option<Bytes> {
    matches!(message, ServerMessage::Ping { .. }).then(wire::ping)
}

pub(super) fn events<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut out = Vec::new();
    for payload in payloads {
        wire::put_text_header(&mut out, payload.len());
        out.extend_from_slice(payload);
    }
    out.into()
}
