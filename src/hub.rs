//! The hub: readers' side of the log. Views, cursors, and the dispatch that feeds them.

mod config;
mod cursor;
mod dispatch;
mod index;
mod item;
mod lag;
mod latest;
mod pace;
mod quota;
mod snapshot;
mod start;
mod task_waker;
mod view;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use slab::Slab;

pub use self::{
    config::{HIGHEST_HZ, HubConfig},
    cursor::Cursor,
    item::{CursorItem, Gap},
    lag::Lag,
    quota::Owner,
    start::Start,
    task_waker::TaskWaker,
};
use self::{
    cursor::Beginning,
    index::Index,
    latest::{Conflated, LatestBytes, Room},
    pace::Pace,
    quota::Quotas,
    task_waker::Subscriber,
    view::{View, ViewKey, ViewTail},
};
use crate::{
    broker::{Broker, ReadError},
    dialect::Form,
    position::{Epoch, Offset, Position},
    protocol::{Mode, SubscribedStart},
    telemetry::{Limit, Telemetry},
    topic::{Topic, TopicFilter},
    turns::Turns,
};

/// What a subscription asks for.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// How its bytes come.
    pub form: Form,
    /// What it matches.
    pub filter: TopicFilter,
    /// Every event or the newest of each key.
    pub mode: Mode,
    /// In mode `latest`: the most frames in a second.
    pub max_hz: Option<f64>,
    /// Where it begins.
    pub start: Start,
    /// Its owner; None for the hub's own.
    pub owner: Option<Owner>,
}

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The log could not be read; asked again, it may be.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its owner has too many different ones.
    #[error(
        "one user may have {most} different subscriptions at a time, those with long lists of patterns fewer: share \
         them, or raise limits.views_per_principal"
    )]
    TooMany {
        /// `limits.views_per_principal`.
        most: usize,
    },
}

/// The readers' side of the log. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<HubInner>);

struct HubInner {
    broker: Broker,
    config: HubConfig,
    telemetry: Telemetry,
    /// Held for a lookup or a change of the list, never while frames are made or bytes written.
    registry: Mutex<ViewRegistry>,
    /// Everything up to here has been appended to the views it matches.
    head: AtomicU64,
    /// What views in mode `latest` hold, all together.
    latest_bytes: Arc<LatestBytes>,
    /// Who searches the log for long; the others wait.
    searches: Turns,
}

#[derive(Default)]
struct ViewRegistry {
    views: Slab<Arc<View>>,
    by_key: HashMap<ViewKey, usize>,
    index: Index,
    quotas: Quotas,
    /// Everything up to here has been matched against the views there were.
    matched_through: Offset,
    /// How many views have ended: their slots are given to others.
    ended: u64,
}

impl Hub {
    /// A hub over `broker`, which delivers once [`run`](Self::run) does.
    pub fn new(broker: Broker, config: HubConfig, telemetry: Telemetry) -> Self {
        let head = broker.head().offset;
        let registry = ViewRegistry { matched_through: head, ..ViewRegistry::default() };
        Self(Arc::new(HubInner {
            broker,
            config,
            telemetry,
            registry: Mutex::new(registry),
            head: AtomicU64::new(head),
            latest_bytes: Arc::default(),
            searches: Turns::default(),
        }))
    }

    /// Everything up to here is on its way to the subscribers it matches.
    pub fn head(&self) -> Position {
        // The offset first: an epoch that is newer than its offset does no harm.
        let offset = self.0.head.load(Ordering::Acquire);
        Position { epoch: self.epoch(), offset }
    }

    /// How many subscriptions match `topic`.
    pub fn subscribers(&self, topic: &Topic) -> usize {
        let mut slots = Vec::new();
        let registry = self.0.registry.lock();
        registry.index.lookup(topic.as_str(), &mut slots);
        slots
            .iter()
            .filter_map(|slot| registry.views.get(*slot))
            .map(|view| view.subscriber_count())
            .sum()
    }

    /// Starts a subscription. `waker` wakes the task that polls the cursor.
    pub async fn subscribe(
        &self,
        subscription: Subscription,
        waker: Arc<TaskWaker>,
    ) -> Result<(Cursor, SubscribedStart), SubscribeError> {
        let Subscription { form, filter, mode, max_hz, start, owner } = subscription;
        let pace = match mode {
            Mode::All => None,
            Mode::Latest => Some(Pace::of(max_hz.unwrap_or(self.0.config.max_hz))),
        };
        let user = owner.as_ref().map(|owner| owner.identity.clone());
        // Into the view first: from here on nothing new is missed, and what came before is history.
        let joined = self.join(ViewKey { form, filter: filter.clone(), pace }, waker, owner)?;
        let broker = &self.0.broker;
        let committed = broker.head();
        let begun = self.begin(start, joined.joined_at, committed.offset, &filter, user).await?;
        let mut seen = joined.seen;
        if pace.is_some() {
            // The view has not counted these yet, and they are not passed over: they came, or
            // lie before the beginning.
            let (from, to) = (joined.joined_at, begun.position.min(committed.offset));
            seen += self.count(&filter, from, to).await?;
        }
        let recovered = begun.gap.is_none() && {
            let resumed = matches!(start, Start::Resume(_));
            !resumed
                || !joined.view.is_behind(begun.position)
                || !broker.topics().has_lost(&filter, begun.position).await?
        };
        // The beginning may lie in an epoch, and beyond a head, that were not known before.
        let position = self.position(begun.position);
        let head = self.position(committed.offset.max(position.offset));
        let max_hz = pace.map(Pace::hz);
        let replay_truncated = begun.is_truncated;
        let beginning = Beginning {
            position: begun.position,
            seen,
            snapshot: begun.snapshot,
            fold_until: pace.map(|_| joined.joined_at),
            gap: begun.gap,
        };
        let cursor = joined.sit(beginning);
        let is_owing = cursor.is_owing();
        let start =
            SubscribedStart { position, head, recovered, replay_truncated, max_hz, is_owing };
        Ok((cursor, start))
    }

    /// Offsets between the slowest cursor and the head; 0 when all have what matches.
    pub fn slowest_lag(&self) -> u64 {
        let views: Vec<_> = {
            let registry = self.0.registry.lock();
            registry.views.iter().map(|(_, view)| view.clone()).collect()
        };
        let head = self.head().offset;
        let slowest = views.iter().filter_map(|view| view.slowest()).min();
        slowest.map_or(0, |position| self.0.broker.epochs().offsets_between(position, head))
    }

    /// How many events match above `after` up to `until`.
    async fn count(
        &self,
        filter: &TopicFilter,
        mut after: Offset,
        until: Offset,
    ) -> Result<u64, ReadError> {
        let mut count = 0;
        while after < until {
            let chunk = self.0.broker.read(after, until, filter, self.chunk_bytes()).await?;
            let records = chunk.blocks.iter().flat_map(|block| block.records_after(after));
            count += records
                .take_while(|record| record.offset() <= chunk.reached)
                .filter(|record| filter.matches(record.topic()))
                .count() as u64;
            after = chunk.reached;
            tokio::task::yield_now().await;
        }
        Ok(count)
    }

    /// Finds or makes the view and joins its subscribers.
    fn join(
        &self,
        key: ViewKey,
        waker: Arc<TaskWaker>,
        owner: Option<Owner>,
    ) -> Result<Joined, SubscribeError> {
        let mut registry = self.0.registry.lock();
        let known = registry.by_key.get(&key).copied();
        if let Some(owner) = &owner
            && !registry.quotas.has_room(owner, &key.filter, known)
        {
            self.0.telemetry.hit(Limit::ViewsPerPrincipal);
            return Err(SubscribeError::TooMany { most: owner.most });
        }
        let filter = key.filter.clone();
        let slot = known.unwrap_or_else(|| {
            let (covered_from, room) = (registry.matched_through, self.latest_room());
            let view = View::new(key.clone(), covered_from, room, &self.0.latest_bytes);
            let slot = registry.views.insert(Arc::new(view));
            registry.index.insert(&key.filter, slot);
            registry.by_key.insert(key, slot);
            self.0.telemetry.views.inc();
            slot
        });
        if let Some(owner) = &owner {
            registry.quotas.enter(owner, &filter, slot);
        }
        let view = registry.views[slot].clone();
        // In mode `latest` the count and the place it was taken at must belong together.
        let (joined_at, seen) = match &view.tail {
            ViewTail::Frames(_) => (registry.matched_through, 0),
            ViewTail::Latest(conflated) => {
                let conflated = conflated.lock();
                (conflated.through().max(self.head().offset), conflated.matched())
            }
        };
        let subscriber = Arc::new(Subscriber::new(waker, joined_at));
        let subscriber_key = view.subscribers.lock().insert(subscriber.clone());
        // The hub's own have no owner and are not counted.
        if owner.is_some() {
            self.0.telemetry.subscriptions.inc();
        }
        let guard = SubscriberGuard {
            hub: self.clone(),
            slot,
            subscriber_key,
            owner: owner.map(|owner| owner.identity),
        };
        Ok(Joined { guard, view, subscriber, joined_at, seen })
    }

    /// Takes a subscriber out, and the view with it when it was the last.
    fn leave(&self, slot: usize, subscriber_key: usize, owner: Option<&str>) {
        let mut registry = self.0.registry.lock();
        if let Some(owner) = owner {
            registry.quotas.leave(owner, slot);
            self.0.telemetry.subscriptions.dec();
        }
        let view = registry.views[slot].clone();
        let empty = {
            let mut subscribers = view.subscribers.lock();
            subscribers.remove(subscriber_key);
            subscribers.is_empty()
        };
        if empty {
            registry.index.remove(&view.key.filter, slot);
            registry.by_key.remove(&view.key);
            registry.views.remove(slot);
            registry.ended += 1;
            self.0.telemetry.views.dec();
        }
    }

    fn epoch(&self) -> Epoch {
        self.0.broker.epochs().newest()
    }

    /// The position of an offset: of the epoch that this node is in, or if it lies beyond its head, of the one
    /// that gave it out.
    fn position(&self, offset: Offset) -> Position {
        let head = self.head();
        if offset <= head.offset {
            Position { offset, ..head }
        } else {
            self.0.broker.epochs().position(offset)
        }
    }

    fn broker(&self) -> &Broker {
        &self.0.broker
    }

    fn chunk_bytes(&self) -> usize {
        self.0.config.chunk_bytes.as_usize()
    }

    fn latest_room(&self) -> Room {
        let HubConfig { latest_keys, latest_bytes, .. } = &self.0.config;
        Room { keys: *latest_keys, bytes: latest_bytes.as_usize() }
    }

    /// Gathers a stretch of history for mode `latest`; the cursor empties it when it is full.
    fn fold(&self, began: Offset) -> Conflated {
        Conflated::new(began, Room { keys: usize::MAX, bytes: usize::MAX }, Arc::default())
    }
}

/// A subscriber whose cursor does not exist yet.
struct Joined {
    guard: SubscriberGuard,
    view: Arc<View>,
    subscriber: Arc<Subscriber>,
    joined_at: Offset,
    seen: u64,
}

impl Joined {
    fn sit(self, beginning: Beginning) -> Cursor {
        Cursor::new(self.guard, self.view, self.subscriber, beginning)
    }
}

/// Keeps a subscriber in its view; dropping it takes it out.
struct SubscriberGuard {
    hub: Hub,
    slot: usize,
    subscriber_key: usize,
    owner: Option<Arc<str>>,
}

impl Drop for SubscriberGuard {
    fn drop(&mut self) {
        self.hub.leave(self.slot, self.subscriber_key, self.owner.as_deref());
    }
}
