//! The newest values of topics, each topic's in a hash of its own.

use std::{iter, sync::Arc};

use ::redis::{cmd, pipe};
use bytes::Bytes;

use super::RedisShared;
use crate::{
    broker::{
        ReadError,
        latest::{LatestPlace, LatestSearch},
    },
    event::Block,
    position::Offset,
    redis::RedisFailure,
    topic::{Topic, TopicFilter},
};

/// Topics whose sizes are asked for at once.
const TOPICS_AT_ONCE: usize = 256;
/// Values asked for at once, about: each may be as large as an event.
pub(super) const VALUES_AT_ONCE: u64 = 64;

impl RedisShared {
    pub(super) async fn search_latest(
        &self,
        filter: &TopicFilter,
        mut search: LatestSearch,
    ) -> Result<LatestSearch, ReadError> {
        let names = self.names_of(filter, usize::MAX).await?.unwrap_or_default();
        for topics in names.chunks(TOPICS_AT_ONCE) {
            let mut ask = pipe();
            topics.iter().for_each(|topic| {
                ask.cmd("HLEN").arg(self.newest_of(topic));
            });
            let sizes: Vec<u64> = self.link.run_all(&ask).await?;
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

    pub(super) async fn latest_at(
        &self,
        places: &[LatestPlace],
    ) -> Result<Vec<Arc<Block>>, ReadError> {
        let mut ask = pipe();
        places.iter().for_each(|place| {
            ask.cmd("HGET").arg(self.newest_of(&place.topic)).arg(&*place.key);
        });
        let values: Vec<Option<Bytes>> = self.link.run_all(&ask).await?;
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
            ask.cmd("HVALS").arg(self.newest_of(topic));
        });
        let answers: Vec<Vec<Bytes>> = self.link.run_all(&ask).await?;
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
        let (key, mut cursor) = (self.newest_of(topic), 0u64);
        loop {
            let mut scan = cmd("HSCAN");
            scan.arg(&key).arg(cursor).arg("COUNT").arg(VALUES_AT_ONCE);
            let values: Vec<(Bytes, Bytes)>;
            (cursor, values) = self.link.run(&scan).await?;
            values.iter().for_each(|(_, value)| take_in(topic, value, search));
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    /// The hash of a topic's newest values.
    fn newest_of(&self, topic: &Topic) -> String {
        self.keys.of(&format!("latest:{topic}"))
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
pub(super) fn read_newest(value: &Bytes) -> Option<(Offset, Arc<Block>)> {
    let mut parts = value.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (first, received) = (number()?, number()?);
    let record = Block::decode(value.slice_ref(parts.next()?)).ok()?;
    let offset = first.checked_add(record.first())?.checked_sub(1)?;
    Some((offset, record.renumbered(offset, received).ok()?))
}
