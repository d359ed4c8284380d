//! A block: a run of records in offset order, their outward JSON in one shared buffer.

use std::sync::Arc;

use bytes::Bytes;

use super::PublisherName;
use crate::{position::Offset, time::Millis};

/// Records in ascending order of offset (holes allowed), encoded once and shared by all readers.
#[derive(Debug)]
pub struct Block {
    pub(super) json: Bytes,
    pub(super) entries: Box<[BlockEntry]>,
    /// Each publisher once; entries name theirs by its place from 1, 0 for none.
    pub(super) publishers: Box<[PublisherName]>,
}

/// Where one record stands in the block's buffer; the `_at` fields count from its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockEntry {
    pub(super) offset: Offset,
    pub(super) received: Millis,
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) topic_at: u16,
    pub(super) topic_len: u16,
    pub(super) kind_at: u16,
    pub(super) kind_len: u16,
    pub(super) key_at: u16,
    pub(super) key_len: u16,
    pub(super) data_at: u16,
    pub(super) publisher: u16,
}

/// One stored event: its offset and its outward JSON, borrowed from the block.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    block: &'a Block,
    pub(super) entry: &'a BlockEntry,
}

/// What the stored form begins with. The plain form begins with the number of records, which is 0 only
/// where nothing follows: so whoever knows that alone refuses this one.
const MARK: [u8; 2] = [0, 2];

/// Stored bytes that are no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored bytes are not a block of events")]
pub struct BlockError;

impl Block {
    /// The number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The outward JSON of all records together, in bytes.
    pub fn bytes(&self) -> usize {
        self.json.len()
    }

    /// The first record's offset, 0 for an empty block.
    pub fn first(&self) -> Offset {
        self.entries.first().map_or(0, |entry| entry.offset)
    }

    /// The last record's offset, 0 for an empty block.
    pub fn last(&self) -> Offset {
        self.entries.last().map_or(0, |entry| entry.offset)
    }

    /// All records in order.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = Record<'_>> + ExactSizeIterator {
        self.entries.iter().map(|entry| Record { block: self, entry })
    }

    /// The records with an offset above `after`, in order.
    pub fn records_after(
        &self,
        after: Offset,
    ) -> impl DoubleEndedIterator<Item = Record<'_>> + ExactSizeIterator {
        let from = self.entries.partition_point(|entry| entry.offset <= after);
        self.entries[from..].iter().map(|entry| Record { block: self, entry })
    }

    /// The record at `index`, which counts from 0 within the block.
    pub fn record(&self, index: usize) -> Option<Record<'_>> {
        self.entries.get(index).map(|entry| Record { block: self, entry })
    }

    /// The stored form: a mark, the [`origins`](Self::origins) behind their length, the
    /// [`encode_plain`](Self::encode_plain).
    pub fn encode(&self) -> Vec<u8> {
        let origins = self.origins();
        let mut out = Vec::with_capacity(MARK.len() + 5 + origins.len() + self.most_plain_bytes());
        out.extend_from_slice(&MARK);
        put(&mut out, origins.len() as u64);
        out.extend_from_slice(&origins);
        self.put_plain(&mut out);
        out
    }

    /// The records without their publishers: an index of varints, then the records' JSON. It is what
    /// versions before there were publishers write, and all that they read.
    pub fn encode_plain(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.most_plain_bytes());
        self.put_plain(&mut out);
        out
    }

    /// About how many bytes [`put_plain`](Self::put_plain) writes, mostly a little more.
    fn most_plain_bytes(&self) -> usize {
        self.json.len() + self.entries.len() * 14 + 8
    }

    fn put_plain(&self, out: &mut Vec<u8>) {
        put(out, self.entries.len() as u64);
        let (mut offset, mut received) = (0, 0);
        for entry in &self.entries {
            put(out, entry.offset - offset);
            put(out, entry.received.saturating_sub(received));
            (offset, received) = (entry.offset, entry.received);
            put(out, u64::from(entry.len));
            for field in entry.fields() {
                put(out, u64::from(field));
            }
        }
        out.extend_from_slice(&self.json);
    }

    /// Who published the records: each publisher's text, then of each run of records its place.
    pub fn origins(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, self.publishers.len() as u64);
        for publisher in &self.publishers {
            put(&mut out, publisher.as_str().len() as u64);
            out.extend_from_slice(publisher.as_str().as_bytes());
        }
        for run in self.entries.chunk_by(|a, b| a.publisher == b.publisher) {
            put(&mut out, run.len() as u64);
            put(&mut out, run.first().map_or(0, |entry| u64::from(entry.publisher)));
        }
        out
    }

    /// The same records with the publishers that [`origins`](Self::origins) told.
    pub fn with_origins(mut self, mut origins: &[u8]) -> Result<Self, BlockError> {
        let from = &mut origins;
        let count = usize::try_from(take(from)?).map_err(|_| BlockError)?;
        if count > from.len() {
            return Err(BlockError);
        }
        let mut publishers = Vec::with_capacity(count);
        for _ in 0..count {
            let length = usize::try_from(take(from)?).map_err(|_| BlockError)?;
            let (text, behind) = from.split_at_checked(length).ok_or(BlockError)?;
            let text = std::str::from_utf8(text).map_err(|_| BlockError)?;
            publishers.push(PublisherName::stored(text));
            *from = behind;
        }
        let mut entries = &mut self.entries[..];
        while !entries.is_empty() {
            let length = usize::try_from(take(from)?).map_err(|_| BlockError)?;
            let place = u16::try_from(take(from)?).map_err(|_| BlockError)?;
            let known = length > 0 && usize::from(place) <= publishers.len();
            let (run, behind) =
                entries.split_at_mut_checked(length).filter(|_| known).ok_or(BlockError)?;
            run.iter_mut().for_each(|entry| entry.publisher = place);
            entries = behind;
        }
        self.publishers = publishers.into();
        if from.is_empty() { Ok(self) } else { Err(BlockError) }
    }

    /// Reads what [`encode`](Self::encode) or [`encode_plain`](Self::encode_plain) wrote; every index
    /// is checked against the buffer.
    pub fn decode(stored: Bytes) -> Result<Self, BlockError> {
        let Some(mut rest) = stored.strip_prefix(&MARK) else {
            return Self::decode_plain(&stored);
        };
        let length = usize::try_from(take(&mut rest)?).map_err(|_| BlockError)?;
        let (origins, plain) = rest.split_at_checked(length).ok_or(BlockError)?;
        Self::decode_plain(&stored.slice_ref(plain))?.with_origins(origins)
    }

    fn decode_plain(stored: &Bytes) -> Result<Self, BlockError> {
        let mut rest = &stored[..];
        let count = usize::try_from(take(&mut rest)?).map_err(|_| BlockError)?;
        if count > rest.len() {
            return Err(BlockError);
        }
        let mut entries = Vec::with_capacity(count);
        let (mut offset, mut received, mut start) = (0u64, 0u64, 0u32);
        for _ in 0..count {
            let step = take(&mut rest)?;
            offset = offset.checked_add(step).filter(|_| step > 0).ok_or(BlockError)?;
            received = received.checked_add(take(&mut rest)?).ok_or(BlockError)?;
            let len = u32::try_from(take(&mut rest)?).map_err(|_| BlockError)?;
            let mut fields = [0u16; 7];
            for field in &mut fields {
                *field = u16::try_from(take(&mut rest)?).map_err(|_| BlockError)?;
            }
            let entry = BlockEntry::from_fields(offset, received, start, len, fields)?;
            start = start.checked_add(len).ok_or(BlockError)?;
            entries.push(entry);
        }
        if rest.len() != start as usize {
            return Err(BlockError);
        }
        let json = stored.slice(stored.len() - rest.len()..);
        Ok(Self { json, entries: entries.into(), publishers: Box::default() })
    }
}

impl<'a> Record<'a> {
    /// The record's place in the log.
    pub fn offset(self) -> Offset {
        self.entry.offset
    }

    /// When the hub took the event in.
    pub fn received(self) -> Millis {
        self.entry.received
    }

    /// Whose credentials the event came with; an earlier version did not note it.
    pub fn publisher(self) -> Option<&'a PublisherName> {
        self.block.publishers.get(usize::from(self.entry.publisher).checked_sub(1)?)
    }

    /// The record alone, without the rest of its block in memory; as it is for readers, so that it names no publisher.
    pub fn alone(self) -> Arc<Block> {
        let entry = BlockEntry { start: 0, publisher: 0, ..*self.entry };
        let json = Bytes::copy_from_slice(self.json());
        Arc::new(Block { json, entries: [entry].into(), publishers: Box::default() })
    }

    /// The outward JSON object.
    pub fn json(self) -> &'a [u8] {
        let start = self.entry.start as usize;
        &self.block.json[start..start + self.entry.len as usize]
    }

    /// The outward JSON object, sharing the block's memory.
    pub fn shared_json(self) -> Bytes {
        let start = self.entry.start as usize;
        self.block.json.slice(start..start + self.entry.len as usize)
    }

    /// The topic's text.
    pub fn topic(self) -> &'a str {
        let topic = self.part(self.entry.topic_at, self.entry.topic_len);
        // The grammar of topics is ASCII; bytes that are not would match no pattern.
        std::str::from_utf8(topic).unwrap_or_default()
    }

    /// The key as a JSON string with its quotes. The hub encodes all keys alike, so that equal
    /// keys have equal bytes.
    pub fn key(self) -> Option<&'a [u8]> {
        (self.entry.key_len > 0).then(|| self.part(self.entry.key_at, self.entry.key_len))
    }

    /// The `type` as a JSON string with its quotes.
    pub fn kind(self) -> Option<&'a [u8]> {
        (self.entry.kind_len > 0).then(|| self.part(self.entry.kind_at, self.entry.kind_len))
    }

    /// The payload's JSON.
    pub fn data(self) -> &'a [u8] {
        let json = self.json();
        &json[self.entry.data_at as usize..json.len() - 1]
    }

    /// Whether the event takes its key out of `latest`.
    pub fn is_removal(self) -> bool {
        self.entry.key_len > 0 && self.data() == b"null"
    }

    fn part(self, at: u16, len: u16) -> &'a [u8] {
        &self.json()[at as usize..at as usize + len as usize]
    }
}

impl BlockEntry {
    fn fields(&self) -> [u16; 7] {
        [
            self.topic_at,
            self.topic_len,
            self.kind_at,
            self.kind_len,
            self.key_at,
            self.key_len,
            self.data_at,
        ]
    }

    fn from_fields(
        offset: Offset,
        received: Millis,
        start: u32,
        len: u32,
        fields: [u16; 7],
    ) -> Result<Self, BlockError> {
        let [topic_at, topic_len, kind_at, kind_len, key_at, key_len, data_at] = fields;
        let inside = |at: u16, length: u16| u32::from(at) + u32::from(length) < len;
        let sound = inside(topic_at, topic_len)
            && inside(kind_at, kind_len)
            && inside(key_at, key_len)
            && inside(data_at, 0);
        if !sound {
            return Err(BlockError);
        }
        Ok(Self {
            offset,
            received,
            start,
            len,
            topic_at,
            topic_len,
            kind_at,
            kind_len,
            key_at,
            key_len,
            data_at,
            publisher: 0,
        })
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(from: &mut &[u8]) -> Result<u64, BlockError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first().ok_or(BlockError)?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(BlockError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BlockBuilder, Event};
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    fn event(kind: Option<&str>, key: Option<&str>, data: &str) -> Event {
        Event {
            topic: crate::topic::Topic::parse("a.b").unwrap(),
            id: "i\"1".into(),
            id_is_ours: false,
            publisher: PublisherName::key("p"),
            source: "s\\ü\n".into(),
            kind: kind.map(Into::into),
            time: "2026-11-20T12:00:00.123Z".into(),
            key: key.map(Into::into),
            data: RawValue::from_string(data.to_owned()).unwrap(),
        }
    }

    #[test]
    fn a_record_is_the_documented_object_and_knows_its_parts() {
        let mut builder = BlockBuilder::default();
        builder.push(7, 1000, &event(Some("t"), Some("k\"1"), r#"{"x":1}"#));
        builder.push(9, 1005, &event(None, Some("k"), "null"));
        let block = Block::decode(builder.finish().encode().into()).unwrap();
        let first = block.record(0).unwrap();
        assert_eq!(
            std::str::from_utf8(first.json()).unwrap(),
            r#"{"offset":7,"topic":"a.b","id":"i\"1","source":"s\\ü\n","type":"t","time":"2026-11-20T12:00:00.123Z","key":"k\"1","data":{"x":1}}"#
        );
        assert_eq!(first.topic(), "a.b");
        assert_eq!(first.kind().unwrap(), br#""t""#);
        assert_eq!(first.key().unwrap(), br#""k\"1""#);
        assert_eq!(first.data(), br#"{"x":1}"#);
        assert!(!first.is_removal());
        let second = block.records_after(7).next().unwrap();
        assert_eq!((second.offset(), second.received(), second.kind()), (9, 1005, None));
        assert!(second.is_removal());
        assert_eq!((block.first(), block.last(), block.len()), (7, 9, 2));
    }

    #[test]
    fn a_block_of_the_first_form_is_read_and_names_no_publisher() {
        let mut builder = BlockBuilder::default();
        builder.push(7, 1000, &event(Some("t"), Some("k"), "[1]"));
        builder.push(9, 1005, &event(None, None, "2"));
        let block = builder.finish();
        // By hand, as the version before wrote it.
        let mut stored = Vec::new();
        put(&mut stored, 2);
        let (mut offset, mut received) = (0, 0);
        for entry in &block.entries {
            let (next, at) = (entry.offset - offset, entry.received - received);
            [next, at, u64::from(entry.len)].into_iter().for_each(|n| put(&mut stored, n));
            entry.fields().into_iter().for_each(|field| put(&mut stored, u64::from(field)));
            (offset, received) = (entry.offset, entry.received);
        }
        stored.extend_from_slice(&block.json);
        assert_eq!(block.encode_plain(), stored, "which it must go on reading");
        let old = Block::decode(stored.into()).unwrap();
        assert_eq!(old.records().map(|r| r.publisher().cloned()).collect::<Vec<_>>(), [None, None]);
        assert_eq!(old.record(1).unwrap().json(), block.record(1).unwrap().json());
        let again = Block::decode(old.encode().into()).unwrap();
        assert!(again.record(0).unwrap().publisher().is_none());
        assert!(Block::decode(vec![0].into()).unwrap().is_empty());
    }

    #[test]
    fn records_keep_their_publishers_through_every_change_of_block() {
        let mut builder = BlockBuilder::default();
        let names = ["a", "b", "a", "c", "b"];
        for (offset, name) in (1..).zip(names) {
            let publisher = PublisherName::key(name);
            builder.push(offset, 5, &Event { publisher, ..event(None, None, "1") });
        }
        let names_in = |block: &Block, want: &[&str]| {
            let block = Block::decode(block.encode().into()).unwrap();
            let found: Vec<_> = block.records().map(|r| r.publisher().unwrap().clone()).collect();
            assert_eq!(found, want.iter().map(|name| PublisherName::key(name)).collect::<Vec<_>>());
        };
        let block = builder.finish();
        names_in(&block, &names);
        assert_eq!(block.publishers.len(), 3);
        names_in(&block.renumbered(100, 9).unwrap(), &names);
        let mut some = BlockBuilder::default();
        block.records().skip(2).for_each(|record| some.push_record(record));
        names_in(&some.finish(), &names[2..]);
        assert!(!std::str::from_utf8(&block.json).unwrap().contains("key:"));
    }

    #[test]
    fn a_renumbered_block_is_as_if_encoded_so() {
        let events = [event(Some("t"), Some("k"), "[1]"), event(None, None, "2")];
        let encoded = |first: Offset, received| {
            let mut builder = BlockBuilder::default();
            events.iter().zip(first..).for_each(|(e, offset)| builder.push(offset, received, e));
            builder.finish()
        };
        for first in [1, 9, 99, 1_000_000_001] {
            let renumbered = encoded(1, 0).renumbered(first, 77).unwrap();
            assert_eq!(renumbered.encode(), encoded(first, 77).encode());
        }
        assert_eq!(encoded(99, 0).renumbered(1, 1).unwrap().encode(), encoded(1, 1).encode());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(block) = Block::decode(bytes.into()) {
                for record in block.records() {
                    let _ = (record.topic(), record.key(), record.kind(), record.data());
                }
                let _ = block.renumbered(12_345, 1);
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(at in 0usize..200, bit in 0u8..8) {
            let mut builder = BlockBuilder::default();
            builder.push(1, 1, &event(Some("t"), Some("k"), "[1,2,3]"));
            builder.push(2, 2, &event(None, None, "0"));
            let mut stored = builder.finish().encode();
            let at = at % stored.len();
            stored[at] ^= 1 << bit;
            if let Ok(block) = Block::decode(stored.into()) {
                for record in block.records() {
                    let _ = (record.topic(), record.key(), record.kind(), record.data());
                }
                let _ = block.renumbered(12_345, 1);
            }
        }
    }
}
