//! Server-sent events (WHATWG HTML, "Server-sent events"), as every client's library reads them.
//!
//! - Every block has data: some libraries deliver a block without data as an empty event.
//! - A heartbeat is a comment line without an empty line after it, which for some libraries ends a block.
//! - `id` is the last field: some libraries store it as soon as they have read it, and would skip an event whose data did not
//!   arrive.

use std::io::Write as _;

use bytes::Bytes;

use crate::{
    event::Record,
    position::{Epoch, Position},
    protocol::{ServerMessage, SubscribedStart},
};

/// What a stream's events look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamForm {
    /// Whether `event` tells the type; else every event is a `message`.
    pub is_typed: bool,
    /// Whether the payload alone is sent, and not the event around it.
    pub is_bare: bool,
}

const COMMENT: &[u8] = b":\n";

pub(super) fn say(message: &ServerMessage<'_>) -> Option<Bytes> {
    Some(match message {
        ServerMessage::Subscribed { start, .. } => begin(start).into(),
        // What had to come before it has been said.
        ServerMessage::Live { position, was_owing: true, .. } => place(*position).into(),
        ServerMessage::Gap { from, to, reason, .. } => {
            let reason = reason.name();
            format!(
                "event: hub.gap\ndata: {{\"from\":\"{from}\",\"to\":\"{to}\",\"reason\":\"{reason}\"}}\nid: {to}\n\n"
            )
            .into()
        }
        ServerMessage::Ping { .. } => Bytes::from_static(COMMENT),
        ServerMessage::Reconnect { after_ms } => format!(
            "event: hub.reconnect\ndata: {{\"after_ms\":{after_ms}}}\nretry: {after_ms}\n\n"
        )
        .into(),
        _ => return None,
    })
}

/// Says at once that the stream is open, and where it begins, so that a client can resume before the first event. If newest
/// values or a gap are still to come, only a comment is sent: a client that resumed from this position would never get them.
fn begin(start: &SubscribedStart) -> String {
    let mut begins = String::new();
    if start.replay_truncated {
        begins.push_str("event: hub.replay_truncated\ndata: {}\n\n");
    }
    if start.is_owing {
        begins.push_str(":\n");
    } else {
        begins.push_str(&place(start.position));
    }
    begins
}

fn place(position: Position) -> String {
    format!("event: hub.position\ndata: {{}}\nid: {position}\n\n")
}

pub(super) fn events<'a>(
    form: StreamForm,
    epoch: Epoch,
    records: &mut impl Iterator<Item = Record<'a>>,
) -> Bytes {
    let mut out = Vec::new();
    for record in records {
        put(&mut out, form, Position { epoch, offset: record.offset() }, record);
    }
    out.into()
}

fn put(out: &mut Vec<u8>, form: StreamForm, position: Position, record: Record<'_>) {
    // Writing to memory cannot fail.
    if form.is_typed
        && let Some(kind) = record.kind()
    {
        let kind: String = serde_json::from_slice(kind).unwrap_or_default();
        let _ = writeln!(out, "event: {}", listener_of(&kind));
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(if form.is_bare { record.data() } else { record.json() });
    let _ = write!(out, "\nid: {position}\n\n");
}

/// The name to listen for. Types that would reach listeners of the stream itself, and types that look like those, get one
/// more underscore in front. A line break would end the field, so it becomes a space.
fn listener_of(kind: &str) -> String {
    let plain = kind.trim_start_matches('_');
    let is_reserved =
        matches!(plain, "message" | "open" | "error" | "hub") || plain.starts_with("hub.");
    let escape = if is_reserved { "_" } else { "" };
    format!("{escape}{kind}").replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_never_reaches_the_listeners_of_the_stream_itself() {
        for (kind, name) in [
            ("call.completed", "call.completed"),
            ("error", "_error"),
            ("_error", "__error"),
            ("open", "_open"),
            ("message", "_message"),
            ("hub.gap", "_hub.gap"),
            ("_hub.gap", "__hub.gap"),
            ("hub", "_hub"),
            ("hubs", "hubs"),
            ("_private", "_private"),
            ("call\r\ndone", "call  done"),
            ("hub.\nx", "_hub. x"),
        ] {
            assert_eq!(listener_of(kind), name, "{kind:?}");
        }
    }
}
