//! An entry of the stream: one batch.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use crate::{
    broker::codec,
    event::Block,
    position::{Epoch, Offset},
    redis::RedisFailure,
};

/// An entry of the stream as Redis answers it.
pub(super) type RawEntry = (String, HashMap<String, Bytes>);

/// A batch in the stream.
pub(super) struct StreamEntry {
    pub(super) epoch: Epoch,
    /// The head before it.
    pub(super) before: Offset,
    pub(super) block: Arc<Block>,
    /// Its bytes in Redis.
    pub(super) stored: usize,
}

impl StreamEntry {
    pub(super) fn read((id, mut fields): RawEntry) -> Result<Self, RedisFailure> {
        let mut read = || {
            let last: Offset = id.split_once('-')?.0.parse().ok()?;
            let number = |name, radix| {
                let text = fields.get(name).and_then(|text| std::str::from_utf8(text).ok())?;
                u64::from_str_radix(text, radix).ok()
            };
            let (epoch, before, received) = (number("e", 16)?, number("p", 10)?, number("r", 10)?);
            let body = fields.remove("b")?;
            let stored = body.len();
            let block = match fields.remove("u") {
                Some(origins) => unpack(&body)?.with_origins(&origins).ok()?,
                None => unpack(&body)?, // of an earlier version
            };
            let block = block.renumbered(before.checked_add(1)?, received).ok()?;
            (block.last() == last && !block.is_empty()).then(|| Self {
                epoch: Epoch::new(epoch),
                before,
                block,
                stored,
            })
        };
        read().ok_or_else(|| RedisFailure::Refused(format!("the entry {id} of the log is damaged")))
    }
}

/// Reads a block behind the byte that tells how it is packed.
fn unpack(body: &[u8]) -> Option<Block> {
    let (codec, body) = body.split_first()?;
    codec::decode(i64::from(*codec), body.to_vec()).ok()
}
