//! The form in which a block is stored: who published its records, an index, and their JSON.

use bytes::Bytes;

use super::{
    PublisherName,
    block::{Block, BlockEntry},
};
use crate::{position::Offset, time::Millis};

/// The first byte of the stored form. The plain form begins with the number of records, which is 0 only if nothing
/// follows. So code that knows only the plain form refuses this one.
const MARK: [u8; 2] = [0, 2];

/// Stored bytes that are no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored bytes are not a block of events")]
pub struct BlockError;

impl Block {
    /// The stored form: a mark, the length of the [`origins`](Self::origins), the origins, and the plain form
    /// ([`encode_plain`](Self::encode_plain)).
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
    use proptest::prelude::*;

    use super::*;
    use crate::event::{BlockBuilder, block::tests::event};

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
