//! What the writer must know before it goes on: read from the file's tables, never from the events.

use rusqlite::Connection;

use super::{
    JournalConfig,
    config::RetentionRules,
    dedupe::{self, Dedupe},
    topics::{Amount, JournalTopics, TopicId},
};
use crate::{
    position::Offset,
    time::{Clock, Millis},
    topic::Topic,
};

/// What the file says at a moment when nobody writes to it.
pub(super) struct JournalState {
    pub(super) head: Offset,
    pub(super) received: Millis,
    pub(super) stored_bytes: u64,
    pub(super) topics: JournalTopics,
    pub(super) dedupe: Dedupe,
}

impl JournalState {
    pub(super) fn load(
        connection: &Connection,
        config: &JournalConfig,
        rules: &RetentionRules,
        mut dedupe: Dedupe,
        clock: &Clock,
    ) -> rusqlite::Result<Self> {
        let meta = |key: &str| -> rusqlite::Result<u64> {
            connection.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
        };
        let received = newest_received(connection)?;
        let stored_bytes = connection.query_row(
            "SELECT coalesce((SELECT sum(length(body)) FROM blocks), 0)",
            [],
            |row| row.get(0),
        )?;
        let mut topics = JournalTopics::default();
        topics.set_forgotten_through(meta("forgotten_through")?);
        let mut rows = connection.prepare("SELECT id, topic, trimmed_through FROM topics")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            let topic = Topic::parse(&name).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(
                    1,
                    rusqlite::types::Type::Text,
                    Box::new(error),
                )
            })?;
            topics.insert(row.get(0)?, topic, row.get(2)?, rules);
        }
        let mut rows = connection.prepare(
            "SELECT topic_id, sum(events), sum(bytes), max(last), max(last_received)
             FROM block_topics GROUP BY topic_id",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let amount = Amount {
                events: row.get(1)?,
                bytes: row.get(2)?,
                last_offset: row.get(3)?,
                last_received: row.get(4)?,
            };
            topics.add(row.get(0)?, amount);
        }
        if topics.len() - topics.reserved() >= config.max_topics {
            // Those without newest values were forgotten before; with the others retention forgets their values.
            let empty: Vec<_> = topics
                .iter()
                .filter(|(_, state)| state.info.events == 0 && !state.info.topic.is_reserved())
                .map(|(id, _)| id)
                .collect();
            for id in empty {
                if !has_newest(connection, id)? {
                    topics.forget(id);
                }
            }
        }
        // By a clock that is in doubt nothing is forgotten but what was old for the newest event.
        let now = if clock.is_settled() { clock.now() } else { received };
        let from = now.saturating_sub(dedupe.window());
        let mut rows = connection
            .prepare("SELECT received, hashes FROM ids WHERE received >= ? ORDER BY first")?;
        let mut rows = rows.query([from])?;
        while let Some(row) = rows.next()? {
            let (age, hashes): (Millis, Vec<u8>) = (now.saturating_sub(row.get(0)?), row.get(1)?);
            dedupe.remember(clock.elapsed().saturating_sub(age), &dedupe::decode(&hashes));
        }
        Ok(Self { head: meta("head")?, received, stored_bytes, topics, dedupe })
    }
}

/// When the newest event that is kept was received; 0 if there is none.
pub(super) fn newest_received(connection: &Connection) -> rusqlite::Result<Millis> {
    connection.query_row(
        "SELECT coalesce((SELECT last_received FROM blocks ORDER BY first DESC LIMIT 1), 0)",
        [],
        |row| row.get(0),
    )
}

/// Whether a topic has newest values on file.
pub(super) fn has_newest(connection: &Connection, topic: TopicId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM latest WHERE topic_id = ?)")?
        .query_row([topic], |row| row.get(0))
}
