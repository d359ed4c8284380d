//! A durable consumer: a name, a lease, a saved cursor. One node at a time has it; when that node
//! dies, another goes on from the cursor within seconds.

mod reader;

use std::time::{Duration, Instant};

pub use self::reader::{Delivery, Reader};
use crate::{
    broker::{Broker, ReadError, Resumption},
    lease::{Fence, LEASE},
    position::Position,
    store::{Part, Store, StoreError},
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
    reader: Reader,
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
        let reader = |after| Reader::new(self.filter.clone(), self.broker.clone(), after);
        let reader = match self.store.load_cursor(&self.name).await? {
            None => reader(self.broker.head().offset),
            Some(position) => match self.broker.resume(position).await? {
                Resumption::From(offset) => reader(offset),
                Resumption::Lost(to) => reader(to.offset).behind_gap(),
            },
        };
        Ok(Holding { consumer: self.clone(), fence, renewed: Instant::now(), reader })
    }
}

impl Holding {
    /// What proves that the lease is ours, for publishing.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Waits for what comes next.
    pub async fn next(&mut self) -> Result<Delivery, ConsumerError> {
        loop {
            self.renew().await?;
            // Woken by the log, or by the lease that wants to be renewed.
            if let Ok(next) = tokio::time::timeout(RENEW, self.reader.next()).await {
                return Ok(next?);
            }
        }
    }

    /// Everything up to `position` is done: nobody gets it again.
    pub async fn done(&mut self, position: Position) -> Result<(), ConsumerError> {
        Ok(self.consumer.store.save_cursor(&self.fence, position).await?)
    }

    /// The same, together with what is kept: see [`Store::save`].
    pub async fn save(
        &mut self,
        position: Position,
        parts: Vec<Part>,
    ) -> Result<(), ConsumerError> {
        Ok(self.consumer.store.save(&self.fence, position, parts).await?)
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
