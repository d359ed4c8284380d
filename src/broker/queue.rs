//! The queue in front of a log's writer, bounded by the bytes of what waits in it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use super::publish::{PublishError, Published};
use crate::{
    admission::Admitted,
    telemetry::{Limit, Telemetry},
};

/// How many batches may wait; beyond it the byte limit is of no help.
pub(super) const QUEUE_LENGTH: usize = 65_536;
/// When a publisher that found the queue full, or the log unwritable, should try again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What an event costs in the queue beside its payload.
const EVENT_OVERHEAD: usize = 256;

/// The room in front of a writer.
pub(super) struct QueueRoom {
    room: Arc<Semaphore>,
    bytes: usize,
    patience: Duration,
    telemetry: Telemetry,
}

/// A batch that waits for the writer. It takes its room until it is dropped.
pub(super) struct QueuedBatch<Terms = ()> {
    pub(super) events: Admitted,
    pub(super) bytes: usize,
    pub(super) answer: Option<PublishReply>,
    /// What else its writer has to know.
    pub(super) terms: Terms,
    _room: OwnedSemaphorePermit,
}

/// Where whoever waits for the commit is answered.
pub(super) type PublishReply = oneshot::Sender<Result<Published, PublishError>>;

impl QueueRoom {
    /// Room for `bytes`; a batch waits for it no longer than `patience`.
    pub(super) fn new(bytes: usize, patience: Duration, telemetry: Telemetry) -> Self {
        let room = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Self { room, bytes, patience, telemetry }
    }

    /// Takes in a batch when there is room for it.
    pub(super) async fn enter<Terms>(
        &self,
        events: Admitted,
        answer: Option<PublishReply>,
        terms: Terms,
    ) -> Result<QueuedBatch<Terms>, PublishError> {
        let bytes =
            events.iter().map(|event| event.data.get().len() + EVENT_OVERHEAD).sum::<usize>();
        // A batch larger than the whole queue still fits when it is alone.
        let permits = bytes.min(self.bytes).min(u32::MAX as usize) as u32;
        let room = timeout(self.patience, self.room.clone().acquire_many_owned(permits))
            .await
            .map_err(|_| self.overloaded())?
            .map_err(|_| PublishError::Closed)?;
        Ok(QueuedBatch { events, bytes, answer, terms, _room: room })
    }

    /// The refusal of a batch that found no room; it is counted.
    pub(super) fn overloaded(&self) -> PublishError {
        self.telemetry.hit(Limit::PublishQueue);
        PublishError::Overloaded { retry_after: RETRY_AFTER }
    }

    /// Takes in nothing any more.
    pub(super) fn close(&self) {
        self.room.close();
    }
}
