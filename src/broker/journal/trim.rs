//! Retention: what is too old or too much is trimmed, block by block.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, params};

use super::{
    block_rows::{amounts, delete_block, expires, write_block},
    file::JournalFile,
    topics::{Amount, TopicId, TopicState},
};
use crate::{
    broker::codec,
    event::{Block, BlockBuilder, Record},
    position::Offset,
    time::Millis,
};

/// Blocks looked at in one step.
const STEP: usize = 16;
/// Topics above their size looked at in one step.
const TOPICS_STEP: usize = 1000;

/// How far a log has come that was kept under other rules.
pub(super) struct Trimming {
    /// Blocks up to here were looked at under these rules; None if all were kept under them.
    pub(super) looked_through: Option<Offset>,
}

impl Trimming {
    /// Goes through a log that was kept under other rules, once.
    pub(super) fn look_through(
        &mut self,
        file: &mut JournalFile,
        now: Millis,
    ) -> rusqlite::Result<bool> {
        let Some(after) = self.looked_through.filter(|_| file.shared.clock.is_settled()) else {
            return Ok(false);
        };
        let firsts: Vec<Offset> = file
            .connection
            .prepare_cached("SELECT first FROM blocks WHERE first > ? ORDER BY first LIMIT ?")?
            .query_map(params![after, STEP], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for first in &firsts {
            trim_old(file, *first, now)?;
            self.looked_through = Some(*first);
        }
        if firsts.is_empty() {
            let rules = file.shared.rules.fingerprint();
            file.connection.execute("UPDATE meta SET value = ? WHERE key = 'rules'", [rules])?;
            self.looked_through = None;
        }
        Ok(!firsts.is_empty())
    }
}

/// What is past its age goes.
pub(super) fn trim_expired(file: &mut JournalFile, now: Millis) -> rusqlite::Result<bool> {
    if !file.shared.clock.is_settled() {
        return Ok(false);
    }
    let firsts: Vec<Offset> = file
        .connection
        .prepare_cached("SELECT first FROM blocks WHERE expires <= ? ORDER BY expires LIMIT ?")?
        .query_map(params![now.min(i64::MAX as u64), STEP], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for first in &firsts {
        trim_old(file, *first, now)?;
    }
    Ok(firsts.len() == STEP)
}

fn trim_old(file: &mut JournalFile, first: Offset, now: Millis) -> rusqlite::Result<u64> {
    trim(file, first, |rule_age, _, record| record.received().saturating_add(rule_age) > now)
}

/// Above the size of the whole, the oldest blocks go, but never the newest event.
pub(super) fn trim_total(file: &mut JournalFile) -> rusqlite::Result<bool> {
    for _ in 0..STEP {
        let most = file.shared.config.max_bytes.0;
        if file.stored_bytes <= most {
            return Ok(false);
        }
        let oldest: Vec<(Offset, Offset, u64)> = file
            .connection
            .prepare_cached("SELECT first, last, raw_bytes FROM blocks ORDER BY first LIMIT 2")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        match *oldest {
            [(first, ..), _] => trim(file, first, |_, _, _| false)?,
            // Of the only block, about as much as is too much.
            [(first, last, raw)] if first < last => {
                let surplus = file.stored_bytes - most;
                let share = u128::from(raw) * u128::from(surplus) / u128::from(file.stored_bytes);
                let mut left = (share as u64).max(1);
                trim(file, first, |_, _, record| {
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
pub(super) fn trim_topics(file: &mut JournalFile) -> rusqlite::Result<bool> {
    let shared = file.shared.clone();
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
        let oldest: Option<Offset> = file
            .connection
            .prepare_cached("SELECT min(first) FROM block_topics WHERE topic_id = ?")?
            .query_row([id], |row| row.get(0))?;
        if let Some(oldest) = oldest {
            blocks.entry(oldest).or_default().insert(id, (surplus, newest));
        }
    }
    let mut gone = 0;
    for (first, mut topics) in blocks.into_iter().take(STEP) {
        gone += trim(file, first, |_, topic, record| {
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
    file: &mut JournalFile,
    first: Offset,
    mut keep: impl FnMut(Millis, TopicId, &Record<'_>) -> bool,
) -> rusqlite::Result<u64> {
    let shared = file.shared.clone();
    let (codec, body, last): (i64, Vec<u8>, Offset) = file
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
                let rule = topics.rule_of(id);
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
            (amounts_on_file(&file.connection, first, last)?, BlockBuilder::default().finish())
        }
    };
    let mut topics = shared.topics.write();
    for (id, amount) in &gone {
        topics.raise_trimmed(*id, amount.last_offset);
    }
    drop(topics);
    replace_block(file, first, freed, &gone, &kept)?;
    if !gone.is_empty() {
        shared.front.lock().ring.forget(last);
    }
    let mut topics = shared.topics.write();
    for (id, amount) in &gone {
        topics.subtract(*id, *amount);
    }
    Ok(gone.iter().map(|(_, amount)| amount.events).sum())
}

/// Commits that the block at `first`, of `freed` bytes, has become what is kept of it.
fn replace_block(
    file: &mut JournalFile,
    first: Offset,
    freed: u64,
    gone: &[(TopicId, Amount)],
    kept: &Block,
) -> rusqlite::Result<()> {
    let shared = file.shared.clone();
    let transaction = file.connection.unchecked_transaction()?;
    let topics = shared.topics.read();
    let remaining = amounts(kept, |topic| topics.id(topic))?;
    delete_block(&transaction, first, gone.iter().chain(&remaining).map(|(id, _)| *id))?;
    for (id, amount) in gone {
        transaction
            .prepare_cached(
                "UPDATE topics SET trimmed_through = max(trimmed_through, ?) WHERE id = ?",
            )?
            .execute(params![amount.last_offset, id])?;
    }
    let mut added = 0;
    if !kept.is_empty() {
        let expires = expires(&shared.rules, |id| topics.rule_of(id), &remaining);
        added = write_block(&transaction, &mut file.compressor, kept, &remaining, expires)?;
    }
    drop(topics);
    transaction.commit()?;
    file.wrote(added, freed);
    Ok(())
}

/// What the file says a damaged block held; slow, and never needed while disks are well.
fn amounts_on_file(
    connection: &Connection,
    first: Offset,
    last: Offset,
) -> rusqlite::Result<Vec<(TopicId, Amount)>> {
    connection
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
