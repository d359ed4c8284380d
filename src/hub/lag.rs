//! How far a subscription is behind, readable from outside its task.

use std::sync::{Arc, atomic::Ordering};

use super::{Hub, task_waker::Subscriber, view::View};
use crate::{position::Offset, topic::TopicFilter};

/// Tells how far a cursor is behind.
#[derive(Clone)]
pub struct Lag {
    pub(super) view: Arc<View>,
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) hub: Hub,
}

impl Lag {
    /// The subscription's name.
    pub fn sub(&self) -> &str {
        self.view.key.form.sub()
    }

    /// What the subscription matches.
    pub fn filter(&self) -> &TopicFilter {
        &self.view.key.filter
    }

    /// Offsets between the cursor and `head`; 0 when it has all that matches.
    pub fn offsets(&self, head: Offset) -> u64 {
        let position = self.subscriber.position.load(Ordering::Relaxed);
        if self.view.is_lagging(position) {
            self.hub.0.broker.epochs().offsets_between(position, head)
        } else {
            0
        }
    }
}

impl std::fmt::Debug for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lag").field("view", &self.view.key).finish_non_exhaustive()
    }
}
