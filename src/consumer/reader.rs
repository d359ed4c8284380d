//! Reads what matches a filter, from an offset on and then as it comes: history and live are one.

use std::sync::Arc;

use crate::{
    broker::{Broker, ReadError},
    event::{Block, Record},
    position::{Offset, Position},
    topic::TopicFilter,
};

/// A place in the log that moves on.
pub struct Reader {
    filter: TopicFilter,
    broker: Broker,
    at: Offset,
    /// Whether the next delivery has to say that something is missing.
    has_gap: bool,
}

/// What comes next: at least one event, or word that some are missing.
#[derive(Debug, Clone)]
pub struct Delivery {
    blocks: Vec<Arc<Block>>,
    filter: TopicFilter,
    after: Offset,
    /// Whether events before these are missing.
    pub has_gap: bool,
    /// Everything up to here has now been given; to be acknowledged once all of it is done.
    pub position: Position,
}

/// About how much one delivery holds, in bytes.
const CHUNK: usize = 256 << 10;

impl Reader {
    /// Reads what `filter` matches and lies above `after`.
    pub fn new(filter: TopicFilter, broker: Broker, after: Offset) -> Self {
        Self { filter, broker, at: after, has_gap: false }
    }

    /// The same, where something before `after` is known to be missing.
    pub fn behind_gap(mut self) -> Self {
        self.has_gap = true;
        self
    }

    /// Everything up to here was given or does not match.
    pub fn reached(&self) -> Offset {
        self.at
    }

    /// Waits for what comes next. When the wait is broken off, nothing is skipped.
    pub async fn next(&mut self) -> Result<Delivery, ReadError> {
        let mut tail = self.broker.tail();
        loop {
            let head = *tail.borrow_and_update();
            if head <= self.at {
                // A closed log sends no more, and nothing is left to wait for.
                if tail.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            let chunk = self.broker.read(self.at, head, &self.filter, CHUNK).await?;
            if chunk.trimmed_through > self.at {
                self.has_gap = true;
                self.at = chunk.trimmed_through;
                continue;
            }
            let after = std::mem::replace(&mut self.at, chunk.reached);
            let delivery = Delivery {
                blocks: chunk.blocks,
                filter: self.filter.clone(),
                after,
                has_gap: self.has_gap,
                position: self.broker.position(self.at),
            };
            if self.has_gap || delivery.records().next().is_some() {
                self.has_gap = false;
                return Ok(delivery);
            }
        }
    }
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
