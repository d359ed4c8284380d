//! What this node knows of all instances: it follows the log.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio_util::sync::CancellationToken;

use super::{InstanceError, LoadError, NAME, registry::Registry};
use crate::{
    admission::Admitted,
    broker::{Broker, ReadError, Resumption},
    event::AppName,
    follow::{Delivery, Feed, Follow, KeepingUp, Progress},
    position::Offset,
    store::Store,
    telemetry::Telemetry,
    topic::{TopicError, TopicFilter, TopicPattern},
};

/// How long an answer waits for the node's own memory to follow what was stored.
const FOLLOW: Duration = Duration::from_secs(1);

pub(super) struct KnownInstances {
    feed: Feed,
    store: Store,
    pub(super) filter: TopicFilter,
    /// Held to look something up, or to take in what the log tells.
    registry: RwLock<Registry>,
    /// How far the registry has followed the log.
    pub(super) progress: Progress,
    /// The last that the log told of an instance while it was followed.
    told: AtomicU64,
    telemetry: Telemetry,
}

impl KnownInstances {
    pub(super) fn new(feed: Feed, store: Store, telemetry: Telemetry) -> Result<Self, TopicError> {
        let filter = TopicFilter::new([TopicPattern::parse(&format!("{}.*", AppName::REGISTRY))?]);
        let progress = Progress::at(feed.broker().head().offset);
        let (registry, told) = (RwLock::default(), AtomicU64::new(0));
        Ok(Self { feed, store, filter, registry, progress, told, telemetry })
    }

    /// Reads what the log has.
    pub(super) async fn load(&self) -> Result<(), LoadError> {
        self.progress.reach(self.rebuild().await?);
        Ok(())
    }

    /// Follows the log until `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let keeping_up = self.keep_up(Some(self.progress.offset()), self.progress.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            _ = keeping_up.run() => {}
        }
    }

    pub(super) fn keep_up(&self, from: Option<Offset>, progress: Progress) -> KeepingUp<'_, Self> {
        self.feed.keep_up(self, from, progress)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read()
    }

    pub(super) fn broker(&self) -> &Broker {
        self.feed.broker()
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The last that the log told of an instance while it was followed.
    pub(super) fn told(&self) -> Offset {
        self.told.load(Ordering::Acquire)
    }

    /// Tells of instances, and knows it then as well.
    pub(super) async fn publish(&self, events: Admitted) -> Result<(), InstanceError> {
        let published = self.broker().publish(events.into()).await?;
        self.followed(published.position.offset).await;
        Ok(())
    }

    /// Waits until this node knows what was stored at `offset`, so that a client finds what it was told is stored. The
    /// wait is limited, because the next question may go to another node anyway.
    pub(super) async fn followed(&self, offset: Offset) {
        // Late or not, it is stored.
        let _ = tokio::time::timeout(FOLLOW, self.progress.reaches(offset)).await;
    }

    /// What the newest event about each instance says, which outlives retention, up to the offset at least.
    async fn newest(&self) -> Result<(Registry, Offset), ReadError> {
        let broker = self.feed.broker();
        let head = broker.head().offset;
        let block = broker.latest(self.filter.clone()).all().await?;
        Ok((Registry::of(block.records()), head))
    }
}

impl Follow for KnownInstances {
    type Error = LoadError;

    fn name(&self) -> &'static str {
        NAME
    }

    fn filter(&self) -> TopicFilter {
        self.filter.clone()
    }

    /// The newest events, and then again what came since the cursor: from there on a record may have been written from
    /// old knowledge, and not been mended yet.
    async fn rebuild(&self) -> Result<Offset, LoadError> {
        let Self { feed, store, filter, telemetry, .. } = self;
        let (mut registry, mut head) = self.newest().await?;
        let start = match store.load_cursor(NAME).await? {
            None => Resumption::From(0),
            Some(position) => feed.broker().epochs().resume(position).await?,
        };
        if let Resumption::From(start) = start {
            let mut before = feed.follow(NAME, filter.clone(), start);
            while let Some(delivery) = before.next_up_to(head).await? {
                if delivery.has_gap {
                    // What is left of it would bring back who was forgotten in what is gone.
                    (registry, head) = self.newest().await?;
                    break;
                }
                delivery.records().for_each(|record| registry.apply(record));
            }
        }
        registry.count(telemetry);
        *self.registry.write() = registry;
        Ok(head)
    }

    fn take_in(&self, delivery: &Delivery) {
        let mut registry = self.registry.write();
        for record in delivery.records() {
            registry.apply(record);
            self.told.store(record.offset(), Ordering::Release);
        }
        registry.count(&self.telemetry);
    }
}
