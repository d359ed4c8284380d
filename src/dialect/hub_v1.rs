//! `hub.v1`: JSON messages in text frames of a WebSocket, both ways (docs/protocol.md).

use std::io::Write as _;

use bytes::Bytes;

use crate::{event::Record, position::Position, protocol::wire};

pub(super) fn events<'a>(
    sub: &str,
    position: Position,
    records: &mut impl Iterator<Item = Record<'a>>,
    skipped: Option<u64>,
) -> Bytes {
    // The header's length depends on the payload's: leave room for the longest, fill it in last.
    let mut out = vec![0; wire::MAX_HEADER];
    out.extend_from_slice(b"{\"type\":\"events\",\"sub\":");
    put(&mut out, format_args!("{}", serde_json::Value::from(sub)));
    put(&mut out, format_args!(",\"position\":\"{position}\""));
    if let Some(skipped) = skipped {
        put(&mut out, format_args!(",\"skipped\":{skipped}"));
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
    Bytes::from(out).slice(start..)
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}
