//! What a follower gets at a time.

use std::sync::Arc;

use crate::{
    event::{Block, Record},
    position::{Offset, Position},
    topic::TopicFilter,
};

/// What comes next: at least one event, or word that some are missing.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub(super) blocks: Vec<Arc<Block>>,
    pub(super) filter: TopicFilter,
    pub(super) after: Offset,
    /// Whether events before or between these are missing.
    pub has_gap: bool,
    /// Everything up to here has now been given; to be acknowledged once all of it is done.
    pub position: Position,
}

impl Delivery {
    /// The events, in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let (after, through) = (self.after, self.position.offset);
        let records = self.blocks.iter().flat_map(move |block| block.records_after(after));
        records
            .take_while(move |record| record.offset() <= through)
            .filter(|record| self.filter.matches(record.topic()))
    }
}
