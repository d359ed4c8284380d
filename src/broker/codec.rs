//! Blocks as the file holds them: compressed where that pays.

use bytes::Bytes;

use crate::event::{Block, BlockError};

const RAW: i64 = 0;
const ZSTD: i64 = 1;

/// Smaller bodies gain too little.
const WORTH_COMPRESSING: usize = 512;

/// No block is larger: the limit of a decompression, against damage. `limits.body` keeps batches well below.
const MAX_BODY: usize = 64 << 20;

/// Compresses one block after the other with the same context.
pub(super) struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    pub(super) fn new() -> std::io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(1)?;
        compressor.include_checksum(true)?;
        Ok(Self(compressor))
    }

    /// The codec's number and the body to store; an error for what [`decode`] would not read.
    pub(super) fn encode(&mut self, block: &Block) -> std::io::Result<(i64, Vec<u8>)> {
        self.encode_body(block.encode())
    }

    /// The same of a body that is encoded already.
    pub(super) fn encode_body(&mut self, body: Vec<u8>) -> std::io::Result<(i64, Vec<u8>)> {
        if body.len() < WORTH_COMPRESSING {
            return Ok((RAW, body));
        }
        if body.len() > MAX_BODY {
            let length = body.len();
            let message = format!(
                "a block of {length} bytes is too large: at most {MAX_BODY} can be read back"
            );
            return Err(std::io::Error::other(message));
        }
        Ok((ZSTD, self.0.compress(&body)?))
    }
}

/// Reads a stored body.
pub(super) fn decode(codec: i64, body: Vec<u8>) -> Result<Block, BlockError> {
    match codec {
        RAW => Block::decode(body.into()),
        ZSTD => {
            let size = zstd::zstd_safe::get_frame_content_size(&body);
            let size = size.ok().flatten().and_then(|size| usize::try_from(size).ok());
            let size = size.filter(|size| *size <= MAX_BODY).ok_or(BlockError)?;
            let plain = zstd::bulk::decompress(&body, size).map_err(|_| BlockError)?;
            Block::decode(Bytes::from(plain))
        }
        _ => Err(BlockError),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::{BlockBuilder, Event},
        topic::Topic,
    };

    /// So many events of a little more than a MiB.
    fn block_of(events: u64) -> Arc<Block> {
        let event = Event {
            topic: Topic::parse("a").unwrap(),
            id: "1".into(),
            id_is_ours: false,
            publisher: crate::event::PublisherName::hub(),
            source: "s".into(),
            kind: None,
            time: "2026-01-01T00:00:00Z".into(),
            key: None,
            data: serde_json::value::to_raw_value(&"x".repeat(1 << 20)).unwrap(),
        };
        let mut builder = BlockBuilder::default();
        (1..=events).for_each(|offset| builder.push(offset, 0, &event));
        builder.finish()
    }

    #[test]
    fn what_could_not_be_read_is_not_stored() {
        let mut compressor = Compressor::new().unwrap();
        let (codec, body) = compressor.encode(&block_of(2)).unwrap();
        assert_eq!(decode(codec, body).unwrap().len(), 2);
        let refused = compressor.encode(&block_of(64)).unwrap_err();
        assert!(refused.to_string().contains("too large"), "{refused}");
    }
}
