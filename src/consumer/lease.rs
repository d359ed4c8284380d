//! A lease that is asked for, renewed and given back: what there is one of runs where it is held.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use super::ConsumerError;
use crate::{
    lease::{Fence, LEASE},
    store::Store,
};

/// Something that one node at a time does.
#[derive(Clone)]
pub struct Lease {
    name: String,
    /// Who we are, so that we can take our own lease again.
    holder: String,
    store: Store,
}

/// The lease while it is ours.
pub struct Held {
    lease: Lease,
    fence: Fence,
    renewed: Instant,
}

/// How often a lease is asked for that another holds.
const ASK: Duration = Duration::from_millis(500);
/// A lease is renewed when so much of it has gone by.
pub(super) const RENEW: Duration = Duration::from_secs(LEASE.as_secs() / 3);

impl Lease {
    /// The lease `name` as the node `holder` asks for it.
    pub fn new(name: &str, holder: &str, store: Store) -> Self {
        Self { name: name.to_owned(), holder: holder.to_owned(), store }
    }

    /// Waits until the lease is ours.
    pub async fn hold(&self) -> Result<Held, ConsumerError> {
        loop {
            // Before the question: the lease began at some time after it.
            let renewed = Instant::now();
            if let Some(fence) = self.store.lease(&self.name, &self.holder).await? {
                return Ok(Held { lease: self.clone(), fence, renewed });
            }
            tokio::time::sleep(ASK).await;
        }
    }
}

impl Held {
    /// What proves that the lease is ours, for writing under it.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Keeps the lease for as long as this is waited for; returns when it cannot.
    pub async fn keep(&mut self) -> Result<Infallible, ConsumerError> {
        loop {
            self.renew().await?;
            tokio::time::sleep(RENEW.saturating_sub(self.renewed.elapsed())).await;
        }
    }

    /// Gives the lease back, so that another need not wait for its end.
    pub async fn release(self) -> Result<(), ConsumerError> {
        Ok(self.lease.store.release(&self.fence).await?)
    }

    /// Renews the lease if it is time to.
    pub(super) async fn renew(&mut self) -> Result<(), ConsumerError> {
        if self.renewed.elapsed() < RENEW {
            return Ok(());
        }
        let Lease { name, holder, store } = &self.lease;
        let asked = Instant::now();
        match store.lease(name, holder).await? {
            Some(fence) if fence == self.fence => {
                self.renewed = asked;
                Ok(())
            }
            _ => Err(ConsumerError::Lost),
        }
    }
}
