//! Merging: quiet hours leave many small blocks, which become few.
//!
//! Readers ask by offset and never see a block's row, so that a merge between two reads is
//! invisible to them.

use rusqlite::{Connection, params};

use super::{
    block_rows::{amounts, delete_block, expires, write_block},
    file::JournalFile,
    schema::{BLOCK_BYTES, SMALL_BYTES},
};
use crate::{broker::codec, event::BlockBuilder, position::Offset, time::Millis};

/// So many neighbours of one tier make a merge worth its writing.
const RUN: usize = 32;
/// Small blocks looked at in one step.
const LOOK: usize = 512;
/// Blocks below this are the first tier; merged they reach the second, [`SMALL_BYTES`] and above stay.
const FIRST_TIER: i64 = 4 << 10;
/// A block spans at most this, so that retention, which trims by block, stays near its age.
const MAX_SPAN: Millis = 3_600_000;

#[derive(Clone, Copy)]
struct Small {
    first: Offset,
    last: Offset,
    from: Millis,
    to: Millis,
    bytes: i64,
}

/// How far merging has come.
#[derive(Default)]
pub(super) struct Merging {
    /// Small blocks up to here were looked at in vain.
    through: Offset,
}

impl Merging {
    /// Merges one run of small neighbours; true if it did.
    pub(super) fn merge(&mut self, file: &mut JournalFile) -> rusqlite::Result<bool> {
        let small: Vec<Small> = file
            .connection
            .prepare_cached(
                "SELECT first, last, first_received, last_received, raw_bytes FROM blocks
                 WHERE raw_bytes < 65536 AND first > ? ORDER BY first LIMIT ?",
            )?
            .query_map(params![self.through, LOOK], |row| {
                Ok(Small {
                    first: row.get(0)?,
                    last: row.get(1)?,
                    from: row.get(2)?,
                    to: row.get(3)?,
                    bytes: row.get(4)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        debug_assert!(small.iter().all(|block| block.bytes < SMALL_BYTES));
        let span = file.shared.rules.0.iter().map(|rule| rule.max_age / 8).fold(MAX_SPAN, Ord::min);
        let mut start = 0;
        while start < small.len() {
            let end = run_end(&file.connection, &small, start, span)?;
            if end - start >= RUN {
                merge_run(file, &small[start..end])?;
                return Ok(true);
            }
            start = end;
        }
        // Nothing here: the next look goes on behind, or begins again.
        let full = small.len() == LOOK;
        self.through = if full { small[LOOK / 2].first } else { 0 };
        Ok(false)
    }
}

/// Where the run of mergeable neighbours that begins at `start` ends.
fn run_end(
    connection: &Connection,
    small: &[Small],
    start: usize,
    span: Millis,
) -> rusqlite::Result<usize> {
    let first_tier = |block: &Small| block.bytes < FIRST_TIER;
    let begin = small[start];
    let mut bytes = begin.bytes;
    let mut end = start + 1;
    while let Some(block) = small.get(end) {
        bytes += block.bytes;
        // A block holds its times as steps forward: where the clock was put back, another begins.
        let fits = bytes <= BLOCK_BYTES as i64
            && block.from >= small[end - 1].to
            && block.to.saturating_sub(begin.from) <= span
            && first_tier(block) == first_tier(&begin)
            && end - start < RUN;
        if !fits || !are_neighbours(connection, small[end - 1].last, block.first)? {
            break;
        }
        end += 1;
    }
    Ok(end)
}

fn are_neighbours(connection: &Connection, last: Offset, first: Offset) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM blocks WHERE first > ? AND first < ?)")?
        .query_row(params![last, first], |row| row.get(0))
}

fn merge_run(file: &mut JournalFile, run: &[Small]) -> rusqlite::Result<()> {
    let shared = file.shared.clone();
    let transaction = file.connection.unchecked_transaction()?;
    let topics = shared.topics.read();
    let id_of = |topic: &str| topics.id(topic);
    let mut merged = BlockBuilder::default();
    let mut freed = 0;
    for small in run {
        let (codec, body): (i64, Vec<u8>) = transaction
            .prepare_cached("SELECT codec, body FROM blocks WHERE first = ?")?
            .query_row([small.first], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let size = body.len() as u64;
        let block = codec::decode(codec, body).ok();
        let held = block.as_ref().and_then(|block| amounts(block, id_of).ok());
        let (Some(block), Some(held)) = (block, held) else {
            // A damaged block, or one of a topic that there is not, stays what it is, and so do those before
            // it, whose rows are gone already in this transaction; retention drops it.
            transaction.rollback()?;
            file.connection.execute(
                "UPDATE blocks SET raw_bytes = ? WHERE first = ?",
                params![SMALL_BYTES, small.first],
            )?;
            return Ok(());
        };
        freed += size;
        delete_block(&transaction, small.first, held.iter().map(|(id, _)| *id))?;
        block.records().for_each(|record| merged.push_record(record));
    }
    let merged = merged.finish();
    let held = amounts(&merged, id_of)?;
    let expires = expires(&shared.rules, |id| topics.rule_of(id), &held);
    let added = write_block(&transaction, &mut file.compressor, &merged, &held, expires)?;
    drop(topics);
    transaction.commit()?;
    file.wrote(added, freed);
    Ok(())
}
