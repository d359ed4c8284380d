//! Reading what memory no longer holds, on a few connections of their own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use quick_cache::{Weighter, unsync::Cache};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    JournalShared,
    block_search::{
        Ends, ends, next_block, next_with_topics, previous_block, previous_with_topics,
    },
    topics::{PIECE, TopicId},
};
use crate::{
    broker::{
        LogChunk, NewestStretch, ReadError, TopicInfo, codec,
        latest::{LatestPlace, LatestSearch},
        look_back::{LookBack, Looked},
    },
    event::Block,
    position::Offset,
    sqlite,
    time::Millis,
    topic::{Topic, TopicFilter},
};

/// Idle connections kept for the next reader.
const CONNECTIONS: usize = 4;
/// Decoded blocks shared by readers.
const CACHE_BYTES: u64 = 32 << 20;
/// The estimated number of cached blocks; it only sizes the table.
const CACHED_BLOCKS: usize = 256;
/// Filters with at most so many topics find their blocks by topic, others by reading all.
const FEW_TOPICS: usize = 32;

pub(super) struct Readers {
    shared: Arc<JournalShared>,
    path: PathBuf,
    /// Held to take or give back a connection.
    idle: Mutex<Vec<Connection>>,
    /// Held to look up or add a block.
    cache: Mutex<Cache<Ends, Arc<Block>, BlockBytes>>,
}

/// A block that is no block any more.
struct Damaged;

impl Readers {
    pub(super) fn new(shared: Arc<JournalShared>, path: &Path) -> rusqlite::Result<Self> {
        let first = sqlite::open_read_only(path)?;
        Ok(Self {
            shared,
            path: path.to_owned(),
            idle: Mutex::new(vec![first]),
            cache: Mutex::new(Cache::with_weighter(CACHED_BLOCKS, CACHE_BYTES, BlockBytes)),
        })
    }

    pub(super) fn read(
        &self,
        after: Offset,
        until: Offset,
        filter: &TopicFilter,
        budget: usize,
    ) -> Result<LogChunk, ReadError> {
        let few = self.shared.topics.read().matching(filter, FEW_TOPICS);
        let mut chunk = self.with(|connection| {
            let mut chunk = LogChunk::empty(after);
            let mut bytes = 0;
            while bytes < budget {
                let next = match &few {
                    Some(ids) => next_with_topics(connection, ids, chunk.reached)?,
                    None => next_block(connection, chunk.reached)?,
                };
                let Some(ends) = next.filter(|(first, ..)| *first <= until) else {
                    chunk.reached = until;
                    break;
                };
                match self.block(connection, ends)? {
                    Ok(block) => {
                        bytes += block.bytes();
                        chunk.reached = ends.1.min(until);
                        chunk.blocks.push(block);
                    }
                    // Said as a gap when it is next; what was read before it counts.
                    Err(Damaged) if chunk.blocks.is_empty() => {
                        chunk.reached = ends.1;
                        chunk.trimmed_through = ends.1;
                        break;
                    }
                    Err(Damaged) => break,
                }
                if chunk.reached >= until {
                    break;
                }
            }
            Ok(chunk)
        })?;
        // After reading: what retention took meanwhile was raised before it vanished.
        let trimmed = self.trimmed_through(filter, after);
        if trimmed > after {
            chunk.trimmed_through = chunk.trimmed_through.max(trimmed);
        }
        Ok(chunk)
    }

    /// Goes on where a search in memory has come to.
    pub(super) fn newest(
        &self,
        mut back: LookBack,
        budget: usize,
    ) -> Result<NewestStretch, ReadError> {
        loop {
            match back.through(self.shared.front.piece(&back)) {
                Looked::Found(after) => return Ok(back.stretch(after, false)),
                Looked::More => {}
                Looked::End(0) => return Ok(back.stretch(0, false)),
                Looked::End(_) => break,
            }
        }
        let few = {
            let topics = self.shared.topics.read();
            let few = topics.matching(&back.filter, FEW_TOPICS);
            if few.is_none() {
                // Of topics that have been quiet, everything lies before their newest event.
                back.until = back.until.min(topics.last_offset(&back.filter).unwrap_or(back.until));
                back.before = back.before.min(back.until + 1);
            }
            few
        };
        let (after, is_cut) = self.with(|connection| {
            let mut bytes = 0;
            while bytes < budget {
                let previous = match &few {
                    Some(ids) => previous_with_topics(connection, ids, back.before)?,
                    None => previous_block(connection, back.before)?,
                };
                let Some(ends) = previous else { return Ok((0, false)) };
                let Ok(block) = self.block(connection, ends)? else {
                    // It may have matched; whoever reads it is told.
                    back.first = back.first.min(ends.0);
                    return Ok((ends.0 - 1, false));
                };
                if let Some(after) = back.take(&block) {
                    return Ok((after, false));
                }
                bytes += block.bytes();
            }
            Ok((back.before - 1, true))
        })?;
        Ok(back.stretch(after.min(back.until), is_cut))
    }

    /// The last offset above `after` that was lost to the filter.
    pub(super) fn trimmed_through(&self, filter: &TopicFilter, after: Offset) -> Offset {
        let topics = &self.shared.topics;
        if let Some(lost) = topics.read().lost(filter, after) {
            return lost;
        }
        let (mut highest, mut next) = topics.read().lost_piece(filter, "");
        while let Some(behind) = next {
            let lost;
            (lost, next) = topics.read().lost_piece(filter, behind.as_str());
            highest = highest.max(lost);
        }
        highest
    }

    /// What is known of some topics.
    pub(super) fn infos(&self, topics: &[Topic]) -> Vec<TopicInfo> {
        let pieces = topics.chunks(PIECE);
        pieces.flat_map(|piece| self.shared.topics.read().infos(piece)).collect()
    }

    pub(super) fn locate_since(&self, time: Millis, until: Offset) -> Result<Offset, ReadError> {
        let located = self.with(|connection| {
            let found = connection
                .prepare_cached(
                    "SELECT first, last, events FROM blocks WHERE last_received >= ?
                     ORDER BY last_received, first LIMIT 1",
                )?
                .query_row([time.min(i64::MAX as u64)], ends)
                .optional()?;
            let Some(found) = found else { return Ok(until) };
            let Ok(block) = self.block(connection, found)? else { return Ok(found.0 - 1) };
            let first = block.records().find(|record| record.received() >= time);
            Ok(first.map_or(found.1, |record| record.offset() - 1))
        })?;
        Ok(located.min(until))
    }

    pub(super) fn search_latest(
        &self,
        filter: &TopicFilter,
        mut search: LatestSearch,
    ) -> Result<LatestSearch, ReadError> {
        let after = search.bounds().0;
        let topics = &self.shared.topics;
        let (mut piece, mut next) = topics.read().latest_piece(filter, "", after);
        loop {
            self.with(|connection| search_topics(connection, &piece, &mut search))?;
            let Some(behind) = next else { return Ok(search) };
            (piece, next) = topics.read().latest_piece(filter, behind.as_str(), after);
        }
    }

    pub(super) fn latest_at(&self, places: &[LatestPlace]) -> Result<Vec<Arc<Block>>, ReadError> {
        let ids: Vec<_> = {
            let topics = self.shared.topics.read();
            places.iter().map(|place| topics.id(place.topic.as_str())).collect()
        };
        self.with(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT record FROM latest WHERE topic_id = ? AND key = ? AND offset = ?",
            )?;
            let mut found = Vec::new();
            for (place, id) in places.iter().zip(ids) {
                let Some(id) = id else { continue };
                let stored: Option<Vec<u8>> = select
                    .query_row(params![id, place.key, place.offset], |row| row.get(0))
                    .optional()?;
                found.extend(stored.and_then(|stored| newest(stored, &place.topic)));
            }
            Ok(found)
        })
    }

    fn block(
        &self,
        connection: &Connection,
        ends: Ends,
    ) -> rusqlite::Result<Result<Arc<Block>, Damaged>> {
        if let Some(block) = self.cache.lock().get(&ends) {
            return Ok(Ok(block.clone()));
        }
        let (codec, body) = connection
            .prepare_cached("SELECT codec, body FROM blocks WHERE first = ?")?
            .query_row([ends.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
        match codec::decode(codec, body) {
            Ok(block) => {
                let block = Arc::new(block);
                self.cache.lock().insert(ends, block.clone());
                Ok(Ok(block))
            }
            Err(error) => {
                tracing::error!(%error, first = ends.0, last = ends.1, "a block is damaged");
                Ok(Err(Damaged))
            }
        }
    }

    /// Runs `read` in one read transaction, so that what is merged, trimmed or replaced
    /// meanwhile is seen as it was at one moment.
    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let failed = |error: rusqlite::Error| ReadError(error.to_string());
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => sqlite::open_read_only(&self.path).map_err(failed)?,
        };
        connection.execute_batch("BEGIN").map_err(failed)?;
        let result = read(&connection).map_err(failed);
        connection.execute_batch("COMMIT").map_err(failed)?;
        let mut idle = self.idle.lock();
        if idle.len() < CONNECTIONS {
            idle.push(connection);
        }
        result
    }
}

/// Takes in the newest values of some topics.
fn search_topics(
    connection: &Connection,
    topics: &[(TopicId, Topic)],
    search: &mut LatestSearch,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare_cached(
        "SELECT offset, key, length(record), record FROM latest
         WHERE topic_id = ? AND offset > ? AND offset <= ?",
    )?;
    for (id, topic) in topics {
        let (after, until) = search.bounds();
        let mut rows = select.query(params![id, after, until.min(i64::MAX as u64)])?;
        while let Some(row) = rows.next()? {
            let offset = row.get(0)?;
            if !search.wants(offset) {
                continue;
            }
            let key: Vec<u8> = row.get(1)?;
            let place =
                LatestPlace { offset, topic: topic.clone(), key: key.into(), bytes: row.get(2)? };
            let value = match search.wants_values() {
                true => newest(row.get(3)?, topic),
                false => None,
            };
            search.take_in(place, value);
        }
    }
    Ok(())
}

/// A topic's newest value, as it is stored. Earlier versions may have left one of another topic under its number.
fn newest(stored: Vec<u8>, topic: &Topic) -> Option<Arc<Block>> {
    let read = Block::decode(stored.into()).map(Arc::new);
    let read = read.inspect_err(|error| tracing::error!(%error, "a newest value cannot be read"));
    read.ok().filter(|block| block.records().all(|record| record.topic() == topic.as_str()))
}

/// What a cached block weighs.
#[derive(Clone)]
struct BlockBytes;

impl Weighter<Ends, Arc<Block>> for BlockBytes {
    fn weight(&self, _: &Ends, block: &Arc<Block>) -> u64 {
        block.bytes() as u64
    }
}
