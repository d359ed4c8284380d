//! The task that follows the log: it adds what comes to the series, and, while it holds the lease,
//! writes what changed to the store.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    Inner, NAME, Series,
    pack::{PackError, Packer},
    table::Table,
    track::{Track, hot_columns},
};
use crate::{
    broker::{ReadError, Resumption},
    consumer::Reader,
    lease::{Fence, LEASE},
    position::{Offset, Position},
    store::{Part, StoreError},
    topic::{TopicFilter, TopicPattern},
};

/// How often the lease is looked after and a piece of what changed is written.
const TICK: Duration = Duration::from_secs(1);
/// A lease is renewed when so much of it has gone by.
const RENEW: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// How many series are written at once at least, if so many changed.
const SLICE: usize = 256;
/// The most bytes of one save.
const SAVE_BYTES: usize = 1 << 20;
/// Heads of series saved at once.
const SAVE_HEADS: usize = 1000;
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// How many series are read from the store side by side.
const READERS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pack(#[from] PackError),
}

/// What keeps the series up, from one reading of the store to the next.
struct Follower<'a> {
    series: &'a Series,
    reader: Reader,
    /// Everything up to here is in the store.
    clean: Position,
    /// The lease, if it is ours, and when it was renewed.
    holding: Option<(Fence, Instant)>,
    round: Round,
    packer: Packer,
}

/// One round through all series.
struct Round {
    /// Everything up to here is in the store when it is over.
    through: Offset,
    /// Those that are still to come.
    places: Vec<usize>,
    /// How many are looked after at a time.
    slice: usize,
    began: Instant,
}

impl Series {
    /// Follows the log until `stop`; then writes what is not written yet.
    pub async fn run(self, stop: CancellationToken) {
        let mut failing = false;
        while !stop.is_cancelled() {
            let ended = self.follow(&stop).await;
            if let Err(error) = &ended {
                // A lease that has passed on is no failure.
                if !failing && !matches!(error, FollowError::Store(StoreError::Fenced)) {
                    tracing::warn!(%error, "series cannot be kept up; trying again");
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop.cancelled() => {}
                }
            }
            failing = ended.is_err();
        }
    }

    /// Until `stop`, or until the lease has come to us: what we have is ours alone, so that whoever
    /// begins to write begins with what is written.
    async fn follow(&self, stop: &CancellationToken) -> Result<(), FollowError> {
        let fence = self.0.store.lease(NAME, &self.0.holder).await?;
        let began = tokio::select! {
            began = self.begin(fence.as_ref()) => began?,
            lost = self.renew(fence.as_ref()) => return lost,
            () = stop.cancelled() => {
                let Some(fence) = fence else { return Ok(()) };
                return Ok(self.0.store.release(&fence).await?);
            }
        };
        let (table, clean, reader) = began;
        let packer = Packer::new()?;
        let reached = table.applied;
        self.0.table.write().become_new(table);
        self.0.tell(reached, true);
        let holding = fence.map(|fence| (fence, Instant::now()));
        let round = Round::over(clean.offset);
        Follower { series: self, reader, clean, holding, round, packer }.run(stop).await
    }

    /// Keeps a lease; ends when it is lost.
    async fn renew(&self, fence: Option<&Fence>) -> Result<(), FollowError> {
        let Some(fence) = fence else { return std::future::pending().await };
        loop {
            tokio::time::sleep(RENEW).await;
            if self.0.store.lease(NAME, &self.0.holder).await?.as_ref() != Some(fence) {
                return Ok(());
            }
        }
    }

    /// Reads the store, and the log from there up to its head. `fence` is the lease, if it is ours.
    pub(super) async fn begin(
        &self,
        fence: Option<&Fence>,
    ) -> Result<(Table, Position, Reader), FollowError> {
        let Inner { store, broker, clock, .. } = &*self.0;
        // The position first: what is read after it is at least as new, and says how new.
        let cursor = store.load_cursor(NAME).await?;
        let (clean, is_lost) = match cursor {
            None => (broker.position(0), false),
            Some(position) => match broker.resume(position).await? {
                Resumption::From(offset) => (broker.position(offset), false),
                Resumption::Lost(to) => (to, true),
            },
        };
        let now = clock.now();
        let rows = stream::iter(store.rows(NAME).await?).map(|row| async move {
            let parts = store.parts(NAME, &row, hot_columns(now)).await?;
            // One that is broken must not cost the others.
            let track = Track::restore(&row, parts, now).unwrap_or_else(|error| {
                tracing::error!(row, %error, "a series begins anew");
                None
            });
            Ok::<_, FollowError>(track)
        });
        let mut rows = rows.buffer_unordered(READERS);
        let mut table = self.0.new_table();
        let mut heads = Vec::new();
        while let Some(track) = rows.try_next().await? {
            let Some(mut track) = track else { continue };
            if is_lost {
                heads.extend(track.forget_after(clean.offset)?);
            }
            table.restore(track);
        }
        if let Some(fence) = fence
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
        let mut reader = Reader::new(everything(), broker.clone(), clean.offset);
        if is_lost {
            reader = reader.behind_gap();
        }
        let head = broker.head().offset;
        while table.applied < head {
            let delivery = reader.next().await?;
            self.0.note_gap(cursor, &delivery);
            table.apply(&delivery, clock.now());
            tokio::task::yield_now().await; // there may be much of it
        }
        Ok((table, clean, reader))
    }
}

impl Follower<'_> {
    async fn run(mut self, stop: &CancellationToken) -> Result<(), FollowError> {
        let inner = self.series.0.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.end().await,
                _ = tick.tick() => {
                    if self.holding.is_none() && self.is_ours_now().await? {
                        return Ok(());
                    }
                    self.renew().await?;
                    self.look_after().await?;
                }
                delivery = self.reader.next() => {
                    let delivery = delivery?;
                    inner.note_gap(Some(self.clean), &delivery);
                    let now = inner.clock.now();
                    let changed = inner.table.write().apply(&delivery, now);
                    inner.tell(delivery.position.offset, changed);
                }
            }
        }
    }

    /// Writes everything and gives the lease back.
    async fn end(mut self) -> Result<(), FollowError> {
        if self.holding.is_none() {
            return Ok(());
        }
        self.round = self.new_round();
        self.round.slice = usize::MAX;
        self.slice().await?;
        if let Some((fence, _)) = self.holding {
            self.series.0.store.release(&fence).await?;
        }
        Ok(())
    }

    async fn is_ours_now(&self) -> Result<bool, FollowError> {
        let Inner { store, holder, .. } = &*self.series.0;
        Ok(store.lease(NAME, holder).await?.is_some())
    }

    async fn renew(&mut self) -> Result<(), FollowError> {
        let Inner { store, holder, .. } = &*self.series.0;
        let Some((fence, renewed)) = &mut self.holding else { return Ok(()) };
        if renewed.elapsed() < RENEW {
            return Ok(());
        }
        if store.lease(NAME, holder).await?.as_ref() != Some(&*fence) {
            return Err(StoreError::Fenced.into());
        }
        *renewed = Instant::now();
        Ok(())
    }

    /// Begins a round when it is time, and does a piece of it.
    async fn look_after(&mut self) -> Result<(), FollowError> {
        let inner = &*self.series.0;
        if self.round.places.is_empty() {
            if self.round.began.elapsed() < inner.config.save_every.0 {
                return Ok(());
            }
            if self.holding.is_none()
                && let Some(position) = inner.store.load_cursor(NAME).await?
            {
                self.clean = position;
            }
            self.round = self.new_round();
        }
        self.slice().await
    }

    fn new_round(&self) -> Round {
        let Inner { table, config, .. } = &*self.series.0;
        let table = table.read();
        let places = table.places();
        let ticks = config.save_every.0.as_secs() / TICK.as_secs() / 2;
        let slice = places.len() / usize::try_from(ticks.max(1)).unwrap_or(usize::MAX);
        let began = Instant::now();
        Round { through: table.applied, places, slice: slice.max(SLICE), began }
    }

    /// Looks after the next few series; after the last ones the position is noted.
    async fn slice(&mut self) -> Result<(), FollowError> {
        let left = self.round.places.len().saturating_sub(self.round.slice);
        let mut parts = Vec::new();
        for place in self.round.places.split_off(left) {
            self.renew().await?; // there may be much to read
            parts.append(&mut self.tend(place).await?);
            if parts.iter().map(size).sum::<usize>() >= SAVE_BYTES {
                self.save(self.clean, std::mem::take(&mut parts)).await?;
            }
        }
        if left > 0 {
            return self.save(self.clean, parts).await;
        }
        let through = self.series.0.broker.position(self.round.through);
        if through != self.clean || !parts.is_empty() {
            self.save(through, parts).await?;
        }
        Ok(())
    }

    async fn tend(&mut self, place: usize) -> Result<Vec<Part>, FollowError> {
        let inner = &*self.series.0;
        if self.holding.is_some() {
            let wanting = inner
                .table
                .read()
                .track(place)
                .map(|track| (track.row.clone(), track.wanting(self.clean.offset)));
            let (row, columns) = wanting.unwrap_or_default();
            for column in columns {
                let stored = self.series.stored(&row, column..column + 1).await?;
                let stored = stored.first().map(|(_, bytes)| &bytes[..]);
                if let Some(track) = inner.table.write().track_mut(place) {
                    track.fill(column, stored)?;
                }
            }
        }
        let now = inner.clock.now();
        let mut table = inner.table.write();
        Ok(table.tend(place, self.clean.offset, now, &mut self.packer)?)
    }

    async fn save(&mut self, position: Position, parts: Vec<Part>) -> Result<(), FollowError> {
        let Some((fence, _)) = &self.holding else { return Ok(()) };
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

fn size(part: &Part) -> usize {
    part.row.len() + part.bytes.as_ref().map_or(0, |bytes| bytes.len()) + 16
}

/// Every topic, the hub's own too.
fn everything() -> TopicFilter {
    TopicFilter::new(["**", "hub.**"].into_iter().filter_map(|text| TopicPattern::parse(text).ok()))
}
