//! What a follower gets at a time.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::{
    Feed,
    payloads::{BlockPayloads, Payloads},
};
use crate::{
    event::{Block, Record},
    position::{Offset, Position},
    topic::TopicFilter,
};

/// What comes next: at least one event, or word that some are missing.
#[derive(Clone)]
pub struct Delivery {
    pieces: Vec<Piece>,
    filter: TopicFilter,
    after: Offset,
    payloads: Arc<Payloads>,
    /// Whether events before or between these are missing.
    pub has_gap: bool,
    /// Everything up to here has now been given; to be acknowledged once all of it is done.
    pub position: Position,
}

#[derive(Clone)]
struct Piece {
    block: Arc<Block>,
    /// Once a payload was asked for.
    payloads: OnceLock<Arc<BlockPayloads>>,
}

/// One event of a delivery.
#[derive(Clone, Copy)]
pub struct Delivered<'a> {
    record: Record<'a>,
    piece: &'a Piece,
    /// Which record of its block it is.
    index: usize,
    payloads: &'a Payloads,
}

impl Delivery {
    pub(super) fn new(
        feed: &Feed,
        blocks: Vec<Arc<Block>>,
        filter: TopicFilter,
        (after, position): (Offset, Position),
        has_gap: bool,
    ) -> Self {
        let piece = |block| Piece { block, payloads: OnceLock::new() };
        let pieces = blocks.into_iter().map(piece).collect();
        Self { pieces, filter, after, payloads: feed.payloads.clone(), has_gap, position }
    }

    /// The events, in order.
    pub fn events(&self) -> impl Iterator<Item = Delivered<'_>> {
        let (after, through) = (self.after, self.position.offset);
        let delivered = self.pieces.iter().flat_map(move |piece| {
            let records = piece.block.records_after(after);
            let skipped = piece.block.len() - records.len();
            let payloads = &*self.payloads;
            let event =
                move |(at, record)| Delivered { record, piece, index: skipped + at, payloads };
            records.enumerate().map(event)
        });
        delivered
            .take_while(move |event| event.record.offset() <= through)
            .filter(|event| self.filter.matches(event.record.topic()))
    }

    /// About how many bytes it keeps in memory: whole blocks, and of their payloads what was parsed.
    pub fn held(&self) -> usize {
        let held = |piece: &Piece| {
            let parsed = piece.payloads.get().map_or(0, |payloads| payloads.held());
            piece.block.bytes() + parsed
        };
        self.pieces.iter().map(held).sum()
    }

    /// Their records.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.events().map(|event| event.record)
    }
}

impl<'a> Delivered<'a> {
    /// The event as it is stored.
    pub fn record(&self) -> Record<'a> {
        self.record
    }

    /// Its [payload](crate::event::payload), parsed when somebody first asks for it.
    pub fn payload(&self) -> &'a Value {
        let Piece { block, payloads } = self.piece;
        payloads.get_or_init(|| self.payloads.of(block)).get(self.record, self.index)
    }
}
