//! Where the last events of a filter lie: in memory first, and then in history.

use super::{
    Broker, ReadError,
    look_back::{LookBack, Looked, NewestStretch},
};
use crate::{position::Offset, topic::TopicFilter};

/// A search for the last so many events that match. Asked again, it goes on where it has come to.
pub struct NewestSearch {
    broker: Broker,
    back: LookBack,
}

impl NewestSearch {
    pub(super) fn new(broker: Broker, filter: &TopicFilter, count: usize, until: Offset) -> Self {
        Self { broker, back: LookBack::new(filter, count, until) }
    }

    /// Where they lie, if the newest blocks in memory hold all of them. It takes no long search.
    pub fn in_memory(&mut self) -> Option<NewestStretch> {
        match self.back.through(self.broker.front().piece(&self.back)) {
            Looked::Found(after) => Some(self.back.stretch(after, false)),
            Looked::More | Looked::End(_) => None,
        }
    }

    /// Where they lie; fewer of them where about `budget` bytes of history were looked through before. What lies above
    /// the stretch, up to where was searched from, does not match. Some of what matches in between may have been lost:
    /// reading it tells.
    pub async fn within(mut self, budget: usize) -> Result<NewestStretch, ReadError> {
        // Most often the newest blocks hold them. A longer search holds up no runtime worker.
        if let Some(found) = self.in_memory() {
            return Ok(found);
        }
        match self.broker {
            Broker::Journal(journal) => journal.newest(self.back, budget).await,
            Broker::Redis(redis) => redis.reader().newest(self.back, budget).await,
        }
    }
}
