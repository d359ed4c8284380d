//! Events to a block: the one place where outward JSON is written.

use std::{collections::HashMap, sync::Arc};

use super::{
    Event, PublisherName,
    block::{Block, BlockEntry, Record},
    stored::BlockError,
};
use crate::{position::Offset, time::Millis};

/// How the JSON of every record begins; the number follows.
const OFFSET: &[u8] = b"{\"offset\":";

/// Gathers records into a [`Block`].
#[derive(Debug, Default)]
pub struct BlockBuilder {
    json: Vec<u8>,
    entries: Vec<BlockEntry>,
    publishers: Vec<PublisherName>,
    /// Their places; empty as long as there is one only, as in most blocks.
    places: HashMap<PublisherName, u16>,
    /// The place of the last record's.
    last: u16,
}

impl BlockBuilder {
    /// Encodes `event` under `offset`, which must be above every offset before it.
    pub fn push(&mut self, offset: Offset, received: Millis, event: &Event) {
        let publisher = self.place(&event.publisher);
        let start = self.json.len();
        let here = |json: &Vec<u8>| position_in_record(json.len() - start);
        let json = &mut self.json;
        json.extend_from_slice(OFFSET);
        put_decimal(json, offset);
        json.extend_from_slice(b",\"topic\":\"");
        let topic_at = here(json);
        json.extend_from_slice(event.topic.as_str().as_bytes());
        let topic_len = here(json) - topic_at;
        json.extend_from_slice(b"\",\"id\":");
        put_string(json, &event.id);
        json.extend_from_slice(b",\"source\":");
        put_string(json, &event.source);
        let (mut kind_at, mut kind_len) = (0, 0);
        if let Some(kind) = &event.kind {
            json.extend_from_slice(b",\"type\":");
            kind_at = here(json);
            put_string(json, kind);
            kind_len = here(json) - kind_at;
        }
        json.extend_from_slice(b",\"time\":");
        put_string(json, &event.time);
        let (mut key_at, mut key_len) = (0, 0);
        if let Some(key) = &event.key {
            json.extend_from_slice(b",\"key\":");
            key_at = here(json);
            put_string(json, key);
            key_len = here(json) - key_at;
        }
        json.extend_from_slice(b",\"data\":");
        let data_at = here(json);
        json.extend_from_slice(event.data.get().as_bytes());
        json.push(b'}');
        self.entries.push(BlockEntry {
            offset,
            received,
            start: index(start),
            len: index(json.len() - start),
            topic_at,
            topic_len,
            kind_at,
            kind_len,
            key_at,
            key_len,
            data_at,
            publisher,
        });
    }

    /// Takes over a record that was encoded before; its offset must be above those before it.
    pub fn push_record(&mut self, record: Record<'_>) {
        let start = index(self.json.len());
        self.json.extend_from_slice(record.json());
        let publisher = record.publisher().map_or(0, |publisher| self.place(publisher));
        self.entries.push(BlockEntry { start, publisher, ..*record.entry });
    }

    /// Adds a record with another offset and time of arrival: its JSON is written again up to the end of the offset,
    /// and its parts move accordingly.
    fn push_renumbered(
        &mut self,
        record: Record<'_>,
        offset: Offset,
        received: Millis,
    ) -> Result<(), BlockError> {
        let rest = record.json().strip_prefix(OFFSET).ok_or(BlockError)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let publisher = record.publisher().map_or(0, |publisher| self.place(publisher));
        let json = &mut self.json;
        let start = json.len();
        json.extend_from_slice(OFFSET);
        put_decimal(json, offset);
        let (before, now) = (OFFSET.len() + digits, json.len() - start);
        json.extend_from_slice(&rest[digits..]);
        let moved = |at: u16, len: u16| match usize::from(at) {
            _ if len == 0 => Ok(0),
            at => {
                at.checked_sub(before).and_then(|at| u16::try_from(at + now).ok()).ok_or(BlockError)
            }
        };
        let entry = record.entry;
        self.entries.push(BlockEntry {
            offset,
            received,
            start: u32::try_from(start).map_err(|_| BlockError)?,
            len: u32::try_from(json.len() - start).map_err(|_| BlockError)?,
            topic_at: moved(entry.topic_at, entry.topic_len)?,
            kind_at: moved(entry.kind_at, entry.kind_len)?,
            key_at: moved(entry.key_at, entry.key_len)?,
            data_at: moved(entry.data_at, 1)?,
            publisher,
            ..*entry
        });
        Ok(())
    }

    /// The publisher's place in this block, from 1.
    fn place(&mut self, publisher: &PublisherName) -> u16 {
        let last = usize::from(self.last).checked_sub(1);
        if last.and_then(|at| self.publishers.get(at)) == Some(publisher) {
            return self.last;
        }
        if let (true, [only]) = (self.places.is_empty(), &self.publishers[..]) {
            self.places.insert(only.clone(), 1);
        }
        if let Some(place) = self.places.get(publisher) {
            self.last = *place;
            return *place;
        }
        // More do not fit: a block has fewer batches, and none of them two publishers but the hub.
        let Ok(place) = u16::try_from(self.publishers.len() + 1) else { return 0 };
        if !self.publishers.is_empty() {
            self.places.insert(publisher.clone(), place);
        }
        self.publishers.push(publisher.clone());
        self.last = place;
        place
    }

    /// The JSON gathered so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.json.len()
    }

    /// Whether nothing was gathered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The block, ready to be shared.
    pub fn finish(self) -> Arc<Block> {
        Arc::new(Block {
            json: self.json.into(),
            entries: self.entries.into(),
            publishers: self.publishers.into(),
        })
    }
}

impl Block {
    /// The same records under other offsets, from `first` on, all received at once.
    ///
    /// For logs that give offsets where blocks cannot be encoded any more.
    pub fn renumbered(&self, first: Offset, received: Millis) -> Result<Arc<Self>, BlockError> {
        let mut builder = BlockBuilder {
            json: Vec::with_capacity(self.json.len() + self.entries.len() * 12),
            entries: Vec::with_capacity(self.entries.len()),
            ..BlockBuilder::default()
        };
        for (record, offset) in self.records().zip(first..) {
            builder.push_renumbered(record, offset, received)?;
        }
        Ok(builder.finish())
    }
}

/// Attributes are at most 256 bytes each, six times that escaped, so all but `data` fit in 16 bits.
fn position_in_record(at: usize) -> u16 {
    debug_assert!(at <= usize::from(u16::MAX));
    at as u16
}

/// A block holds a few MiB at most, far from 4 GiB.
fn index(at: usize) -> u32 {
    debug_assert!(u32::try_from(at).is_ok());
    at as u32
}

fn put_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes `text` as a JSON string; the common text without escapes is copied as it is.
fn put_string(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}
