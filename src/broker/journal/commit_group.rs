//! What a group of batches adds to the log, before the file is touched.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    JournalShared,
    dedupe::{Dedupe, IdHash},
    new_topics::NewTopics,
    schema::BLOCK_BYTES,
    topics::JournalTopics,
};
use crate::{
    broker::{PublishError, Published, queue::QueuedBatch},
    event::{Block, BlockBuilder, Event},
    position::{Offset, Position},
    telemetry::Limit,
    time::Millis,
};

/// What a group adds, gathered before the file is touched; dropped whole when the commit fails.
pub(super) struct CommitGroup {
    pub(super) blocks: Vec<Arc<Block>>,
    open: BlockBuilder,
    pub(super) next: Offset,
    pub(super) received: Millis,
    pub(super) ids: Vec<(IdHash, Offset)>,
    fresh: HashMap<IdHash, Offset>,
    pub(super) new_topics: NewTopics,
    answers: Vec<Result<CommitOutcome, PublishError>>,
}

struct CommitOutcome {
    offsets: Vec<Offset>,
    accepted: usize,
}

impl CommitGroup {
    /// Gives offsets and encodes, all in memory.
    pub(super) fn gather(
        batches: &[QueuedBatch],
        received: Millis,
        dedupe: &Dedupe,
        shared: &JournalShared,
    ) -> Self {
        let topics = shared.topics.read();
        let mut group = Self {
            blocks: Vec::new(),
            open: BlockBuilder::default(),
            next: shared.front.offset() + 1,
            received,
            ids: Vec::new(),
            fresh: HashMap::new(),
            new_topics: NewTopics::new(topics.next_id()),
            answers: Vec::with_capacity(batches.len()),
        };
        for batch in batches {
            let has_room = group.find_topics(&topics, batch, shared);
            let answer = has_room.map(|()| group.take_in(batch, dedupe));
            group.answers.push(answer);
        }
        if !group.open.is_empty() {
            let last = std::mem::take(&mut group.open);
            group.blocks.push(last.finish());
        }
        group
    }

    /// Numbers the batch's new topics, or refuses it whole.
    fn find_topics(
        &mut self,
        topics: &JournalTopics,
        batch: &QueuedBatch,
        shared: &JournalShared,
    ) -> Result<(), PublishError> {
        let limit = shared.config.max_topics;
        let new = &mut self.new_topics;
        let before = new.mark();
        let mut without_room = HashSet::new();
        for Event { topic, .. } in batch.events.iter() {
            let is_known = topics.id(topic.as_str()).or_else(|| new.id(topic.as_str())).is_some();
            if is_known {
                continue;
            }
            let counted = topics.len() - topics.reserved() + new.counted();
            if !topic.is_reserved() && counted >= limit {
                without_room.insert(topic.clone());
                continue;
            }
            new.add(topic, &shared.rules);
        }
        if without_room.is_empty() {
            return Ok(());
        }
        new.back_to(&before);
        shared.telemetry.hit(Limit::Topics);
        Err(PublishError::TooManyTopics { limit, topics: without_room })
    }

    fn take_in(&mut self, batch: &QueuedBatch, dedupe: &Dedupe) -> CommitOutcome {
        let mut outcome =
            CommitOutcome { offsets: Vec::with_capacity(batch.events.len()), accepted: 0 };
        for event in batch.events.iter() {
            if !event.id_is_ours {
                let hash = dedupe.hash(event);
                let original = dedupe.find(hash).or_else(|| self.fresh.get(&hash).copied());
                if let Some(offset) = original {
                    outcome.offsets.push(offset);
                    continue;
                }
                self.fresh.insert(hash, self.next);
                self.ids.push((hash, self.next));
            }
            let size = event.data.get().len();
            if !self.open.is_empty() && self.open.bytes() + size > BLOCK_BYTES {
                let full = std::mem::take(&mut self.open);
                self.blocks.push(full.finish());
            }
            self.open.push(self.next, self.received, event);
            outcome.offsets.push(self.next);
            outcome.accepted += 1;
            self.next += 1;
        }
        outcome
    }

    /// Answers the publishers.
    pub(super) fn answer(self, batches: Vec<QueuedBatch>, shared: &JournalShared) {
        let epoch = shared.front.head().epoch;
        let mut stored = 0;
        let mut duplicates = 0;
        for (batch, answer) in batches.into_iter().zip(self.answers) {
            if let Ok(outcome) = &answer {
                stored += outcome.accepted;
                duplicates += outcome.offsets.len() - outcome.accepted;
            }
            if let Some(asked) = batch.answer {
                let answer = answer.map(|outcome| Published {
                    position: Position {
                        epoch,
                        offset: outcome.offsets.iter().copied().max().unwrap_or(self.next - 1),
                    },
                    offsets: outcome.offsets,
                    accepted: outcome.accepted,
                    left_out: None,
                });
                // The publisher may have gone; the events are stored all the same.
                let _ = asked.send(answer);
            }
        }
        shared.telemetry.events_stored.inc_by(stored as u64);
        shared.telemetry.events_duplicate.inc_by(duplicates as u64);
    }
}
