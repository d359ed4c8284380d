//! The newest values that a subscription may begin with, read as they are taken.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
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
    /// Its owner; None for the hub's own.
    user: Option<Arc<str>>,
    ready: Option<Arc<Block>>,
    remaining: Remaining,
}

enum Remaining {
    Unread(LatestReader),
    Reading(SnapshotRead),
    /// The reader is gone, and nobody can tell what it had left: every question fails.
    Lost(ReadError),
    Nothing,
}

/// A failed read returns the reader as well: the next read continues where it was.
type SnapshotRead = Pin<Box<dyn Future<Output = Result<Read, ReadError>> + Send>>;
type Read = (LatestReader, Result<Option<Arc<Block>>, ReadError>);

impl Snapshot {
    /// Reads the first of them.
    pub(super) async fn begin(
        hub: &Hub,
        user: Option<Arc<str>>,
        filter: TopicFilter,
        until: Offset,
    ) -> Result<Self, ReadError> {
        let reader = hub.broker().latest(filter).up_to(until);
        let (reader, values) = read(hub.clone(), user.clone(), reader).await?;
        let (ready, remaining) = (values?, Remaining::behind(reader));
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
                    Poll::Ready(Ok((reader, values))) => {
                        self.remaining = Remaining::behind(reader);
                        self.ready = values?;
                        continue;
                    }
                    Poll::Ready(Err(error)) => Remaining::Lost(error),
                },
                Remaining::Lost(error) => {
                    self.remaining = Remaining::Lost(error.clone());
                    return Poll::Ready(Err(error));
                }
                Remaining::Nothing => return Poll::Ready(Ok(None)),
            };
        }
    }

    /// Whether all were given.
    pub(super) fn is_over(&self) -> bool {
        self.ready.is_none() && matches!(self.remaining, Remaining::Nothing)
    }
}

impl Remaining {
    fn behind(reader: LatestReader) -> Self {
        if reader.is_over() { Self::Nothing } else { Self::Unread(reader) }
    }
}

/// Fails as a whole only where the search itself was lost, and its reader with it.
async fn read(
    hub: Hub,
    user: Option<Arc<str>>,
    mut reader: LatestReader,
) -> Result<Read, ReadError> {
    let has_to_search = reader.has_to_search();
    let budget = hub.chunk_bytes();
    let reading = async move {
        let values = reader.next(budget).await;
        Ok((reader, values))
    };
    match has_to_search {
        true => hub.search(user.as_ref(), reading).await,
        false => reading.await,
    }
}
