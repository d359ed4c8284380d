//! The newest values that a subscription may begin with, read as they are taken.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::Hub;
use crate::{
    broker::{LatestReader, ReadError},
    event::Block,
    position::Offset,
    topic::TopicFilter,
};

/// What is still to come of the values as they were when the subscription began.
pub(super) struct Snapshot {
    /// Where it ends.
    pub(super) until: Offset,
    hub: Hub,
    /// Whose it is; none for the hub's own.
    user: Option<Arc<str>>,
    ready: Option<Arc<Block>>,
    remaining: Remaining,
}

enum Remaining {
    Unread(LatestReader),
    Reading(Reading),
    Nothing,
}

/// Values, and what is left behind them.
type Read = (Option<Arc<Block>>, Remaining);
type Reading = Pin<Box<dyn Future<Output = Result<Read, ReadError>> + Send>>;

impl Snapshot {
    /// Reads the first of them.
    pub(super) async fn begin(
        hub: &Hub,
        user: Option<Arc<str>>,
        filter: TopicFilter,
        until: Offset,
    ) -> Result<Self, ReadError> {
        let reader = LatestReader::new(hub.broker().clone(), filter, until);
        let (ready, remaining) = read(hub.clone(), user.clone(), reader).await?;
        Ok(Self { until, hub: hub.clone(), user, ready, remaining })
    }

    /// The next values, about one frame of them; None when all were given.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Arc<Block>>, ReadError>> {
        loop {
            if let Some(values) = self.ready.take() {
                return Poll::Ready(Ok(Some(values)));
            }
            self.remaining = match std::mem::replace(&mut self.remaining, Remaining::Nothing) {
                Remaining::Unread(reader) => {
                    Remaining::Reading(Box::pin(read(self.hub.clone(), self.user.clone(), reader)))
                }
                Remaining::Reading(mut reading) => match reading.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.remaining = Remaining::Reading(reading);
                        return Poll::Pending;
                    }
                    read => {
                        let remaining;
                        (self.ready, remaining) = ready!(read)?;
                        remaining
                    }
                },
                Remaining::Nothing => return Poll::Ready(Ok(None)),
            };
        }
    }

    /// Whether all were given.
    pub(super) fn is_over(&self) -> bool {
        self.ready.is_none() && matches!(self.remaining, Remaining::Nothing)
    }
}

async fn read(hub: Hub, user: Option<Arc<str>>, reader: LatestReader) -> Result<Read, ReadError> {
    let budget = hub.chunk_bytes();
    match reader.has_to_search() {
        true => hub.0.searches.run(user.as_ref(), next(reader, budget)).await,
        false => next(reader, budget).await,
    }
}

async fn next(mut reader: LatestReader, budget: usize) -> Result<Read, ReadError> {
    let values = reader.next(budget).await?;
    let remaining = match reader.is_over() {
        true => Remaining::Nothing,
        false => Remaining::Unread(reader),
    };
    Ok((values, remaining))
}
