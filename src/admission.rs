//! Who may publish what. Only this module decides it.
//!
//! The log takes only what is [`Admitted`]. [`Admission::admit`] judges what others send, whatever the door they come
//! through, and those doors only put its [`Refused`] into the words of their protocol. What the hub makes itself is an
//! [`OwnEvent`].

mod instance;
mod limits;
mod own;

use std::ops::Deref;

pub use self::{
    instance::{Claim, Speaker, key_grants, key_name},
    limits::{BatchLimits, BatchTooLong, EventTooLarge},
    own::OwnEvent,
};
use crate::{
    auth::Principal,
    event::{AppName, Event, InstanceId},
    telemetry::Limit,
    topic::{OwnTopics, Topic},
};

/// The rules for all publishers. It has no clock and makes no calls: whatever a decision needs is passed in.
#[derive(Debug, Clone)]
pub struct Admission {
    own_topics: OwnTopics,
    limits: BatchLimits,
}

/// Events that may be stored, and all that a [`Broker`](crate::broker::Broker) takes. [`Admission::admit`] makes it of what
/// others send, and what the hub makes itself is an [`OwnEvent`]; there is no third way:
///
/// ```compile_fail,E0423
/// let forged = pulsehub::admission::Admitted(Vec::new());
/// ```
///
/// ```compile_fail,E0308
/// async fn publish(broker: pulsehub::broker::Broker, unasked: Vec<pulsehub::event::Event>) {
///     broker.publish(unasked).await;
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Admitted(Vec<Event>);

/// Why nothing of a batch may be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has too many events.
    #[error(transparent)]
    TooLong(#[from] BatchTooLong),
    /// One of its events is too large.
    #[error("{error}")]
    TooLarge {
        /// The event's place in the batch, from 0.
        index: usize,
        /// How much too large.
        error: EventTooLarge,
    },
    /// Topics on which its publisher may not publish, in the order of the events: of each kind at most [`MOST_NAMED`].
    #[error("{}", .0.first().map_or_else(String::new, RefusedTopic::to_string))]
    Topics(Vec<RefusedTopic>),
    /// A key was made for the instance, which alone speaks for it; or the key shown is another instance's.
    #[error("it takes the key of instance {app}/{id}")]
    NeedsKey {
        /// Its application.
        app: AppName,
        /// Its name.
        id: InstanceId,
    },
    /// Neither the instance's own key was shown, nor a grant to publish on `{app}.instances`.
    #[error("no grant to publish to {app}.instances")]
    NotHeard {
        /// The instance's application.
        app: AppName,
    },
}

/// A topic on which somebody may not publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedTopic {
    /// No grant would help.
    #[error("nobody but the hub publishes to {0}")]
    HubsOwn(Topic),
    /// No grant of theirs matches it.
    #[error("no grant to publish to {0}")]
    NotGranted(Topic),
}

/// Topics of one kind that a refusal names, at most.
pub const MOST_NAMED: usize = 20;

impl Admission {
    /// The rules of a hub that alone publishes on `own_topics`.
    pub fn new(own_topics: OwnTopics, limits: BatchLimits) -> Self {
        Self { own_topics, limits }
    }

    /// How much one batch may hold: readers of a format stop there and need not read the rest.
    pub fn limits(&self) -> &BatchLimits {
        &self.limits
    }

    /// Refuses a topic on which this principal may not publish. For callers that leave such events out instead of
    /// refusing the whole batch.
    pub fn check_topic(&self, principal: &Principal, topic: &Topic) -> Result<(), RefusedTopic> {
        if self.own_topics.hold(topic) {
            return Err(RefusedTopic::HubsOwn(topic.clone()));
        }
        if principal.may_publish(topic) {
            Ok(())
        } else {
            Err(RefusedTopic::NotGranted(topic.clone()))
        }
    }

    /// Admits a batch whole or not at all. With a `claim` the events are what an instance tells of itself.
    pub fn admit(
        &self,
        principal: &Principal,
        claim: Option<&Claim<'_>>,
        mut events: Vec<Event>,
    ) -> Result<Admitted, Refused> {
        self.limits.check_count(events.len())?;
        let instance = match claim {
            Some(claim) if claim.is_own(principal)? => Some(claim),
            _ => None,
        };
        let mut refused = RefusedTopics::default();
        for (index, event) in events.iter_mut().enumerate() {
            self.limits.check(event).map_err(|error| Refused::TooLarge { index, error })?;
            let is_about_itself = || instance.is_some_and(|instance| instance.is_of_itself(event));
            match self.check_topic(principal, &event.topic) {
                Err(RefusedTopic::NotGranted(_)) if is_about_itself() => {}
                Err(why) => refused.note(why),
                Ok(()) => {}
            }
            // Whatever the event says: it is theirs whose credentials came with it.
            if event.publisher != principal.publisher {
                event.publisher = principal.publisher.clone();
            }
        }
        if refused.0.is_empty() { Ok(Admitted(events)) } else { Err(Refused::Topics(refused.0)) }
    }
}

#[derive(Default)]
struct RefusedTopics(Vec<RefusedTopic>);

impl RefusedTopics {
    fn note(&mut self, refused: RefusedTopic) {
        let kind = std::mem::discriminant(&refused);
        let alike = self.0.iter().filter(|known| std::mem::discriminant(*known) == kind).count();
        if alike < MOST_NAMED && !self.0.contains(&refused) {
            self.0.push(refused);
        }
    }
}

impl Refused {
    /// The limit that was hit, if that was the reason.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooLong(_) => Some(Limit::Batch),
            Self::TooLarge { .. } => Some(Limit::Event),
            _ => None,
        }
    }
}

impl Admitted {
    /// Leaves out those that `keep` does not want.
    pub fn retain(&mut self, keep: impl FnMut(&Event) -> bool) {
        self.0.retain(keep);
    }
}

impl Deref for Admitted {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        &self.0
    }
}

#[cfg(test)]
mod tests;
