//! Reading what memory no longer holds, from the stream and the hashes beside it.

use std::{sync::Arc, time::Duration};

use super::{
    entry::StreamEntry, hellos::Hellos, progress::RedisProgress, stored::StoredLog,
    topic_cache::TopicCache, topics::RedisTopics,
};
use crate::{
    broker::{
        LogChunk, NewestStretch, ReadError, Resumption,
        look_back::{LookBack, Looked},
    },
    event::{Block, BlockBuilder},
    position::{Offset, Position},
    redis::RedisFailure,
    time::Millis,
    topic::TopicFilter,
};

/// Entries of one answer: few at first, for they may be large, then more while they are small. An
/// answer is held packed, and unpacked one after the other up to the budget.
const FIRST_COUNT: usize = 4;
const MOST_COUNT: usize = 64;
/// Bytes of an answer above which the next is not to have more entries.
const ANSWER: usize = 1 << 20;

impl From<RedisFailure> for ReadError {
    fn from(failure: RedisFailure) -> Self {
        Self(failure.to_string())
    }
}

/// Reads the log, in memory and in Redis.
pub(in crate::broker) struct RedisReader {
    pub(super) stored: Arc<StoredLog>,
    pub(super) progress: Arc<RedisProgress>,
    pub(super) topics: Arc<TopicCache>,
    pub(super) hellos: Arc<Hellos>,
    /// How long Redis may take for an answer.
    pub(super) patience: Duration,
}

impl RedisReader {
    /// Reads what lies above `after` up to `until`: blocks that hold all that matches `filter`,
    /// about `budget` bytes of them, at least one.
    pub(in crate::broker) async fn read(
        &self,
        after: Offset,
        until: Offset,
        filter: &TopicFilter,
        budget: usize,
    ) -> Result<LogChunk, ReadError> {
        if after >= until {
            return Ok(LogChunk::empty(until));
        }
        let loss = self.progress.front.lock().lineage.loss_above(after);
        let until = match loss {
            Some(loss) if after >= loss.shared => {
                let through = loss.to.offset;
                let lost_from = Some(loss.from);
                return Ok(LogChunk {
                    trimmed_through: through,
                    lost_from,
                    ..LogChunk::empty(through)
                });
            }
            Some(loss) => until.min(loss.shared),
            None => until,
        };
        let (mut chunk, hole) = match self.progress.front.read(after, until, budget) {
            Some(chunk) => (chunk, 0),
            None => self.read_stream(LogChunk::empty(after), until, budget).await?,
        };
        // After reading: what retention took from the stream meanwhile has left a hole.
        let trimmed_through = if hole > 0 {
            let topics = self.topics.of_now(filter).await?;
            if self.topics.trimmed() >= hole {
                self.topics.lost(&topics, filter, after).await?
            } else {
                hole // nobody said that this was trimmed: it may be anybody's
            }
        } else {
            self.topics.lost(&self.topics.of(filter).await?, filter, after).await?
        };
        if trimmed_through > after {
            let topics = self.topics.of(filter).await?;
            chunk.blocks = chunk.blocks.iter().filter_map(|block| kept(block, &topics)).collect();
            chunk.trimmed_through = trimmed_through;
        }
        Ok(chunk)
    }

    /// Adds to `chunk` what the stream holds above it; beside it the end of a hole that was met.
    async fn read_stream(
        &self,
        mut chunk: LogChunk,
        until: Offset,
        budget: usize,
    ) -> Result<(LogChunk, Offset), ReadError> {
        let (mut at, mut hole) = (chunk.reached, 0);
        let (mut bytes, mut count) = (0, FIRST_COUNT);
        while at < until && bytes < budget {
            let entries = self.stored.entries(&format!("({at}-0"), count).await?;
            let is_end = entries.len() < count;
            let mut answer = 0;
            for raw in entries {
                let entry = StreamEntry::read(raw)?;
                answer += entry.stored;
                if !self.joins(at, entry.before) {
                    hole = self.progress.front.lock().lineage.backward(entry.before);
                }
                if entry.before >= until {
                    at = until;
                    break;
                }
                if !self.progress.front.lock().lineage.holds(entry.epoch, entry.block.last()) {
                    return Err(ReadError("Redis holds another history of the log".to_owned()));
                }
                at = entry.block.last();
                bytes += entry.block.bytes();
                chunk.blocks.push(entry.block);
                if at >= until || bytes >= budget {
                    break;
                }
            }
            if is_end && at < until && bytes < budget {
                if !self.joins(at, until) {
                    hole = until; // the end of the log was there once
                }
                at = until;
            }
            count = next_count(count, answer);
        }
        chunk.reached = at.min(until);
        Ok((chunk, hole))
    }

    fn joins(&self, at: Offset, before: Offset) -> bool {
        // An entry may begin before where we are.
        before <= at || self.progress.front.lock().lineage.joins(at, before)
    }

    /// Goes on with a search for the last that match, through memory and then about `budget` bytes of the stream.
    pub(in crate::broker) async fn newest(
        &self,
        mut back: LookBack,
        budget: usize,
    ) -> Result<NewestStretch, ReadError> {
        let from = loop {
            match back.through(self.progress.front.piece(&back)) {
                Looked::Found(after) => return Ok(back.stretch(after, false)),
                Looked::End(from) => break from,
                Looked::More => tokio::task::yield_now().await,
            }
        };
        let few = self.topics.few(&back.filter).await?;
        // Of topics that have been quiet, everything lies before their newest event.
        let last = few.as_ref().map_or(back.until, |topics| topics.last_offset(&back.filter));
        back.until = back.until.min(last);
        let mut oldest = from.min(back.until);
        let mut end = format!("{oldest}-0");
        if oldest < from {
            // An entry may hold it and later ones.
            if let Some(holds) = self.stored.entry(&end).await? {
                end = format!("{}-0", holds.block.last());
            }
        }
        // Of topics with few events, all are found long before the log's beginning.
        let kept = few.map_or(u64::MAX, |topics| topics.events(&back.filter));
        let mut kept = kept.saturating_sub((back.wanted - back.left) as u64);
        let (mut bytes, mut pages) = (0, FIRST_COUNT);
        while kept > 0 && bytes < budget {
            let entries = self.stored.entries_back(&end, pages).await?;
            if entries.is_empty() {
                (oldest, kept) = (0, 0);
                break;
            }
            let mut answer = 0;
            for raw in entries {
                let entry = StreamEntry::read(raw)?;
                let left = back.left;
                if let Some(after) = back.take(&entry.block) {
                    return Ok(back.stretch(after, false));
                }
                kept = kept.saturating_sub((left - back.left) as u64);
                answer += entry.stored;
                // The first may lie beyond a hole, and then nothing was looked through yet.
                if entry.before < oldest {
                    bytes += entry.block.bytes();
                    oldest = entry.before;
                }
                if kept == 0 || bytes >= budget {
                    break;
                }
                end = format!("({}-0", entry.block.last());
            }
            pages = next_count(pages, answer);
        }
        // All there is comes, from the first of them, or what is behind where the search ended.
        Ok(back.stretch(oldest, kept > 0))
    }

    /// Before the first record received at or after `time`: the offset to read after. By halving: ids are offsets, and
    /// what was received later has a higher one.
    pub(in crate::broker) async fn locate(
        &self,
        time: Millis,
        until: Offset,
    ) -> Result<Offset, ReadError> {
        let (mut low, mut high) = (self.topics.trimmed(), until);
        while low < high {
            let middle = low + (high - low) / 2;
            let next = self.stored.entry(&format!("({middle}-0")).await?;
            let found = next.as_ref().filter(|entry| entry.before < until);
            match found.and_then(|entry| Some((entry, entry.block.record(0)?.received()))) {
                // It begins too early; so does all before its end.
                Some((entry, received)) if received < time => low = entry.block.last().min(until),
                // Late enough, or nothing: what is searched begins here or before.
                _ => high = middle,
            }
        }
        Ok(low.min(until))
    }

    /// Whether something that matches was lost above `after`, for whatever reason.
    pub(in crate::broker) async fn has_lost(
        &self,
        filter: &TopicFilter,
        after: Offset,
    ) -> Result<bool, ReadError> {
        let front = &self.progress.front;
        let loss = front.lock().lineage.loss_above(after);
        if loss.is_some_and(|loss| loss.to.offset <= front.offset()) {
            return Ok(true);
        }
        let topics = self.topics.of(filter).await?;
        Ok(self.topics.lost(&topics, filter, after).await? > after)
    }

    /// What a position of any epoch means here.
    pub(in crate::broker) async fn resume(
        &self,
        position: Position,
    ) -> Result<Resumption, ReadError> {
        for round in 0..2 {
            let meaning = self.progress.front.lock().lineage.resume(position);
            let head = self.progress.front.offset();
            match meaning {
                Some(Ok(offset)) if offset <= head => return Ok(Resumption::From(offset)),
                Some(Err(to)) if to.offset <= head => return Ok(Resumption::Lost(to)),
                _ if round > 0 => {}
                // Another node was quicker: ask Redis before anybody is told of a loss.
                _ => {
                    if !self.hellos.is_answered(self.patience).await {
                        return match meaning {
                            // What it says is true or will be found out: a loss ends the epoch.
                            Some(Ok(offset)) => Ok(Resumption::From(offset)),
                            _ => Err(ReadError(
                                "Redis cannot be reached, and the position is of an epoch that \
                                 this node has not heard of"
                                    .to_owned(),
                            )),
                        };
                    }
                    if position.offset <= self.hellos.head() {
                        self.reaches(position.offset).await;
                    }
                }
            }
        }
        let meaning = self.progress.front.lock().lineage.resume(position);
        let told = self.hellos.head();
        Ok(match meaning {
            Some(Ok(offset)) if offset <= told => Resumption::From(offset),
            Some(Err(to)) => Resumption::Lost(to),
            _ => Resumption::Lost(self.progress.front.head()),
        })
    }

    /// The newest offset that Redis knows.
    pub(in crate::broker) async fn head_of_all(&self) -> Result<Offset, ReadError> {
        if self.hellos.is_answered(self.patience).await {
            Ok(self.hellos.head())
        } else {
            Err(ReadError("Redis did not tell how far it has come".to_owned()))
        }
    }

    async fn reaches(&self, offset: Offset) {
        let mut head = self.progress.front.tail();
        let reached = head.wait_for(|head| *head >= offset);
        // If not in time, the position lies ahead, and the subscription begins when it is reached.
        let _ = tokio::time::timeout(self.patience, reached).await;
    }
}

/// How many entries to ask for after an answer of `count` with so many bytes.
fn next_count(count: usize, bytes: usize) -> usize {
    if bytes < ANSWER { (count * 4).min(MOST_COUNT) } else { FIRST_COUNT }
}

/// The block without what retention took from it.
pub(super) fn kept(block: &Arc<Block>, topics: &RedisTopics) -> Option<Arc<Block>> {
    let is_kept =
        |record: &crate::event::Record<'_>| record.offset() > topics.trimmed(record.topic());
    if block.records().all(|record| is_kept(&record)) {
        return Some(block.clone());
    }
    let mut builder = BlockBuilder::default();
    block.records().filter(is_kept).for_each(|record| builder.push_record(record));
    (!builder.is_empty()).then(|| builder.finish())
}
