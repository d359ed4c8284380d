//! A durable consumer: a name, a lease, a saved cursor. One node at a time has it; when that node
//! dies, another goes on from the cursor within seconds.

mod lease;
mod reader;

pub use self::{
    lease::{Held, Lease},
    reader::{Delivery, Reader},
};
use crate::{
    broker::{Broker, ReadError, Resumption},
    lease::Fence,
    position::Position,
    store::{Part, Store, StoreError},
    topic::TopicFilter,
};

/// Something that is done once for the whole cluster.
#[derive(Clone)]
pub struct Consumer {
    name: String,
    lease: Lease,
    filter: TopicFilter,
    broker: Broker,
    store: Store,
}

/// The consumer while its lease is ours.
pub struct Holding {
    held: Held,
    store: Store,
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

impl Consumer {
    /// The consumer `name` of what `filter` matches; `holder` is this node.
    pub fn new(
        name: &str,
        holder: &str,
        filter: TopicFilter,
        broker: Broker,
        store: Store,
    ) -> Self {
        let lease = Lease::new(name, holder, store.clone());
        Self { name: name.to_owned(), lease, filter, broker, store }
    }

    /// Waits until the lease is ours. A consumer that never was begins with what comes from now on.
    pub async fn hold(&self) -> Result<Holding, ConsumerError> {
        let held = self.lease.hold().await?;
        let reader = |after| Reader::new(self.filter.clone(), self.broker.clone(), after);
        let reader = match self.store.load_cursor(&self.name).await? {
            None => reader(self.broker.head().offset),
            Some(position) => match self.broker.resume(position).await? {
                Resumption::From(offset) => reader(offset),
                Resumption::Lost(to) => reader(to.offset).behind_gap(),
            },
        };
        Ok(Holding { held, store: self.store.clone(), reader })
    }
}

impl Holding {
    /// What proves that the lease is ours, for publishing.
    pub fn fence(&self) -> &Fence {
        self.held.fence()
    }

    /// Waits for what comes next.
    pub async fn next(&mut self) -> Result<Delivery, ConsumerError> {
        loop {
            self.held.renew().await?;
            // Woken by the log, or by the lease that wants to be renewed.
            if let Ok(next) = tokio::time::timeout(lease::RENEW, self.reader.next()).await {
                return Ok(next?);
            }
        }
    }

    /// Everything up to `position` is done: nobody gets it again.
    pub async fn done(&mut self, position: Position) -> Result<(), ConsumerError> {
        Ok(self.store.save_cursor(self.fence(), position).await?)
    }

    /// The same, together with what is kept: see [`Store::save`].
    pub async fn save(
        &mut self,
        position: Position,
        parts: Vec<Part>,
    ) -> Result<(), ConsumerError> {
        Ok(self.store.save(self.fence(), position, parts).await?)
    }

    /// Gives the lease back, so that another need not wait for its end.
    pub async fn release(self) -> Result<(), ConsumerError> {
        self.held.release().await
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
