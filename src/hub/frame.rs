//! Ready-made frames: the bytes a subscriber's socket gets for a run of matching records.

use std::{io::Write as _, sync::Arc};

use bytes::Bytes;

use crate::{
    event::Record,
    position::{Offset, Position},
    protocol::wire,
};

/// In which bytes a subscription's events come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Form {
    /// `events` messages of the subscription with this name.
    Messages(Arc<str>),
    /// Simple mode: one event object a frame.
    Events,
    /// Simple mode: one bare payload a frame.
    Data,
    /// Server-sent events (WHATWG HTML, "Server-sent events").
    Sse,
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
    /// Makes a frame of `records`, which moves a subscriber to `position`.
    ///
    /// `skipped`, in mode `latest`, is how many matching events were passed over.
    pub(super) fn frame<'a>(
        &self,
        position: Position,
        records: impl Iterator<Item = Record<'a>>,
        skipped: Option<u64>,
    ) -> Frame {
        let mut out = Vec::new();
        let (mut first, mut events) = (0, 0);
        let mut counted = records.inspect(|record| {
            if events == 0 {
                first = record.offset();
            }
            events += 1;
        });
        let bytes = match self {
            Form::Messages(sub) => message(&mut out, sub, position, &mut counted, skipped),
            Form::Events => singles(out, counted.map(Record::json)),
            Form::Data => singles(out, counted.map(Record::data)),
            Form::Sse => {
                for record in counted.by_ref() {
                    server_sent(&mut out, Position { offset: record.offset(), ..position }, record);
                }
                out.into()
            }
        };
        Frame { first, through: position.offset, events, bytes }
    }
}

fn message<'a>(
    out: &mut Vec<u8>,
    sub: &str,
    position: Position,
    records: &mut impl Iterator<Item = Record<'a>>,
    skipped: Option<u64>,
) -> Bytes {
    // The header's length depends on the payload's: leave room for the longest, fill it in last.
    out.resize(wire::MAX_HEADER, 0);
    out.extend_from_slice(b"{\"type\":\"events\",\"sub\":");
    put(out, format_args!("{}", serde_json::Value::from(sub)));
    put(out, format_args!(",\"position\":\"{position}\""));
    if let Some(skipped) = skipped {
        put(out, format_args!(",\"skipped\":{skipped}"));
    }
    out.extend_from_slice(b",\"events\":[");
    for (index, record) in records.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(record.json());
    }
    out.extend_from_slice(b"]}");
    let mut header = Vec::with_capacity(wire::MAX_HEADER);
    wire::put_text_header(&mut header, out.len() - wire::MAX_HEADER);
    let start = wire::MAX_HEADER - header.len();
    out[start..wire::MAX_HEADER].copy_from_slice(&header);
    Bytes::from(std::mem::take(out)).slice(start..)
}

fn singles<'a>(mut out: Vec<u8>, payloads: impl Iterator<Item = &'a [u8]>) -> Bytes {
    for payload in payloads {
        wire::put_text_header(&mut out, payload.len());
        out.extend_from_slice(payload);
    }
    out.into()
}

fn server_sent(out: &mut Vec<u8>, position: Position, record: Record<'_>) {
    put(out, format_args!("id: {position}\n"));
    if let Some(kind) = record.kind() {
        // A line break inside the type would end the field.
        let kind: String = serde_json::from_slice(kind).unwrap_or_default();
        put(out, format_args!("event: {}\n", kind.replace(['\r', '\n'], " ")));
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(record.json());
    out.extend_from_slice(b"\n\n");
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}
