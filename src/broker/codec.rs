//! Blocks as the file holds them: compressed where that pays.

use bytes::Bytes;

use crate::event::{Block, BlockError};

const RAW: i64 = 0;
const ZSTD: i64 = 1;

/// Smaller bodies gain too little.
const WORTH_COMPRESSING: usize = 512;

/// No block is larger: the limit of a decompression, against damage.
const MAX_BODY: usize = 64 << 20;

/// Compresses one block after the other with the same context.
pub(super) struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    pub(super) fn new() -> std::io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(1)?;
        compressor.include_checksum(true)?;
        Ok(Self(compressor))
    }

    /// The codec's number and the body to store.
    pub(super) fn encode(&mut self, block: &Block) -> std::io::Result<(i64, Vec<u8>)> {
        let body = block.encode();
        if body.len() < WORTH_COMPRESSING {
            return Ok((RAW, body));
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
