//! Followers: whoever makes something of the log's events, each a cursor like any other with a task and a pace of its own.
//!
//! A follower reads the blocks that memory has anyway and, behind these, history. One that stalls holds nobody up and keeps
//! nothing: its cursor stays where it is. What a gap means is its owner's to say. Who reads a [`Follower`] is told of it
//! and goes on; who [keeps up](Feed::keep_up) is made anew.

mod delivery;
mod follower;
mod keep_up;
mod payloads;
mod progress;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub use self::{
    delivery::{Delivered, Delivery},
    follower::Follower,
    keep_up::{Follow, KeepingUp},
    progress::{Progress, read_up_to},
};
use self::{payloads::Payloads, progress::PATIENCE};
use crate::{
    broker::{Broker, ReadError, Resumption},
    position::{Offset, Position},
    topic::TopicFilter,
};

/// The log as its followers read it: what one of them has parsed, the others share. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    broker: Broker,
    payloads: Arc<Payloads>,
    /// How long a follower tries to read before it says that it cannot.
    patience: Duration,
}

impl Feed {
    /// The feed of a log; one for all who follow it.
    pub fn new(broker: Broker) -> Self {
        Self { broker, payloads: Arc::default(), patience: PATIENCE }
    }

    /// The log itself.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// A follower of what `filter` matches and lies above `after`. `who` it is, is said where reading fails.
    pub fn follow(&self, who: &'static str, filter: TopicFilter, after: Offset) -> Follower {
        Follower::new(self.clone(), who, filter, after)
    }

    /// The same from a saved cursor: behind a gap where what lay behind it was lost; without one, from now on.
    pub async fn resume(
        &self,
        who: &'static str,
        filter: TopicFilter,
        cursor: Option<Position>,
    ) -> Result<Follower, ReadError> {
        let Some(position) = cursor else {
            return Ok(self.follow(who, filter, self.broker.head().offset));
        };
        Ok(match self.broker.epochs().resume(position).await? {
            Resumption::From(offset) => self.follow(who, filter, offset),
            Resumption::Lost(to) => self.follow(who, filter, to.offset).behind_gap(),
        })
    }

    /// Keeps `follow` up with the log: everything up to `built` is in it already, if anything is. `progress` tells how
    /// far it has come.
    pub fn keep_up<'a, F: Follow>(
        &self,
        follow: &'a F,
        built: Option<Offset>,
        progress: Progress,
    ) -> KeepingUp<'a, F> {
        KeepingUp::new(self.clone(), follow, built, progress)
    }

    /// How many payloads were parsed so far.
    #[cfg(test)]
    pub(crate) fn parsed(&self) -> u64 {
        self.payloads.parsed()
    }
}
