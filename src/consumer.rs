//! A durable consumer: a name, a lease, a saved cursor. One node at a time has it; when that node
//! dies, another goes on from the cursor within seconds.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    broker::{Broker, ReadError, Resumption},
    lease::{Fence, LEASE},
    position::{Offset, Position},
    store::{Store, StoreError},
    topic::TopicFilter,
};

/// Something that is done once for the whole cluster.
#[derive(Clone)]
pub struct Consumer {
    name: String,
    /// Who we are, so that we can take our own lease again.
    holder: String,
    filter: TopicFilter,
    broker: Broker,
    store: Store,
}

/// The consumer while its lease is ours.
pub struct Holding {
    consumer: Consumer,
    fence: Fence,
    renewed: Instant,
    at: Offset,
    /// Whether the next delivery has to say that something is missing.
    has_gap: bool,
}

/// What comes next for a consumer.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The events that match, as their outward JSON.
    pub events: Vec<(Offset, Bytes)>,
    /// Whether events before these are missing.
    pub has_gap: bool,
    /// To be acknowledged once all of them are done.
    pub position: Position,
}

/// Why a consumer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// Another node has it now: whatever was not acknowledged is done there.
    #[error("the lease has passed to another node")]
    Lost,
    /// The store.
    #[error(transparent)]
    Store(StoreError),
    /// The log.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// How often a lease is asked for that another holds.
const ASK: Duration = Duration::from_millis(500);
/// A lease is renewed when so much of it has gone by.
const RENEW: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// About how much one delivery holds.
const CHUNK: usize = 256 << 10;

impl Consumer {
    /// The consumer `name` of what `filter` matches; `holder` is this node.
    pub fn new(
        name: &str,
        holder: &str,
        filter: TopicFilter,
        broker: Broker,
        store: Store,
    ) -> Self {
        Self { name: name.to_owned(), holder: holder.to_owned(), filter, broker, store }
    }

    /// Waits until the lease is ours. A consumer that never was begins with what comes from now on.
    pub async fn hold(&self) -> Result<Holding, ConsumerError> {
        let fence = loop {
            match self.store.lease(&self.name, &self.holder).await? {
                Some(fence) => break fence,
                None => tokio::time::sleep(ASK).await,
            }
        };
        let (at, has_gap) = match self.store.load_cursor(&self.name).await? {
            None => (self.broker.head().offset, false),
            Some(position) => match self.broker.resume(position).await? {
                Resumption::From(offset) => (offset, false),
                Resumption::Lost(to) => (to.offset, true),
            },
        };
        Ok(Holding { consumer: self.clone(), fence, renewed: Instant::now(), at, has_gap })
    }
}

impl Holding {
    /// What proves that the lease is ours, for publishing.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Waits for what comes next.
    pub async fn next(&mut self) -> Result<Delivery, ConsumerError> {
        let consumer = self.consumer.clone();
        let mut tail = consumer.broker.tail();
        loop {
            self.renew().await?;
            let head = *tail.borrow_and_update();
            if head <= self.at {
                // Woken by the log, or by the lease that wants to be renewed.
                let _ = tokio::time::timeout(RENEW, tail.changed()).await;
                continue;
            }
            let chunk = consumer.broker.read(self.at, head, &consumer.filter, CHUNK).await?;
            if chunk.trimmed_through > self.at {
                self.has_gap = true;
                self.at = chunk.trimmed_through;
                continue;
            }
            let records = chunk.blocks.iter().flat_map(|block| block.records_after(self.at));
            let events: Vec<_> = records
                .take_while(|record| record.offset() <= chunk.reached)
                .filter(|record| consumer.filter.matches(record.topic()))
                .map(|record| (record.offset(), record.shared_json()))
                .collect();
            self.at = chunk.reached;
            if !events.is_empty() || self.has_gap {
                let position = consumer.broker.position(self.at);
                let has_gap = std::mem::take(&mut self.has_gap);
                return Ok(Delivery { events, has_gap, position });
            }
        }
    }

    /// Everything up to `position` is done: nobody gets it again.
    pub async fn done(&mut self, position: Position) -> Result<(), ConsumerError> {
        Ok(self.consumer.store.save_cursor(&self.fence, position).await?)
    }

    /// Gives the lease back, so that another need not wait for its end.
    pub async fn release(self) -> Result<(), ConsumerError> {
        Ok(self.consumer.store.release(&self.fence).await?)
    }

    async fn renew(&mut self) -> Result<(), ConsumerError> {
        if self.renewed.elapsed() < RENEW {
            return Ok(());
        }
        let Consumer { store, name, holder, .. } = &self.consumer;
        match store.lease(name, holder).await? {
            Some(fence) if fence == self.fence => {
                self.renewed = Instant::now();
                Ok(())
            }
            _ => Err(ConsumerError::Lost),
        }
    }
}

impl From<StoreError> for ConsumerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::Lost,
            error => Self::Store(error),
        }
    }
}
