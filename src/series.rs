//! Series: the numbers in events over time. Every node follows the log and keeps the newest buckets
//! of all series in memory; the node that holds the lease writes them to the store, from which every
//! node begins.
//!
//! docs/series.md tells what becomes a series, and how to ask.

mod at_once;
mod bits;
mod chunk;
mod column;
mod compact;
pub mod derive;
pub mod extract;
mod figure;
mod follow;
mod incoming;
mod intake;
mod metadata;
mod pack;
mod query;
mod raw;
mod raw_run;
mod read;
mod resolution;
mod rollups;
mod room;
pub mod sample;
mod select;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod timeseries;
mod typed;

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use serde::Deserialize;
use tokio::sync::watch;

pub(crate) use self::query::as_object;
pub use self::{
    at_once::{FigureQuestion, FigureSpan, Figures},
    extract::DeriveRules,
    incoming::{Found, Incoming},
    metadata::SeriesMetadata,
    query::{
        Aggregate, AggregateError, Columns, Described, MAX_POINTS, MAX_SERIES, MAX_VALUES, POINTS,
        QuerySpec,
    },
    raw_run::RawSample,
    read::May,
    sample::{Dropped, Kind, Labels, Name, Sample, SampleHint, Value},
    select::{Rollup, SelectQuery, SelectedSeries, Selection},
    timeseries::{Identity, Point},
};
use self::{
    extract::found_in,
    resolution::{AHEAD, Keep},
    table::{Bounds, Table},
    tally::Tally,
};
use crate::{
    bounds,
    bytesize::ByteSize,
    event::Event,
    follow::{Feed, Progress},
    position::{Offset, Position},
    protocol::Losses,
    store::{Store, StoreError},
    telemetry::{DroppedPart, Telemetry},
    time::{Clock, Millis, Span},
};

/// What series may be kept for, in milliseconds: 15 minutes to ten years.
const SHORTEST: u64 = 15 * 60 * bounds::SECOND;
const LONGEST: u64 = 3650 * 86_400 * bounds::SECOND;
/// The longest that raw samples may be: they are in memory.
const LONGEST_RAW: u64 = 86_400 * bounds::SECOND;

/// The `[series]` section of the configuration.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesConfig {
    /// The most series.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub max_series: usize,
    /// The most series out of one topic.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub max_per_topic: usize,
    /// The most series that one principal's events have made.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub max_per_publisher: usize,
    /// Bytes of the topics, names and labels of all series.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { 1 << 20 }>")]
    pub max_bytes: ByteSize,
    /// Bytes of those that one principal's events have made.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { 1 << 20 }>")]
    pub max_bytes_per_publisher: ByteSize,
    /// How long samples are kept as they were sent.
    #[serde(deserialize_with = "bounds::within::<_, _, SHORTEST, LONGEST_RAW>")]
    pub raw: Span,
    /// How long the buckets of a minute are kept.
    #[serde(deserialize_with = "bounds::within::<_, _, SHORTEST, LONGEST>")]
    pub keep: Span,
    /// How often what changed is written to the store.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::SECOND }>")]
    pub save_every: Span,
    /// By how much series may grow in memory before it is written sooner.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { 1 << 20 }>")]
    pub save_bytes: ByteSize,
}

impl SeriesConfig {
    /// The times of samples that are true of what comes `now`.
    fn times(&self, now: Millis) -> RangeInclusive<Millis> {
        now.saturating_sub(self.keep.millis())..=now.saturating_add(AHEAD)
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// More series than an answer holds.
    #[error(
        "{found} series match, and an answer by this `step` has room for {most}: ask with more \
         `labels` or a longer `step`"
    )]
    TooMany {
        /// How many.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// More samples than an answer may have.
    #[error("more than {most} samples match: ask about fewer series or a shorter time")]
    TooManySamples {
        /// How many there may be.
        most: usize,
    },
    /// What is no longer in memory could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All series. Cheap to clone.
#[derive(Clone)]
pub struct Series(Arc<SeriesInner>);

struct SeriesInner {
    config: SeriesConfig,
    rules: DeriveRules,
    feed: Feed,
    store: Store,
    clock: Clock,
    telemetry: Telemetry,
    /// Where the log was when this began.
    began: Position,
    /// Held for as long as one delivery is added, one series is read or those of one projection are copied, never while
    /// waiting.
    table: RwLock<Table>,
    tally: Mutex<Tally>,
    changes: watch::Sender<u64>,
    progress: Progress,
}

/// A series in the list of all.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// What tells it from others.
    pub identity: Arc<Identity>,
    /// Its newest value.
    pub newest: Point,
}

/// What the duty is called.
const NAME: &str = "series";

impl Series {
    /// The series of this node, none yet: their [duty](crate::duty::Duty) reads them.
    pub fn new(
        config: SeriesConfig,
        rules: DeriveRules,
        feed: Feed,
        store: Store,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Self {
        let table = RwLock::new(Table::new(Bounds::new(&config), rules.clone(), telemetry.clone()));
        let began = feed.broker().head();
        Self(Arc::new(SeriesInner {
            began,
            config,
            rules,
            feed,
            store,
            clock,
            telemetry,
            table,
            tally: Mutex::default(),
            changes: watch::Sender::new(0),
            progress: Progress::default(),
        }))
    }

    /// Moves when any series has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The times that samples may have which come `now`, for who refuses the others.
    pub fn times(&self, now: Millis) -> RangeInclusive<Millis> {
        self.0.config.times(now)
    }

    /// How far the log has been followed: everything up to there is in its series.
    pub fn progress(&self) -> &Progress {
        &self.0.progress
    }

    /// The series for which `filter` holds, ordered by name, topic and labels.
    pub fn names(&self, filter: impl Fn(&Identity) -> bool) -> Vec<Listed> {
        let table = self.table();
        let found = table.all().filter(|timeseries| filter(&timeseries.identity));
        let listed = |timeseries: &timeseries::Timeseries| Listed {
            identity: timeseries.identity.clone(),
            newest: timeseries.newest(),
        };
        let mut found: Vec<_> = found.map(listed).collect();
        found.sort_by(|a, b| a.identity.order().cmp(&b.identity.order()));
        found
    }

    /// How many series there are, and how many there may be.
    pub fn room(&self) -> (usize, usize) {
        (self.table().len(), self.0.config.max_series)
    }

    /// How many samples this node has left out since it started, by reason.
    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        self.0.tally.lock().dropped.clone()
    }

    /// Adds to `losses` the samples of `events` that will be left out because their publishers have lately had no room for
    /// another series, and says which label exploded.
    pub fn crowded_out(&self, events: &[Event], losses: &mut Losses) {
        let now = self.0.clock.settled();
        for (index, event) in events.iter().enumerate() {
            let publisher = event.publisher.as_str();
            if self.table().room.crowding(publisher, now).is_none() {
                continue;
            }
            let found = found_in(event);
            let table = self.table();
            let Some(why) = table.room.crowding(publisher, now) else { continue };
            let is_new = |sample: &&Sample| !table.knows(event.topic.as_str(), sample);
            let new = found.samples.iter().filter(is_new).count();
            losses.add(DroppedPart::Sample, new, || {
                format!("event {index}: {}: {why}", Dropped::Cap)
            });
        }
    }

    /// What is said of the names of series in topics for which `may` holds: topic, name and that.
    pub fn metadata(&self, may: impl Fn(&str) -> bool) -> Vec<(String, String, SeriesMetadata)> {
        let table = self.table();
        let found = table.metadata.all().filter(|(topic, ..)| may(topic));
        found.map(|(topic, name, said)| (topic.to_owned(), name.to_owned(), said.clone())).collect()
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.0.table.read()
    }

    fn keep(&self) -> Keep {
        *self.table().keep()
    }

    async fn stored(&self, row: &str, columns: Vec<u64>) -> Result<Vec<(u64, Bytes)>, StoreError> {
        self.0.store.parts(NAME, row, columns).await
    }
}

impl SeriesInner {
    fn new_table(&self) -> Table {
        Table::new(Bounds::new(&self.config), self.rules.clone(), self.telemetry.clone())
    }

    /// Tells those who wait; with the lock given back.
    fn tell(&self, reached: Offset, has_changed: bool) {
        self.progress.reach(reached);
        if has_changed {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Says that events are missing.
    fn note_gap(&self) {
        self.telemetry.series_gaps.inc();
        tracing::warn!("events are missing in the log: series lack what was in them");
    }
}
