//! The newest values of topics, each topic's in a hash of its own.

use std::{
    collections::{HashMap, HashSet},
    iter,
    sync::Arc,
};

use ::redis::pipe;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{scripts::LogScripts, stored::StoredLog, topic_cache::TopicCache};
use crate::{
    broker::{
        ReadError,
        latest::{LatestPlace, LatestSearch},
    },
    event::Block,
    position::Offset,
    redis::RedisFailure,
    telemetry::{Limit, Telemetry},
    topic::{Topic, TopicFilter},
};

/// Topics whose sizes are asked for at once.
const TOPICS_AT_ONCE: usize = 256;
/// Values asked for at once, about: each may be as large as an event.
const VALUES_AT_ONCE: usize = 64;
/// Values dropped in one call.
const DROPPED_AT_ONCE: usize = 1000;

/// The newest values of all topics.
pub(in crate::broker) struct RedisLatest {
    pub(super) stored: Arc<StoredLog>,
    pub(super) scripts: Arc<LogScripts>,
    pub(super) topics: Arc<TopicCache>,
    pub(super) telemetry: Telemetry,
    /// How many a topic may have.
    pub(super) most: usize,
    /// Topics with more than that.
    pub(super) full: Mutex<HashSet<Topic>>,
}

impl RedisLatest {
    /// Searches the topics that match.
    pub(in crate::broker) async fn search(
        &self,
        filter: &TopicFilter,
        mut search: LatestSearch,
    ) -> Result<LatestSearch, ReadError> {
        let names = self.topics.names_of(filter, usize::MAX).await?.unwrap_or_default();
        for topics in names.chunks(TOPICS_AT_ONCE) {
            let mut ask = pipe();
            topics.iter().for_each(|topic| {
                ask.cmd("HLEN").arg(self.stored.keys.latest(topic.as_str()));
            });
            let sizes: Vec<usize> = self.stored.link.run_all(&ask).await?;
            let mut small: Vec<&Topic> = Vec::new();
            let mut left = VALUES_AT_ONCE;
            for (topic, size) in topics.iter().zip(sizes) {
                if size > VALUES_AT_ONCE {
                    self.search_large(topic, &mut search).await?;
                } else if size > 0 {
                    if size > left {
                        self.search_small(&small, &mut search).await?;
                        (small, left) = (Vec::new(), VALUES_AT_ONCE);
                    }
                    small.push(topic);
                    left -= size;
                }
            }
            self.search_small(&small, &mut search).await?;
        }
        Ok(search)
    }

    /// The values at these places.
    pub(in crate::broker) async fn at(
        &self,
        places: &[LatestPlace],
    ) -> Result<Vec<Arc<Block>>, ReadError> {
        let mut ask = pipe();
        places.iter().for_each(|place| {
            ask.cmd("HGET").arg(self.stored.keys.latest(place.topic.as_str())).arg(&*place.key);
        });
        let values: Vec<Option<Bytes>> = self.stored.link.run_all(&ask).await?;
        let found = places.iter().zip(&values).filter_map(|(place, value)| {
            let (offset, block) = read_newest(value.as_ref()?)?;
            (offset == place.offset).then_some(block)
        });
        Ok(found.collect())
    }

    async fn search_small(
        &self,
        topics: &[&Topic],
        search: &mut LatestSearch,
    ) -> Result<(), RedisFailure> {
        if topics.is_empty() {
            return Ok(());
        }
        let mut ask = pipe();
        topics.iter().for_each(|topic| {
            ask.cmd("HVALS").arg(self.stored.keys.latest(topic.as_str()));
        });
        let answers: Vec<Vec<Bytes>> = self.stored.link.run_all(&ask).await?;
        for (topic, values) in iter::zip(topics, answers) {
            values.iter().for_each(|value| take_in(topic, value, search));
        }
        Ok(())
    }

    async fn search_large(
        &self,
        topic: &Topic,
        search: &mut LatestSearch,
    ) -> Result<(), RedisFailure> {
        let (key, mut cursor) = (self.stored.keys.latest(topic.as_str()), 0u64);
        loop {
            let values: Vec<(Bytes, Bytes)>;
            (cursor, values) = self.stored.scan(&key, cursor, VALUES_AT_ONCE).await?;
            values.iter().for_each(|(_, value)| take_in(topic, value, search));
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// These have more than they may.
    pub(super) fn overflow(&self, topics: impl Iterator<Item = Topic>) {
        self.full.lock().extend(topics);
    }

    /// Above the number of keys a topic may have in `latest`, those that changed longest ago go.
    pub(super) async fn cap(&self) -> Result<(), RedisFailure> {
        let full = std::mem::take(&mut *self.full.lock());
        for topic in full {
            let key = self.stored.keys.latest(topic.as_str());
            let mut by_age = HashMap::new();
            let mut cursor = 0u64;
            loop {
                let values: Vec<(Bytes, Bytes)>;
                (cursor, values) = self.stored.scan(&key, cursor, VALUES_AT_ONCE).await?;
                // Copied, for of a large value only these are wanted.
                let age = |(name, value): (Bytes, Bytes)| {
                    let origin = origin(&value)?.to_vec();
                    Some((name, (read_newest(&value)?.0, origin)))
                };
                by_age.extend(values.into_iter().filter_map(age));
                if cursor == 0 {
                    break;
                }
            }
            if by_age.len() <= self.most {
                continue;
            }
            // A tenth more than needed, so that a topic at its limit does not pay every time.
            let surplus = by_age.len() - self.most + self.most / 10;
            let mut by_age: Vec<_> = by_age.into_iter().collect();
            by_age.sort_unstable_by_key(|(_, (offset, _))| *offset);
            for pieces in by_age[..surplus.min(by_age.len())].chunks(DROPPED_AT_ONCE) {
                let mut call = self.scripts.cap(&key);
                for (name, (_, origin)) in pieces {
                    call.arg(&**name).arg(&**origin);
                }
                self.stored.link.script::<bool>(&call).await?;
            }
            self.telemetry.hit(Limit::LatestKeys);
        }
        Ok(())
    }
}

fn take_in(topic: &Topic, value: &Bytes, search: &mut LatestSearch) {
    let Some((offset, block)) = read_newest(value) else {
        tracing::error!("a newest value cannot be read");
        return;
    };
    if search.wants(offset) {
        let key = block.record(0).and_then(|record| record.key()).unwrap_or_default().into();
        let place = LatestPlace { offset, topic: topic.clone(), key, bytes: value.len() };
        search.take_in(place, Some(block));
    }
}

/// A newest value: its batch's first offset and time as text, then the record under its index.
fn read_newest(value: &Bytes) -> Option<(Offset, Arc<Block>)> {
    let mut parts = value.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (first, received) = (number()?, number()?);
    let record = Block::decode(value.slice_ref(parts.next()?)).ok()?;
    let offset = first.checked_add(record.first())?.checked_sub(1)?;
    Some((offset, record.renumbered(offset, received).ok()?))
}

/// What tells a newest value from one written later: the batch it came with.
fn origin(value: &[u8]) -> Option<&[u8]> {
    value.split(|byte| *byte == b' ').next()
}
