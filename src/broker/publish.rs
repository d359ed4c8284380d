//! What a publisher gives to the log, and what it is answered.

use std::{collections::HashSet, time::Duration};

use super::Broker;
use crate::{
    admission::{Admitted, OwnEvent},
    lease::Fence,
    position::{Offset, Position},
    topic::Topic,
};

/// Events to be stored together. Unless it says otherwise, anybody may write it, and all of it is stored or nothing.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    events: Admitted,
    fence: Option<&'a Fence>,
    /// With how many events it is still to be stored when the others have no room.
    least: Option<usize>,
}

impl<'a> Batch<'a> {
    /// It is stored only if the lease is still the writer's.
    pub fn fenced(self, fence: &'a Fence) -> Self {
        Self { fence: Some(fence), ..self }
    }

    /// Events whose topics the log has no room for are left out and cost no others; where fewer than `least` would be
    /// left, nothing is stored.
    pub fn what_fits(self, least: usize) -> Self {
        Self { least: Some(least), ..self }
    }

    pub(super) async fn store(self, broker: &Broker) -> Result<Published, PublishError> {
        let Self { mut events, fence, least } = self;
        let Some(least) = least else { return store(broker, events, fence).await };
        let mut left_out: Option<Box<LeftOut>> = None;
        while !events.is_empty() {
            let (limit, topics) = match store(broker, events.clone(), fence).await {
                Err(PublishError::TooManyTopics { limit, topics }) => (limit, topics),
                stored => return Ok(Published { left_out, ..stored? }),
            };
            let before = events.len();
            events.retain(|event| !topics.contains(&event.topic));
            if events.len() == before || events.len() < least {
                return Err(PublishError::TooManyTopics { limit, topics });
            }
            match &mut left_out {
                Some(left_out) => left_out.topics.extend(topics),
                None => left_out = Some(Box::new(LeftOut { topics, limit })),
            }
        }
        Ok(Published { position: broker.head(), offsets: Vec::new(), accepted: 0, left_out })
    }
}

/// Stores all of it or nothing.
async fn store(
    broker: &Broker,
    events: Admitted,
    fence: Option<&Fence>,
) -> Result<Published, PublishError> {
    match broker {
        // The lock on the data folder lets only one node write.
        Broker::Journal(journal) => journal.publish(events).await,
        Broker::Redis(redis) => redis.publish(events, fence).await,
    }
}

impl From<Admitted> for Batch<'_> {
    fn from(events: Admitted) -> Self {
        Self { events, fence: None, least: None }
    }
}

impl From<OwnEvent> for Batch<'_> {
    fn from(event: OwnEvent) -> Self {
        Admitted::from(event).into()
    }
}

impl FromIterator<OwnEvent> for Batch<'_> {
    fn from_iter<I: IntoIterator<Item = OwnEvent>>(events: I) -> Self {
        events.into_iter().collect::<Admitted>().into()
    }
}

/// The answer to a publish that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The highest offset among the batch's; the head if nothing of it had room.
    pub position: Position,
    /// One offset for each event, in order; a duplicate has its original's.
    pub offsets: Vec<Offset>,
    /// How many events were new.
    pub accepted: usize,
    /// What of a batch was left out that is stored as far as it fits.
    pub left_out: Option<Box<LeftOut>>,
}

/// The events for whose topics the log had no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Their topics.
    pub topics: HashSet<Topic>,
    /// `journal.max_topics`.
    pub limit: usize,
}

/// Why a batch was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue in front of the log is full; nothing of the batch was taken.
    #[error("the hub is taking in events as fast as it can store them")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The log cannot be written to; nothing of the batch was stored.
    #[error("the log cannot be written: {reason}")]
    Unavailable {
        /// What the storage said.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Nobody can tell whether the batch was stored; with the same ids it can be sent again.
    #[error("the log did not answer, so the events may be stored or not: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
        /// The batch's ids, in order.
        ids: Vec<Box<str>>,
        /// When to try again.
        retry_after: Duration,
    },
    /// The writer's lease has passed to another; nothing of the batch was stored.
    #[error("the lease under which this was written is another's now")]
    Fenced,
    /// The batch would make more topics than the log may hold.
    #[error("the log already holds {limit} topics, its limit")]
    TooManyTopics {
        /// `journal.max_topics`.
        limit: usize,
        /// Those of the batch for which there is no room; without them it would have been stored.
        topics: HashSet<Topic>,
    },
    /// The log is closing; nothing of the batch was taken.
    #[error("the hub is shutting down")]
    Closed,
}
