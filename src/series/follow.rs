//! The task that follows the log: it adds what comes to the series, and, while it holds the lease,
//! writes what changed to the store.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::RwLock;
use tokio::time::MissedTickBehavior;

use super::{
    NAME, Series, SeriesInner,
    intake::{READERS, fetch},
    pack::{PackError, Packer},
    resolution::{HEAD, hot_columns, raw_column},
    table::Table,
    timeseries::{Timeseries, raw_columns},
};
use crate::{
    broker::{ReadError, Resumption},
    duty::{Duty, Term, TermError},
    follow::{Delivery, Follower},
    lease::Fence,
    position::{Offset, Position},
    store::{Part, Store, StoreError},
    time::Millis,
    topic::TopicFilter,
};

/// How often a piece of what changed is written.
const TICK: Duration = Duration::from_secs(1);
/// How many series are written at once at least, if so many changed.
const SLICE: usize = 256;
/// The most bytes of one save.
const SAVE_BYTES: usize = 1 << 20;
/// Heads of series saved at once.
const SAVE_HEADS: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pack(#[from] PackError),
}

impl From<FollowError> for TermError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Store(error) => error.into(),
            FollowError::Read(error) => error.into(),
            error => Self::failed(error),
        }
    }
}

/// What keeps the series up, from one reading of the store to the next.
pub(super) struct Upkeep {
    pub(super) series: Series,
    pub(super) reader: Follower,
    /// Everything up to here is in the store.
    pub(super) clean: Position,
    /// What proves that the lease is ours, if it is.
    fence: Option<Fence>,
    /// What was read from the store, until it has caught up with the log.
    fresh: Option<Fresh>,
    pub(super) round: Round,
    packer: Packer,
}

/// A table that takes the place of the one that is asked when it has come as far as the log was.
struct Fresh {
    table: RwLock<Table>,
    head: Offset,
    /// Whether there was nothing in the store.
    is_first: bool,
}

/// One round through all series.
pub(super) struct Round {
    /// Everything up to here is in the store when it is over.
    through: Offset,
    /// Those that are still to come.
    pub(super) places: Vec<usize>,
    /// How many are looked after at a time.
    pub(super) slice: usize,
    began: Instant,
}

impl Duty for Series {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    async fn serve(&mut self, term: &Term) -> Result<(), TermError> {
        // What another node wrote is in the store: whoever begins to write begins with that.
        let follower = tokio::select! {
            begun = self.begin(Some(term.fence().clone())) => begun?,
            () = term.over() => return Ok(()),
        };
        Ok(follower.run(Some(term)).await?)
    }

    async fn stand_by(&mut self) -> Result<Infallible, TermError> {
        self.begin(None).await?.run(None).await?;
        std::future::pending().await
    }
}

impl Series {
    /// Reads the store. `fence` is the lease, if it is ours.
    pub(super) async fn begin(&self, fence: Option<Fence>) -> Result<Upkeep, FollowError> {
        let SeriesInner { store, feed, clock, .. } = &*self.0;
        let broker = feed.broker();
        // The position first: what is read after it is at least as new, and says how new.
        let cursor = store.load_cursor(NAME).await?;
        let (clean, is_lost) = match cursor {
            None => (broker.epochs().position(0), false),
            Some(position) => match broker.epochs().resume(position).await? {
                Resumption::From(offset) => (broker.epochs().position(offset), false),
                Resumption::Lost(to) => (self.0.behind_loss(to), true),
            },
        };
        let now = clock.now();
        let rows = stream::iter(store.rows(NAME).await?).map(|row| async move {
            let parts = read_row(store, &row, now).await?;
            // One that is broken must not cost the others.
            let timeseries = Timeseries::restore(&row, parts).unwrap_or_else(|error| {
                tracing::error!(row, %error, "a series begins anew");
                None
            });
            Ok::<_, FollowError>(timeseries)
        });
        let mut rows = rows.buffer_unordered(READERS);
        let mut table = self.0.new_table();
        let mut heads = Vec::new();
        while let Some(timeseries) = rows.try_next().await? {
            let Some(mut timeseries) = timeseries else { continue };
            if is_lost {
                heads.extend(timeseries.forget_after(clean.offset)?);
            }
            table.restore(timeseries);
        }
        if let Some(fence) = &fence
            && let Some(cursor) = cursor
            && is_lost
        {
            // The position goes on behind all heads: with one that says more, a later start would
            // take new samples for such as it has already.
            for heads in heads.chunks(SAVE_HEADS) {
                store.save(fence, cursor, heads.to_vec()).await?;
            }
            store.save(fence, clean, Vec::new()).await?;
        }
        table.applied = clean.offset;
        let mut reader = feed.follow(NAME, TopicFilter::everything(), clean.offset);
        if is_lost {
            reader = reader.behind_gap();
        }
        let head = broker.head().offset;
        let is_first = cursor.is_none();
        Ok(Upkeep {
            series: self.clone(),
            reader,
            clean,
            fence,
            fresh: Some(Fresh { table: RwLock::new(table), head, is_first }),
            round: Round::over(clean.offset),
            packer: Packer::new()?,
        })
    }
}

impl Upkeep {
    /// Until the term is over, if there is one; then what is not written yet is.
    async fn run(mut self, term: Option<&Term>) -> Result<(), FollowError> {
        let is_over = async || match term {
            Some(term) => term.over().await,
            None => std::future::pending().await,
        };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.catch_up();
            tokio::select! {
                biased;
                () = is_over() => return self.end().await,
                _ = tick.tick() => self.look_after().await?,
                delivery = self.reader.next() => {
                    self.take_in(&delivery?).await?;
                    // What is in memory is read without waiting: the lease wants to be renewed meanwhile.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Shows the series when all is in that there was when we began.
    pub(super) fn catch_up(&mut self) {
        let Some(fresh) = self.fresh.take() else { return };
        if fresh.table.read().applied < fresh.head {
            self.fresh = Some(fresh);
            return;
        }
        let table = fresh.table.into_inner();
        let reached = table.applied;
        *self.series.0.table.write() = table;
        self.series.0.tell(reached, true);
    }

    /// Adds what was delivered. Chunks that are only in the store are read from there first, so that
    /// what memory has of a chunk is all of it.
    pub(super) async fn take_in(&mut self, delivery: &Delivery) -> Result<(), FollowError> {
        let inner = self.series.0.clone();
        if delivery.has_gap && self.fresh.as_ref().is_none_or(|fresh| !fresh.is_first) {
            inner.note_gap();
        }
        let mut count = inner.tally.lock().begin();
        let (arrived, said) = inner.take_apart(delivery, &mut count);
        if !said.is_empty() {
            let mut table = self.table().write();
            said.iter().for_each(|(topic, name, said)| table.learn(topic, name, said));
        }
        let (is_shown, has_changed) = (self.fresh.is_none(), !arrived.is_empty());
        let mut rest = &arrived[..];
        loop {
            let lacking = self.table().write().take(&mut rest, &mut count);
            if !lacking.is_empty() {
                let fetched = fetch(&self.series, lacking).await?;
                let mut table = self.table().write();
                for (lacking, parts) in fetched {
                    table.fill(&lacking, parts)?;
                }
                continue;
            }
            if self.table().read().is_full() {
                self.look_after().await?;
            }
            if rest.is_empty() {
                break;
            }
        }
        let reached = delivery.position.offset;
        let mut table = self.table().write();
        table.applied = table.applied.max(reached);
        drop(table);
        inner.tally.lock().add(count, reached, &inner.telemetry);
        if is_shown {
            inner.tell(reached, has_changed);
        }
        Ok(())
    }

    fn table(&self) -> &RwLock<Table> {
        self.fresh.as_ref().map_or(&self.series.0.table, |fresh| &fresh.table)
    }

    /// Writes everything.
    async fn end(mut self) -> Result<(), FollowError> {
        if self.fence.is_none() {
            return Ok(());
        }
        self.begin_round().await?;
        self.round.slice = usize::MAX;
        self.slice().await
    }

    /// Begins a round when it is time, and does a piece of it; all of it if memory must be given back.
    async fn look_after(&mut self) -> Result<(), FollowError> {
        let is_full = self.table().read().is_full();
        if self.round.places.is_empty() {
            let save_every = self.series.0.config.save_every.0;
            if self.round.began.elapsed() < save_every && !is_full {
                return Ok(());
            }
            self.begin_round().await?;
        }
        if is_full {
            self.round.slice = usize::MAX;
        }
        self.slice().await
    }

    /// Begins a round through all series, by what the store has now.
    pub(super) async fn begin_round(&mut self) -> Result<(), FollowError> {
        let SeriesInner { store, config, .. } = &*self.series.0;
        if self.fence.is_none()
            && let Some(position) = store.load_cursor(NAME).await?
        {
            self.clean = position;
        }
        let ticks = config.save_every.0.as_secs() / TICK.as_secs() / 2;
        let mut table = self.table().write();
        let places = table.begin_round();
        let slice = places.len() / usize::try_from(ticks.max(1)).unwrap_or(usize::MAX);
        let (through, began) = (table.applied, Instant::now());
        drop(table);
        self.round = Round { through, places, slice: slice.max(SLICE), began };
        Ok(())
    }

    /// Looks after the next few series; after the last ones the position is noted.
    pub(super) async fn slice(&mut self) -> Result<(), FollowError> {
        let left = self.round.places.len().saturating_sub(self.round.slice);
        let mut parts = Vec::new();
        for place in self.round.places.split_off(left) {
            let now = self.series.0.clock.settled();
            let table = self.fresh.as_ref().map_or(&self.series.0.table, |fresh| &fresh.table);
            let clean = self.clean.offset;
            parts.append(&mut table.write().tend(place, clean, now, &mut self.packer)?);
            if parts.iter().map(size).sum::<usize>() >= SAVE_BYTES {
                self.save(self.clean, std::mem::take(&mut parts)).await?;
            }
            tokio::task::yield_now().await;
        }
        if left > 0 {
            return self.save(self.clean, parts).await;
        }
        let through = self.series.0.feed.broker().epochs().position(self.round.through);
        if through != self.clean || !parts.is_empty() {
            self.save(through, parts).await?;
        }
        Ok(())
    }

    async fn save(&mut self, position: Position, parts: Vec<Part>) -> Result<(), FollowError> {
        let Some(fence) = &self.fence else { return Ok(()) };
        self.series.0.store.save(fence, position, parts).await?;
        self.clean = position;
        Ok(())
    }
}

impl Round {
    /// A round that is over: the next begins in its time.
    fn over(through: Offset) -> Self {
        Self { through, places: Vec::new(), slice: SLICE, began: Instant::now() }
    }
}

/// What is of use of a row in memory, all of one save: how many chunks of raw samples there are is in its head.
async fn read_row(store: &Store, row: &str, now: Millis) -> Result<Vec<(u64, Bytes)>, StoreError> {
    let mut asked = raw_columns(&store.parts(NAME, row, vec![HEAD]).await?);
    loop {
        let mut columns = hot_columns(now);
        columns.extend(asked.clone().map(raw_column));
        let parts = store.parts(NAME, row, columns).await?;
        let there = raw_columns(&parts);
        // Another node may have saved more meanwhile.
        if there.end <= asked.end {
            return Ok(parts);
        }
        asked = there;
    }
}

fn size(part: &Part) -> usize {
    part.row.len() + part.bytes.as_ref().map_or(0, |bytes| bytes.len()) + 16
}
