//! One commit: a group of batches becomes blocks, index rows, ids and newest values.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use rusqlite::{Transaction, params};

use super::{
    block_rows::{amounts, expires, insert_topics, put_block, to_sqlite, unknown},
    config::RetentionRules,
    dedupe::{self, IdHash},
    meta::note,
    new_topics::NewTopics,
    schema::BLOCK_BYTES,
    topics::{Amount, JournalTopics, TopicId},
    writer::JournalWriter,
};
use crate::{
    broker::{
        PublishError, Published,
        queue::{QueuedBatch, RETRY_AFTER},
    },
    event::{Block, BlockBuilder, Event},
    position::{Offset, Position},
    sqlite,
    telemetry::Limit,
    time::Millis,
};

/// Why nothing is stored while the disk is full.
const NO_ROOM: &str = "the disk is full";
/// So much the newest event of a log may be ahead of the clock, which goes back a little when it is set.
pub(super) const MOST_AHEAD: Millis = 10_000;

/// What a group adds, gathered before the file is touched; dropped whole when the commit fails.
struct CommitGroup {
    blocks: Vec<Arc<Block>>,
    open: BlockBuilder,
    next: Offset,
    received: Millis,
    ids: Vec<(IdHash, Offset)>,
    fresh: HashMap<IdHash, Offset>,
    new_topics: NewTopics,
    answers: Vec<Result<CommitOutcome, PublishError>>,
}

struct CommitOutcome {
    offsets: Vec<Offset>,
    accepted: usize,
}

/// What the commit changed, for the memory to follow.
struct CommittedRows {
    amounts: Vec<(TopicId, Amount)>,
    stored_bytes: u64,
}

impl JournalWriter {
    /// Stores a group of batches and answers each.
    pub(super) fn commit(&mut self, batches: Vec<QueuedBatch>) {
        let started = Instant::now();
        if self.disk.is_full() {
            return self.refuse(batches, NO_ROOM, false);
        }
        if self.unsure
            && let Err(error) = self.reload()
        {
            return self.fail(batches, &error, false);
        }
        let group = self.gather_group(&batches);
        let written = if group.blocks.is_empty() { Ok(None) } else { self.write(&group).map(Some) };
        match written {
            Ok(written) => {
                self.publish_group(batches, group, written);
                self.shared.telemetry.commit_seconds.observe(started.elapsed().as_secs_f64());
            }
            // Unsure is who has begun to commit.
            Err(error) => self.fail(batches, &error, self.unsure && sqlite::may_be_done(&error)),
        }
    }

    /// Never before the newest event, but where that lies further ahead than a clock is ever slewed: it
    /// was ahead then, and is not believed until it is overtaken.
    fn next_received(&self) -> Millis {
        let now = self.shared.clock.now();
        if self.received > now.saturating_add(MOST_AHEAD) {
            tracing::warn!(
                by_ms = self.received - now,
                "the newest event of the log was received in the future: the clock was ahead then"
            );
            return now;
        }
        self.received.max(now)
    }

    /// Gives offsets and encodes, all in memory.
    fn gather_group(&mut self, batches: &[QueuedBatch]) -> CommitGroup {
        self.received = self.next_received();
        let elapsed = self.shared.clock.elapsed();
        self.dedupe.expire(elapsed);
        let shared = self.shared.clone();
        let topics = shared.topics.read();
        let mut group = CommitGroup {
            blocks: Vec::new(),
            open: BlockBuilder::default(),
            next: self.shared.front.offset() + 1,
            received: self.received,
            ids: Vec::new(),
            fresh: HashMap::new(),
            new_topics: NewTopics::new(topics.next_id()),
            answers: Vec::with_capacity(batches.len()),
        };
        for batch in batches {
            let answer = match self.find_topics(&topics, &mut group, batch) {
                Ok(()) => Ok(self.take_in(&mut group, batch)),
                Err(error) => Err(error),
            };
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
        &self,
        topics: &JournalTopics,
        group: &mut CommitGroup,
        batch: &QueuedBatch,
    ) -> Result<(), PublishError> {
        let limit = self.shared.config.max_topics;
        let new = &mut group.new_topics;
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
            new.add(topic, &self.shared.rules);
        }
        if without_room.is_empty() {
            return Ok(());
        }
        new.back_to(&before);
        self.shared.telemetry.hit(Limit::Topics);
        Err(PublishError::TooManyTopics { limit, topics: without_room })
    }

    fn take_in(&self, group: &mut CommitGroup, batch: &QueuedBatch) -> CommitOutcome {
        let mut outcome =
            CommitOutcome { offsets: Vec::with_capacity(batch.events.len()), accepted: 0 };
        for event in batch.events.iter() {
            if !event.id_is_ours {
                let hash = self.dedupe.hash(event);
                let original = self.dedupe.find(hash).or_else(|| group.fresh.get(&hash).copied());
                if let Some(offset) = original {
                    outcome.offsets.push(offset);
                    continue;
                }
                group.fresh.insert(hash, group.next);
                group.ids.push((hash, group.next));
            }
            let size = event.data.get().len();
            if !group.open.is_empty() && group.open.bytes() + size > BLOCK_BYTES {
                let full = std::mem::take(&mut group.open);
                group.blocks.push(full.finish());
            }
            group.open.push(group.next, group.received, event);
            outcome.offsets.push(group.next);
            outcome.accepted += 1;
            group.next += 1;
        }
        outcome
    }

    /// One transaction. When it fails, the file may or may not hold the group.
    fn write(&mut self, group: &CommitGroup) -> rusqlite::Result<CommittedRows> {
        let shared = self.shared.clone();
        let transaction = self.connection.unchecked_transaction()?;
        if !self.is_noted {
            let lineage = shared.front.lock().lineage.clone();
            note(&transaction, &lineage)?;
        }
        let mut written = CommittedRows { amounts: Vec::new(), stored_bytes: 0 };
        let topics = shared.topics.read();
        for (id, topic) in group.new_topics.iter() {
            // A forgotten topic has a row of its own, which the new one replaces. No number comes with the newest
            // values of who had it before, nor leaves its own behind.
            transaction
                .prepare_cached(
                    "DELETE FROM latest WHERE topic_id IN
                         (SELECT ?1 UNION ALL SELECT id FROM topics WHERE topic = ?2)",
                )?
                .execute(params![id, topic.as_str()])?;
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO topics(id, topic, trimmed_through) VALUES (?, ?, ?)",
                )?
                .execute(params![id, topic.as_str(), topics.lost_when_forgotten(topic)])?;
        }
        let id_of = |topic: &str| topics.id(topic).or_else(|| group.new_topics.id(topic));
        let mut newest: HashMap<(TopicId, &[u8]), (usize, usize)> = HashMap::new();
        for (block_index, block) in group.blocks.iter().enumerate() {
            let amounts = amounts(block, id_of)?;
            let (codec, body) = self.compressor.encode(block).map_err(to_sqlite)?;
            written.stored_bytes += body.len() as u64;
            insert_block(
                &transaction,
                &shared.rules,
                &topics,
                group,
                block,
                codec,
                &body,
                &amounts,
            )?;
            insert_topics(&transaction, block.first(), &amounts)?;
            written.amounts.extend(amounts);
            for (index, record) in block.records().enumerate() {
                let id = id_of(record.topic()).ok_or_else(|| unknown(record.topic()))?;
                let slot = (id, record.key().unwrap_or_default());
                newest.insert(slot, (block_index, index));
            }
        }
        for ((topic, key), (block, index)) in newest {
            if !key.is_empty() {
                self.upkeep.touched.insert(topic);
            }
            let record = group.blocks.get(block).and_then(|block| block.record(index));
            let Some(record) = record else { continue };
            if record.is_removal() {
                transaction
                    .prepare_cached("DELETE FROM latest WHERE topic_id = ? AND key = ?")?
                    .execute(params![topic, key])?;
            } else {
                let mut single = BlockBuilder::default();
                single.push_record(record);
                transaction
                    .prepare_cached(
                        "INSERT INTO latest(topic_id, key, offset, record) VALUES (?, ?, ?, ?)
                         ON CONFLICT DO UPDATE SET offset = excluded.offset, record = excluded.record",
                    )?
                    .execute(params![topic, key, record.offset(), single.finish().encode()])?;
            }
        }
        if let Some((_, first)) = group.ids.first() {
            transaction
                .prepare_cached("INSERT INTO ids(first, received, hashes) VALUES (?, ?, ?)")?
                .execute(params![first, group.received, dedupe::encode(&group.ids)])?;
        }
        transaction
            .prepare_cached("UPDATE meta SET value = ? WHERE key = 'head'")?
            .execute([group.next - 1])?;
        drop(topics);
        transaction.commit().inspect_err(|_| self.unsure = true)?;
        self.is_noted = true;
        Ok(written)
    }

    /// After the commit: memory follows, readers hear of it, publishers are answered.
    fn publish_group(
        &mut self,
        batches: Vec<QueuedBatch>,
        group: CommitGroup,
        written: Option<CommittedRows>,
    ) {
        let shared = &self.shared;
        if let Some(written) = written {
            self.disk.worked();
            let mut topics = shared.topics.write();
            for (id, topic) in group.new_topics.iter() {
                topics.insert(id, topic.clone(), 0, &shared.rules);
            }
            for (id, amount) in written.amounts {
                topics.add(id, amount);
            }
            drop(topics);
            self.stored_bytes += written.stored_bytes;
            self.checkpoints.wrote(written.stored_bytes + 4096);
            self.dedupe.remember(shared.clock.elapsed(), &group.ids);
            let mut front = shared.front.lock();
            group.blocks.into_iter().for_each(|block| front.ring.push(block));
            drop(front);
            shared.front.move_to(group.next - 1);
        }
        let epoch = shared.front.head().epoch;
        let mut stored = 0;
        let mut duplicates = 0;
        for (batch, answer) in batches.into_iter().zip(group.answers) {
            if let Ok(outcome) = &answer {
                stored += outcome.accepted;
                duplicates += outcome.offsets.len() - outcome.accepted;
            }
            if let Some(asked) = batch.answer {
                let answer = answer.map(|outcome| Published {
                    position: Position {
                        epoch,
                        offset: outcome.offsets.iter().copied().max().unwrap_or(group.next - 1),
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

    fn fail(&mut self, batches: Vec<QueuedBatch>, error: &rusqlite::Error, may_be_stored: bool) {
        self.disk.failed("the journal cannot be written; publishes are answered 503", error);
        self.refuse(batches, &error.to_string(), may_be_stored);
    }

    fn refuse(&self, batches: Vec<QueuedBatch>, reason: &str, may_be_stored: bool) {
        for batch in batches {
            self.shared.telemetry.publish_failures.inc();
            if let Some(asked) = batch.answer {
                let (reason, retry_after) = (reason.to_owned(), RETRY_AFTER);
                let error = if may_be_stored {
                    let ids = batch.events.iter().map(|event| event.id.clone()).collect();
                    PublishError::Unknown { reason, ids, retry_after }
                } else {
                    PublishError::Unavailable { reason, retry_after }
                };
                // The publisher may have gone.
                let _ = asked.send(Err(error));
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one row, written in one place")]
fn insert_block(
    transaction: &Transaction<'_>,
    rules: &RetentionRules,
    topics: &JournalTopics,
    group: &CommitGroup,
    block: &Block,
    codec: i64,
    body: &[u8],
    amounts: &[(TopicId, Amount)],
) -> rusqlite::Result<()> {
    let rule_of = |id: TopicId| match topics.get(id) {
        Some(state) => state.rule,
        None => group.new_topics.rule(id).unwrap_or_default(),
    };
    put_block(transaction, block, codec, body, expires(rules, rule_of, amounts))
}
