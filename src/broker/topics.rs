//! The topics of the log: which there are, what is known of them, and what they lost.

use super::{Broker, ReadError, TopicInfo, journal::Journal, redis::KnownNames};
use crate::{
    position::Offset,
    topic::{Topic, TopicFilter},
};

/// All topics of a log.
pub struct TopicCatalog<'a>(&'a Broker);

/// The names of all topics, in order.
pub enum TopicIndex {
    /// Kept up to date.
    Journal(Journal),
    /// As they were at one moment.
    Redis(KnownNames),
}

impl TopicIndex {
    /// The topics that begin with `prefix` and sort after `after`, at most `most`. It may block on a writer for some
    /// milliseconds: call it from no thread of the runtime.
    pub fn page(&self, prefix: &str, after: &str, most: usize) -> Vec<Topic> {
        match self {
            Self::Journal(journal) => journal.topics_page(prefix, after, most),
            Self::Redis(names) => names.page(prefix, after, most),
        }
    }
}

impl<'a> TopicCatalog<'a> {
    pub(super) fn new(broker: &'a Broker) -> Self {
        Self(broker)
    }

    /// The names of all topics, to page through.
    pub async fn index(&self) -> Result<TopicIndex, ReadError> {
        match self.0 {
            Broker::Journal(journal) => Ok(TopicIndex::Journal(journal.clone())),
            Broker::Redis(redis) => Ok(TopicIndex::Redis(redis.topics().names().await?)),
        }
    }

    /// What is known of some topics, which are given in order; one that was forgotten is left out.
    pub async fn infos(&self, topics: Vec<Topic>) -> Result<Vec<TopicInfo>, ReadError> {
        match self.0 {
            Broker::Journal(journal) => journal.topic_infos(topics).await,
            Broker::Redis(redis) => Ok(redis.topics().infos(&topics).await?),
        }
    }

    /// The last offset that retention took from the filter; 0 if it took nothing.
    pub async fn trimmed_through(&self, filter: &TopicFilter) -> Result<Offset, ReadError> {
        match self.0 {
            Broker::Journal(journal) => journal.trimmed_through(filter, 0).await,
            Broker::Redis(redis) => Ok(redis.topics().trimmed_through(filter).await?),
        }
    }

    /// Whether something that matches was lost above `after`, for whatever reason.
    pub async fn has_lost(&self, filter: &TopicFilter, after: Offset) -> Result<bool, ReadError> {
        match self.0 {
            Broker::Journal(journal) => Ok(journal.trimmed_through(filter, after).await? > after),
            Broker::Redis(redis) => redis.reader().has_lost(filter, after).await,
        }
    }
}
