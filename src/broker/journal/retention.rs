//! Retention: what is too old or too much is trimmed, in small steps between commits.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use rusqlite::params;

use super::{
    block_rows::{amounts, expires, insert_topics, put_block, to_sqlite},
    checkpoints::checkpoint,
    topics::{Amount, TopicId, TopicState},
    writer::JournalWriter,
};
use crate::{
    broker::codec,
    event::{Block, BlockBuilder, Record},
    position::Offset,
    sqlite,
    telemetry::Limit,
    time::Millis,
};

/// Blocks looked at in one step.
const STEP: usize = 16;
/// Topics above their size looked at in one step.
const TOPICS_STEP: usize = 1000;
/// Pages given back to the file system in one step.
const VACUUM_PAGES: u32 = 256;

/// A bounded piece of upkeep at a time; whether there is more to do.
type UpkeepStep = fn(&mut JournalWriter, Millis) -> rusqlite::Result<bool>;

const UPKEEP: [UpkeepStep; 9] = [
    JournalWriter::look_through,
    JournalWriter::trim_expired,
    JournalWriter::trim_total,
    JournalWriter::trim_topics,
    JournalWriter::cap_latest,
    JournalWriter::drop_old_ids,
    JournalWriter::forget_topics,
    JournalWriter::merge,
    JournalWriter::vacuum,
];
/// What frees room on a full disk.
const MAKING_ROOM: [UpkeepStep; 6] = [
    JournalWriter::look_through,
    JournalWriter::trim_expired,
    JournalWriter::trim_total,
    JournalWriter::trim_topics,
    JournalWriter::drop_old_ids,
    JournalWriter::vacuum,
];

/// How long truncating the write-ahead log waits for readers.
const READERS: Duration = Duration::from_millis(100);

impl JournalWriter {
    /// Keeps the file and the reserve in order; true if there is more to do at once.
    pub(super) fn look_after(&mut self) -> bool {
        let more = self.maintain();
        // On a full disk the room is needed for what deletes, until there is nothing left to delete.
        let waits = self.disk.is_full() && more;
        if waits { more } else { self.disk.look_after_the_reserve() | more }
    }

    /// Does a bounded piece of upkeep; true if there is more to do.
    pub(super) fn maintain(&mut self) -> bool {
        if self.unsure && self.reload().is_err() {
            return false; // said when a publish fails of it
        }
        let now = self.shared.clock.now();
        let steps: &[UpkeepStep] = if self.disk.is_full() { &MAKING_ROOM } else { &UPKEEP };
        let mut more = false;
        for step in steps {
            match step(self, now).and_then(|again| self.truncate_log().map(|()| again)) {
                Ok(again) => more |= again,
                Err(error) => {
                    self.unsure = true;
                    self.disk.failed("the journal's upkeep failed; trying again", &error);
                    return false;
                }
            }
        }
        more
    }

    /// What was deleted stands in the write-ahead log first: on a full disk its end frees room for more.
    fn truncate_log(&self) -> rusqlite::Result<()> {
        if !self.disk.is_full() || self.checkpoints.wal_bytes() == 0 {
            return Ok(());
        }
        self.connection.busy_timeout(READERS)?;
        let done = checkpoint(&self.connection, "TRUNCATE");
        self.connection.busy_timeout(sqlite::BUSY_TIMEOUT)?;
        done
    }

    /// Goes through a log that was kept under other rules, once.
    fn look_through(&mut self, now: Millis) -> rusqlite::Result<bool> {
        let Some(after) = self.upkeep.looked_through.filter(|_| self.shared.clock.is_settled())
        else {
            return Ok(false);
        };
        let firsts: Vec<Offset> = self
            .connection
            .prepare_cached("SELECT first FROM blocks WHERE first > ? ORDER BY first LIMIT ?")?
            .query_map(params![after, STEP], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for first in &firsts {
            self.trim_old(*first, now)?;
            self.upkeep.looked_through = Some(*first);
        }
        if firsts.is_empty() {
            let rules = self.shared.rules.fingerprint();
            self.connection.execute("UPDATE meta SET value = ? WHERE key = 'rules'", [rules])?;
            self.upkeep.looked_through = None;
        }
        Ok(!firsts.is_empty())
    }

    fn trim_expired(&mut self, now: Millis) -> rusqlite::Result<bool> {
        if !self.shared.clock.is_settled() {
            return Ok(false);
        }
        let firsts: Vec<Offset> = self
            .connection
            .prepare_cached("SELECT first FROM blocks WHERE expires <= ? ORDER BY expires LIMIT ?")?
            .query_map(params![now.min(i64::MAX as u64), STEP], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for first in &firsts {
            self.trim_old(*first, now)?;
        }
        Ok(firsts.len() == STEP)
    }

    fn trim_old(&mut self, first: Offset, now: Millis) -> rusqlite::Result<u64> {
        self.trim(first, |rule_age, _, record| record.received().saturating_add(rule_age) > now)
    }

    /// Above the size of the whole, the oldest blocks go, but never the newest event.
    fn trim_total(&mut self, _: Millis) -> rusqlite::Result<bool> {
        for _ in 0..STEP {
            let most = self.shared.config.max_bytes.0;
            if self.stored_bytes <= most {
                return Ok(false);
            }
            let oldest: Vec<(Offset, Offset, u64)> = self
                .connection
                .prepare_cached("SELECT first, last, raw_bytes FROM blocks ORDER BY first LIMIT 2")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<_, _>>()?;
            match *oldest {
                [(first, ..), _] => self.trim(first, |_, _, _| false)?,
                // Of the only block, about as much as is too much.
                [(first, last, raw)] if first < last => {
                    let surplus = self.stored_bytes - most;
                    let share =
                        u128::from(raw) * u128::from(surplus) / u128::from(self.stored_bytes);
                    let mut left = (share as u64).max(1);
                    self.trim(first, |_, _, record| {
                        let is_kept = left == 0 || record.offset() == last;
                        left = left.saturating_sub(record.json().len() as u64);
                        is_kept
                    })?
                }
                _ => return Ok(false),
            };
        }
        Ok(true)
    }

    /// Above the size a rule gives each of its topics, that topic's oldest records go, no more of them than
    /// needed and never the newest.
    fn trim_topics(&mut self, _: Millis) -> rusqlite::Result<bool> {
        let shared = self.shared.clone();
        if shared.rules.0.iter().all(|rule| rule.max_bytes.is_none()) {
            return Ok(false);
        }
        let over: Vec<(TopicId, u64, Offset)> = {
            let topics = shared.topics.read();
            let surplus = |(id, state): (TopicId, &TopicState)| {
                let most = shared.rules.0.get(state.rule).and_then(|rule| rule.max_bytes)?;
                let surplus = state.info.bytes.checked_sub(most).filter(|surplus| *surplus > 0)?;
                (state.info.events > 1).then_some((id, surplus, state.info.last_offset))
            };
            topics.iter().filter_map(surplus).take(TOPICS_STEP).collect()
        };
        // A block is written once for all topics that begin in it.
        let mut blocks: BTreeMap<Offset, HashMap<TopicId, (u64, Offset)>> = BTreeMap::new();
        for (id, surplus, newest) in over {
            let oldest: Option<Offset> = self
                .connection
                .prepare_cached("SELECT min(first) FROM block_topics WHERE topic_id = ?")?
                .query_row([id], |row| row.get(0))?;
            if let Some(oldest) = oldest {
                blocks.entry(oldest).or_default().insert(id, (surplus, newest));
            }
        }
        let mut gone = 0;
        for (first, mut topics) in blocks.into_iter().take(STEP) {
            gone += self.trim(first, |_, topic, record| {
                let Some((surplus, newest)) = topics.get_mut(&topic) else { return true };
                let is_kept = *surplus == 0 || record.offset() == *newest;
                *surplus = surplus.saturating_sub(record.json().len() as u64);
                is_kept
            })?;
        }
        Ok(gone > 0)
    }

    /// Rewrites or deletes the block at `first` so that it holds only what `keep` says, asked in order; how many
    /// events went.
    fn trim(
        &mut self,
        first: Offset,
        mut keep: impl FnMut(Millis, TopicId, &Record<'_>) -> bool,
    ) -> rusqlite::Result<u64> {
        let shared = self.shared.clone();
        let (codec, body, last): (i64, Vec<u8>, Offset) = self
            .connection
            .prepare_cached("SELECT codec, body, last FROM blocks WHERE first = ?")?
            .query_row([first], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let freed = body.len() as u64;
        let (gone, kept) = match codec::decode(codec, body) {
            Ok(block) => {
                let topics = shared.topics.read();
                let id_of = |topic: &str| topics.id(topic);
                let mut kept = BlockBuilder::default();
                let mut gone = BlockBuilder::default();
                for record in block.records() {
                    let Some(id) = id_of(record.topic()) else {
                        let (topic, offset) = (record.topic(), record.offset());
                        tracing::error!(topic, offset, "an event of an unknown topic is dropped");
                        continue;
                    };
                    let rule = topics.get(id).map_or(0, |state| state.rule);
                    let builder = if keep(shared.rules.max_age(rule), id, &record) {
                        &mut kept
                    } else {
                        &mut gone
                    };
                    builder.push_record(record);
                }
                (amounts(&gone.finish(), id_of)?, kept.finish())
            }
            Err(error) => {
                tracing::error!(%error, first, last, "a damaged block is dropped");
                (self.amounts_on_file(first, last)?, BlockBuilder::default().finish())
            }
        };
        let mut topics = shared.topics.write();
        for (id, amount) in &gone {
            topics.raise_trimmed(*id, amount.last_offset);
        }
        drop(topics);
        let added = self.replace_block(first, &gone, &kept)?;
        if !gone.is_empty() {
            shared.front.lock().ring.forget(last);
        }
        let mut topics = shared.topics.write();
        for (id, amount) in &gone {
            topics.subtract(*id, *amount);
        }
        self.stored_bytes = (self.stored_bytes + added).saturating_sub(freed);
        Ok(gone.iter().map(|(_, amount)| amount.events).sum())
    }

    fn replace_block(
        &mut self,
        first: Offset,
        gone: &[(TopicId, Amount)],
        kept: &Block,
    ) -> rusqlite::Result<u64> {
        let shared = self.shared.clone();
        let transaction = self.connection.unchecked_transaction()?;
        let topics = shared.topics.read();
        let id_of = |topic: &str| topics.id(topic);
        let rule_of = |id: TopicId| topics.get(id).map_or(0, |state| state.rule);
        let remaining = amounts(kept, id_of)?;
        let mut delete = transaction
            .prepare_cached("DELETE FROM block_topics WHERE topic_id = ? AND first = ?")?;
        for (id, _) in gone.iter().chain(&remaining) {
            delete.execute(params![id, first])?;
        }
        drop(delete);
        transaction.prepare_cached("DELETE FROM blocks WHERE first = ?")?.execute([first])?;
        for (id, amount) in gone {
            transaction
                .prepare_cached(
                    "UPDATE topics SET trimmed_through = max(trimmed_through, ?) WHERE id = ?",
                )?
                .execute(params![amount.last_offset, id])?;
        }
        let mut added = 0;
        if !kept.is_empty() {
            let (codec, body) = self.compressor.encode(kept).map_err(to_sqlite)?;
            added = body.len() as u64;
            let expires = expires(&shared.rules, rule_of, &remaining);
            put_block(&transaction, kept, codec, &body, expires)?;
            insert_topics(&transaction, kept.first(), &remaining)?;
        }
        drop(topics);
        transaction.commit()?;
        self.checkpoints.wrote(4096 + added);
        Ok(added)
    }

    /// What the file says a damaged block held; slow, and never needed while disks are well.
    fn amounts_on_file(
        &self,
        first: Offset,
        last: Offset,
    ) -> rusqlite::Result<Vec<(TopicId, Amount)>> {
        self.connection
            .prepare("SELECT topic_id, events, bytes FROM block_topics WHERE first = ?")?
            .query_map([first], |row| {
                let amount = Amount {
                    events: row.get(1)?,
                    bytes: row.get(2)?,
                    last_offset: last,
                    last_received: 0,
                };
                Ok((row.get(0)?, amount))
            })?
            .collect()
    }

    /// Above the number of keys a topic may have in `latest`, those that changed longest ago go.
    fn cap_latest(&mut self, _: Millis) -> rusqlite::Result<bool> {
        let most = self.shared.config.latest_keys;
        for id in std::mem::take(&mut self.upkeep.touched) {
            let count: usize = self
                .connection
                .prepare_cached("SELECT count(*) FROM latest WHERE topic_id = ?")?
                .query_row([id], |row| row.get(0))?;
            if count > most {
                // A tenth more than needed, so that a topic at its limit does not pay every time.
                let surplus = count - most + most / 10;
                self.connection
                    .prepare_cached(
                        "DELETE FROM latest WHERE topic_id = ?1 AND offset IN (SELECT offset
                             FROM latest WHERE topic_id = ?1 ORDER BY offset LIMIT ?2)",
                    )?
                    .execute(params![id, surplus])?;
                self.shared.telemetry.hit(Limit::LatestKeys);
            }
        }
        Ok(false)
    }

    /// Gives the pages of what was trimmed back to the file system.
    fn vacuum(&mut self, _: Millis) -> rusqlite::Result<bool> {
        let free: u32 = self.connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free < 4 * VACUUM_PAGES && !(self.disk.is_full() && free > 0) {
            return Ok(false); // the next commits will use them
        }
        let mut vacuum = self
            .connection
            .prepare_cached(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        Ok(true)
    }
}
