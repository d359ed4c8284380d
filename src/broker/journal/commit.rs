//! Commits: a group of batches becomes block rows, index rows, ids and newest values.

use std::{collections::HashMap, time::Instant};

use rusqlite::params;

use super::{
    JournalShared,
    block_rows::{amounts, expires, unknown, write_block},
    block_search::blocks_after,
    commit_group::CommitGroup,
    dedupe::{self, Dedupe},
    disk_room::DiskRoom,
    file::JournalFile,
    latest_cap::LatestCap,
    meta::note,
    state::JournalState,
    topics::{Amount, TopicId},
};
use crate::{
    broker::{
        PublishError,
        queue::{QueuedBatch, RETRY_AFTER},
    },
    event::BlockBuilder,
    sqlite,
    time::Millis,
};

/// Why nothing is stored while the disk is full.
const NO_ROOM: &str = "the disk is full";
/// So much the newest event of a log may be ahead of the clock, which goes back a little when it is set.
pub(super) const MOST_AHEAD: Millis = 10_000;

/// What the commit changed, for the memory to follow.
struct CommittedRows {
    amounts: Vec<(TopicId, Amount)>,
    stored_bytes: u64,
}

/// Makes commits of batches.
pub(super) struct Commits {
    pub(super) dedupe: Dedupe,
    /// When the newest event was received; the next is not older.
    pub(super) received: Millis,
    /// Whether the file knows the epoch; if the disk was full at the start, the first commit notes it.
    pub(super) is_noted: bool,
}

impl Commits {
    /// Stores a group of batches and answers each.
    pub(super) fn commit(
        &mut self,
        batches: Vec<QueuedBatch>,
        file: &mut JournalFile,
        latest: &mut LatestCap,
        disk: &mut DiskRoom,
    ) {
        let (started, shared) = (Instant::now(), file.shared.clone());
        if disk.is_full() {
            return refuse(batches, NO_ROOM, false, &shared);
        }
        let mut fail = |batches, error: rusqlite::Error, may_be_stored| {
            disk.failed("the journal cannot be written; publishes are answered 503", &error);
            refuse(batches, &error.to_string(), may_be_stored, &shared);
        };
        if let Err(error) = self.be_sure(file) {
            return fail(batches, error, false);
        }
        self.received = self.next_received(shared.clock.now());
        self.dedupe.expire(shared.clock.elapsed());
        let group = CommitGroup::gather(&batches, self.received, &self.dedupe, &shared);
        if !group.blocks.is_empty() {
            match self.write(&group, file, latest) {
                Ok(written) => self.take_over(&group, written, file),
                Err(error) => {
                    // Unsure is who has begun to commit.
                    let may_be_stored = file.is_unsure && sqlite::may_be_done(&error);
                    return fail(batches, error, may_be_stored);
                }
            }
            disk.worked();
        }
        group.answer(batches, &shared);
        shared.telemetry.commit_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Reads back what the file holds after a commit whose outcome is unknown.
    pub(super) fn be_sure(&mut self, file: &mut JournalFile) -> rusqlite::Result<()> {
        if !file.is_unsure {
            return Ok(());
        }
        let shared = file.shared.clone();
        let (config, rules, clock) = (&shared.config, &shared.rules, &shared.clock);
        let state = JournalState::load(&file.connection, config, rules, self.dedupe.anew(), clock)?;
        let announced = shared.front.offset();
        let missed = blocks_after(&file.connection, announced)?;
        // What was there may be a million topics: it is dropped when nobody waits for the lock.
        let before = std::mem::replace(&mut *shared.topics.write(), state.topics);
        drop(before);
        self.dedupe = state.dedupe;
        self.received = self.received.max(state.received);
        file.stored_bytes = state.stored_bytes;
        for block in missed {
            shared.front.lock().ring.push(block);
        }
        if state.head > announced {
            shared.front.move_to(state.head);
        }
        file.is_unsure = false;
        Ok(())
    }

    /// Never before the newest event, but where that lies further ahead than a clock is ever slewed: it
    /// was ahead then, and is not believed until it is overtaken.
    fn next_received(&self, now: Millis) -> Millis {
        if self.received > now.saturating_add(MOST_AHEAD) {
            tracing::warn!(
                by_ms = self.received - now,
                "the newest event of the log was received in the future: the clock was ahead then"
            );
            return now;
        }
        self.received.max(now)
    }

    /// One transaction. When it fails, the file may or may not hold the group.
    fn write(
        &mut self,
        group: &CommitGroup,
        file: &mut JournalFile,
        latest: &mut LatestCap,
    ) -> rusqlite::Result<CommittedRows> {
        let shared = file.shared.clone();
        let transaction = file.connection.unchecked_transaction()?;
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
        let rule_of = |id| group.new_topics.rule(id).unwrap_or_else(|| topics.rule_of(id));
        let mut newest: HashMap<(TopicId, &[u8]), (usize, usize)> = HashMap::new();
        for (block_index, block) in group.blocks.iter().enumerate() {
            let amounts = amounts(block, id_of)?;
            let expires = expires(&shared.rules, rule_of, &amounts);
            written.stored_bytes +=
                write_block(&transaction, &mut file.compressor, block, &amounts, expires)?;
            written.amounts.extend(amounts);
            for (index, record) in block.records().enumerate() {
                let id = id_of(record.topic()).ok_or_else(|| unknown(record.topic()))?;
                let slot = (id, record.key().unwrap_or_default());
                newest.insert(slot, (block_index, index));
            }
        }
        for ((topic, key), (block, index)) in newest {
            if !key.is_empty() {
                latest.touch(topic);
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
        transaction.commit().inspect_err(|_| file.is_unsure = true)?;
        self.is_noted = true;
        Ok(written)
    }

    /// After the commit: memory follows, and readers hear of it.
    fn take_over(&mut self, group: &CommitGroup, written: CommittedRows, file: &mut JournalFile) {
        file.wrote(written.stored_bytes, 0);
        let shared = &file.shared;
        let mut topics = shared.topics.write();
        for (id, topic) in group.new_topics.iter() {
            topics.insert(id, topic.clone(), 0, &shared.rules);
        }
        for (id, amount) in written.amounts {
            topics.add(id, amount);
        }
        drop(topics);
        self.dedupe.remember(shared.clock.elapsed(), &group.ids);
        let mut front = shared.front.lock();
        group.blocks.iter().for_each(|block| front.ring.push(block.clone()));
        drop(front);
        shared.front.move_to(group.next - 1);
    }
}

/// Answers publishers whose batches are not stored, or may not be.
fn refuse(batches: Vec<QueuedBatch>, reason: &str, may_be_stored: bool, shared: &JournalShared) {
    for batch in batches {
        shared.telemetry.publish_failures.inc();
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
