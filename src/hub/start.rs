//! Where a subscription begins: what it asks for, found in the log.

use std::sync::Arc;

use super::{Hub, item::Gap, snapshot::Snapshot};
use crate::{
    broker::{NewestStretch, ReadError, Resumption},
    position::{Offset, Position},
    protocol::GapReason,
    telemetry::Limit,
    time::Millis,
    topic::TopicFilter,
};

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Live,
    /// With the last `n` matching events.
    Last(usize),
    /// With what was received since this time.
    Since(Millis),
    /// With the newest of each (topic, key).
    Latest,
    /// Behind this position.
    Resume(Position),
}

/// Where it was found to begin.
pub(super) struct Begun {
    pub(super) position: Offset,
    /// The newest values, to be sent first.
    pub(super) snapshot: Option<Snapshot>,
    /// What a position that it had has lost with its epoch.
    pub(super) gap: Option<Gap>,
    /// Whether fewer follow than were asked for, though more may be kept.
    pub(super) is_truncated: bool,
}

impl Hub {
    /// Finds where a subscription begins that joined its view at `joined_at`, in a log that was committed up to `until`.
    pub(super) async fn begin(
        &self,
        start: Start,
        joined_at: Offset,
        until: Offset,
        filter: &TopicFilter,
        user: Option<Arc<str>>,
    ) -> Result<Begun, ReadError> {
        let broker = &self.0.broker;
        let at = |position| Begun { position, snapshot: None, gap: None, is_truncated: false };
        Ok(match start {
            Start::Live | Start::Last(0) => at(joined_at),
            Start::Last(n) => {
                let budget = self.0.config.replay_bytes.as_usize();
                let found = self.newest(user.as_ref(), filter, n, until, budget).await?;
                if found.is_cut {
                    self.0.telemetry.hit(Limit::ReplayBytes);
                }
                let begun = self.behind_losses(user.as_ref(), filter, found.after, until).await?;
                Begun { is_truncated: begun.is_truncated || found.is_cut, ..begun }
            }
            Start::Since(time) => {
                let located = broker.epochs().locate(time, until).await?;
                self.behind_losses(user.as_ref(), filter, located, until).await?
            }
            Start::Latest => {
                // What changed behind `until` comes as events: it is left out here.
                let snapshot = Snapshot::begin(self, user, filter.clone(), until).await?;
                Begun { snapshot: Some(snapshot), ..at(until) }
            }
            Start::Resume(position) => match broker.epochs().resume(position).await? {
                Resumption::From(offset) => at(offset),
                Resumption::Lost(to) => {
                    let from = Position { offset: position.offset.saturating_add(1), ..position };
                    let gap = Gap { from, to, reason: GapReason::Epoch };
                    Begun { gap: Some(gap), ..at(to.offset) }
                }
            },
        })
    }

    /// A replay from `after` begins after everything that any topic of the filter has lost by now, because inside a
    /// loss it would begin with a gap. It is truncated if there are older events that are kept no longer or cannot be
    /// read.
    async fn behind_losses(
        &self,
        user: Option<&Arc<str>>,
        filter: &TopicFilter,
        after: Offset,
        until: Offset,
    ) -> Result<Begun, ReadError> {
        let lost = self.0.broker.topics().trimmed_through(filter).await?.min(until);
        let is_truncated = lost > after && {
            let budget = self.0.config.replay_bytes.as_usize();
            let kept = self.newest(user, filter, 1, lost, budget).await?;
            kept.is_cut || (after + 1..=lost).contains(&kept.first)
        };
        Ok(Begun { position: after.max(lost), snapshot: None, gap: None, is_truncated })
    }

    /// What [`Broker::newest`](crate::broker::Broker::newest) finds, once there is room for a search by `user`; a search
    /// of memory needs none.
    pub async fn newest(
        &self,
        user: Option<&Arc<str>>,
        filter: &TopicFilter,
        count: usize,
        until: Offset,
        budget: usize,
    ) -> Result<NewestStretch, ReadError> {
        let mut newest = self.0.broker.newest(filter, count, until);
        if let Some(found) = newest.in_memory() {
            return Ok(found);
        }
        self.search(user, newest.within(budget)).await
    }

    /// Searches the log when it is this user's turn.
    pub(super) async fn search<T: Send + 'static>(
        &self,
        user: Option<&Arc<str>>,
        search: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        let searched = self.0.searches.run(user, search).await;
        searched.map_err(|error| ReadError(error.to_string()))?
    }
}
