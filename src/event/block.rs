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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::{BlockBuilder, Event};
    use serde_json::value::RawValue;

    pub(in crate::event) fn event(kind: Option<&str>, key: Option<&str>, data: &str) -> Event {
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
}
