//! Finding blocks in the file: by offset, or by the topics they hold.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::topics::TopicId;
use crate::{broker::codec, event::Block, position::Offset};

/// A block's first and last offset and its number of events: no two versions of a block are alike.
pub(super) type Ends = (Offset, Offset, u64);

/// All blocks above `after`, for the writer to announce what it could not be sure of.
pub(super) fn blocks_after(
    connection: &Connection,
    after: Offset,
) -> rusqlite::Result<Vec<Arc<Block>>> {
    let mut select =
        connection.prepare("SELECT codec, body FROM blocks WHERE first > ? ORDER BY first")?;
    let mut rows = select.query([after])?;
    let mut blocks = Vec::new();
    while let Some(row) = rows.next()? {
        match codec::decode(row.get(0)?, row.get(1)?) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error) => tracing::error!(%error, "a block is damaged"),
        }
    }
    Ok(blocks)
}

pub(super) fn ends(row: &rusqlite::Row<'_>) -> rusqlite::Result<Ends> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// The first block with an offset above `after`.
pub(super) fn next_block(connection: &Connection, after: Offset) -> rusqlite::Result<Option<Ends>> {
    connection
        .prepare_cached(
            "SELECT first, last, events FROM blocks WHERE last > ?1 AND first >=
                 coalesce((SELECT max(first) FROM blocks WHERE first <= ?1), 0)
             ORDER BY first LIMIT 1",
        )?
        .query_row([after], ends)
        .optional()
}

/// The last block that begins below `before`.
pub(super) fn previous_block(
    connection: &Connection,
    before: Offset,
) -> rusqlite::Result<Option<Ends>> {
    connection
        .prepare_cached(
            "SELECT first, last, events FROM blocks WHERE first < ? ORDER BY first DESC LIMIT 1",
        )?
        .query_row([before], ends)
        .optional()
}

/// The first block above `after` that holds one of the topics.
pub(super) fn next_with_topics(
    connection: &Connection,
    ids: &[TopicId],
    after: Offset,
) -> rusqlite::Result<Option<Ends>> {
    let mut select = connection.prepare_cached(
        "SELECT min(first) FROM block_topics WHERE topic_id = ?1 AND last > ?2 AND first >=
             coalesce((SELECT max(first) FROM block_topics WHERE topic_id = ?1 AND first <= ?2), 0)",
    )?;
    let mut first: Option<Offset> = None;
    for id in ids {
        let found: Option<Offset> = select.query_row(params![id, after], |row| row.get(0))?;
        first = [first, found].into_iter().flatten().min();
    }
    find_block(connection, first)
}

/// The last block that begins below `before` and holds one of the topics.
pub(super) fn previous_with_topics(
    connection: &Connection,
    ids: &[TopicId],
    before: Offset,
) -> rusqlite::Result<Option<Ends>> {
    let mut select = connection
        .prepare_cached("SELECT max(first) FROM block_topics WHERE topic_id = ? AND first < ?")?;
    let mut first: Option<Offset> = None;
    for id in ids {
        let found: Option<Offset> = select.query_row(params![id, before], |row| row.get(0))?;
        first = first.max(found);
    }
    find_block(connection, first)
}

fn find_block(connection: &Connection, first: Option<Offset>) -> rusqlite::Result<Option<Ends>> {
    let Some(first) = first else { return Ok(None) };
    connection
        .prepare_cached("SELECT first, last, events FROM blocks WHERE first = ?")?
        .query_row([first], ends)
        .optional()
}
