//! The rows of a block in the file: the block itself, and which topics it holds.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::{
    config::RetentionRules,
    topics::{Amount, TopicId},
};
use crate::{broker::codec::Compressor, event::Block, position::Offset, time::Millis};

/// How much of each topic a block holds; an error for a topic that has no number, for no other may
/// stand in for it: it would get losses that are not its own.
pub(super) fn amounts(
    block: &Block,
    id_of: impl Fn(&str) -> Option<TopicId>,
) -> rusqlite::Result<Vec<(TopicId, Amount)>> {
    let mut by_topic: HashMap<&str, Amount> = HashMap::new();
    for record in block.records() {
        let amount = by_topic.entry(record.topic()).or_default();
        amount.events += 1;
        amount.bytes += record.json().len() as u64;
        amount.last_offset = record.offset();
        amount.last_received = record.received();
    }
    let numbered = |(topic, amount)| Ok((id_of(topic).ok_or_else(|| unknown(topic))?, amount));
    by_topic.into_iter().map(numbered).collect()
}

/// A block names a topic that the table of topics does not have.
pub(super) fn unknown(topic: &str) -> rusqlite::Error {
    to_sqlite(std::io::Error::other(format!("the topic {topic:?} is in no table of topics")))
}

/// When retention has to look at a block: when all it holds under one rule is past that rule's age.
pub(super) fn expires(
    rules: &RetentionRules,
    rule_of: impl Fn(TopicId) -> usize,
    amounts: &[(TopicId, Amount)],
) -> Millis {
    let mut last_of_rule: HashMap<usize, Millis> = HashMap::new();
    for (id, amount) in amounts {
        let last = last_of_rule.entry(rule_of(*id)).or_default();
        *last = (*last).max(amount.last_received);
    }
    let expiry = |(rule, last): (usize, Millis)| last.saturating_add(rules.max_age(rule));
    // SQLite's integers are signed.
    last_of_rule.into_iter().map(expiry).min().unwrap_or(0).min(i64::MAX as u64)
}

/// Writes a block's rows, which are to be looked at when it `expires`; how many bytes its body has.
pub(super) fn write_block(
    connection: &Connection,
    compressor: &mut Compressor,
    block: &Block,
    amounts: &[(TopicId, Amount)],
    expires: Millis,
) -> rusqlite::Result<u64> {
    let (codec, body) = compressor.encode(block).map_err(to_sqlite)?;
    put_block(connection, block, codec, &body, expires)?;
    insert_topics(connection, block.first(), amounts)?;
    Ok(body.len() as u64)
}

/// Deletes the rows of the block at `first`, which holds these topics.
pub(super) fn delete_block(
    connection: &Connection,
    first: Offset,
    topics: impl Iterator<Item = TopicId>,
) -> rusqlite::Result<()> {
    let mut delete =
        connection.prepare_cached("DELETE FROM block_topics WHERE topic_id = ? AND first = ?")?;
    for topic in topics {
        delete.execute(params![topic, first])?;
    }
    connection.prepare_cached("DELETE FROM blocks WHERE first = ?")?.execute([first])?;
    Ok(())
}

fn put_block(
    connection: &Connection,
    block: &Block,
    codec: i64,
    body: &[u8],
    expires: Millis,
) -> rusqlite::Result<()> {
    let received = |record: Option<crate::event::Record<'_>>| record.map_or(0, |r| r.received());
    connection
        .prepare_cached(
            "INSERT INTO blocks(first, last, first_received, last_received, expires, events,
                 raw_bytes, codec, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            block.first(),
            block.last(),
            received(block.records().next()),
            received(block.records().next_back()),
            expires,
            block.len(),
            block.bytes(),
            codec,
            body
        ])?;
    Ok(())
}

fn insert_topics(
    connection: &Connection,
    first: Offset,
    amounts: &[(TopicId, Amount)],
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO block_topics(topic_id, first, last, last_received, events, bytes)
         VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for (id, amount) in amounts {
        let Amount { events, bytes, last_offset, last_received } = amount;
        insert.execute(params![id, first, last_offset, last_received, events, bytes])?;
    }
    Ok(())
}

fn to_sqlite(error: std::io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}
