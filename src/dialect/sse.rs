//! Server-sent events (WHATWG HTML, "Server-sent events"): each event's `id` is a position to resume from.

use std::io::Write as _;

use bytes::Bytes;

use crate::{
    event::Record,
    position::{Epoch, Position},
    protocol::ServerMessage,
};

pub(super) fn say(message: &ServerMessage<'_>) -> Option<Bytes> {
    Some(match message {
        // Says at once that the stream stands, and where it begins; but who lost this stream before it heard what lies
        // before that would never hear it.
        ServerMessage::Subscribed { start, .. } => {
            let mut begins = match start.is_owing {
                true => ":\n\n".to_owned(),
                false => id(start.position),
            };
            if start.replay_truncated {
                begins.push_str("event: hub.replay_truncated\ndata: {}\n\n");
            }
            begins.into()
        }
        ServerMessage::Gap { from, to, reason, .. } => {
            let reason = reason.name();
            format!(
                "id: {to}\nevent: hub.gap\ndata: {{\"from\":\"{from}\",\"to\":\"{to}\",\"reason\":\"{reason}\"}}\n\n"
            )
            .into()
        }
        // An id without data moves Last-Event-ID and fires nothing.
        ServerMessage::Ping { head, caught_up, .. } if !caught_up.is_empty() => id(*head).into(),
        ServerMessage::Ping { .. } => Bytes::from_static(b":\n\n"),
        ServerMessage::Reconnect { after_ms } => format!("retry: {after_ms}\n\n").into(),
        _ => return None,
    })
}

fn id(position: Position) -> String {
    format!("id: {position}\n\n")
}

pub(super) fn events<'a>(epoch: Epoch, records: &mut impl Iterator<Item = Record<'a>>) -> Bytes {
    let mut out = Vec::new();
    for record in records {
        put(&mut out, Position { epoch, offset: record.offset() }, record);
    }
    out.into()
}

fn put(out: &mut Vec<u8>, position: Position, record: Record<'_>) {
    // Writing to memory cannot fail.
    let _ = writeln!(out, "id: {position}");
    if let Some(kind) = record.kind() {
        // A line break inside the type would end the field.
        let kind: String = serde_json::from_slice(kind).unwrap_or_default();
        let _ = writeln!(out, "event: {}", kind.replace(['\r', '\n'], " "));
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(record.json());
    out.extend_from_slice(b"\n\n");
}
