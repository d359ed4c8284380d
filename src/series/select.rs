//! Reading whole series for who computes with their samples: raw ones for the newest hour, rollups before it.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    QueryError, Series,
    chunk::Bucket,
    raw::merged,
    raw_run::RawSample,
    resolution::RESOLUTIONS,
    timeseries::{Identity, Timeseries, read_stored},
};
use crate::{position::Offset, time::Millis};

/// Which samples of which series are wanted.
#[derive(Clone, Copy)]
pub struct SelectQuery<'a> {
    /// The name, where only one is wanted: it is looked up. Without it all series are looked at.
    pub name: Option<&'a str>,
    /// Asked with each candidate, while nothing can be added to any series.
    pub matches: &'a (dyn Fn(&Identity) -> bool + Send + Sync),
    /// From when on, itself included.
    pub from: Millis,
    /// Until when, itself included.
    pub to: Millis,
    /// The most series there may be.
    pub most_series: usize,
    /// The most samples and rollups of all of them.
    pub most_samples: usize,
}

/// The series that were found.
#[derive(Debug)]
pub struct Selection {
    /// In the order of their names, topics and labels, on every node alike.
    pub series: Vec<SelectedSeries>,
    /// From here on every sample is among the raw ones.
    pub raw_since: Millis,
    /// Whether rollups stand for what was asked for before that.
    pub is_rolled_up: bool,
    /// All events up to here are in it.
    pub through: Offset,
}

/// One series.
#[derive(Debug)]
pub struct SelectedSeries {
    /// Its topic, name and labels, and how it is read.
    pub identity: Arc<Identity>,
    /// Samples in order of time, stale markers among them. Of equal times only the last is there, but of derived
    /// series, of which each event is a sample.
    pub raw: Vec<RawSample>,
    /// In order of time; all end before the first raw sample may be.
    pub rollups: Vec<Rollup>,
}

/// What is known of a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rollup {
    /// When it begins.
    pub start: Millis,
    /// How long it is.
    pub width: Millis,
    /// How many samples, without stale markers.
    pub count: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The sum of the values.
    pub sum: f64,
    /// What a counter of these values has counted, from the sample before the stretch on; a fall is a new beginning.
    pub increase: f64,
    /// The newest value.
    pub last: f64,
    /// When that was.
    pub last_at: Millis,
    /// Whether the series had ended at the end of the stretch.
    pub is_stale: bool,
}

/// What was copied of a series while the lock was held.
struct CopiedSamples {
    identity: Arc<Identity>,
    row: Box<str>,
    is_derived: bool,
    raw: Vec<Bytes>,
    buckets: Vec<(Millis, Bucket)>,
    missing: Vec<u64>,
}

/// Where raw samples begin, and what stands before them.
#[derive(Clone, Copy)]
struct SelectPlan {
    resolution: usize,
    from: Millis,
    raw_since: Millis,
    to: Millis,
    is_rolled_up: bool,
}

impl Series {
    /// The series for which a query holds, and their samples. Where raw samples reach back far enough, nothing is waited for.
    pub async fn select(&self, query: SelectQuery<'_>) -> Result<Selection, QueryError> {
        let now = self.0.clock.settled();
        let (through, plan, copied) = {
            let table = self.table();
            let keep = table.keep();
            let plan = SelectPlan::new(&query, keep.raw, keep.resolutions, now);
            let mut found: Vec<_> = table.candidates(query.name).collect();
            found.retain(|timeseries| (query.matches)(&timeseries.identity));
            if found.len() > query.most_series {
                let (found, most) = (found.len(), query.most_series);
                return Err(QueryError::TooMany { found, most });
            }
            found.sort_by_key(|timeseries| timeseries.identity.order());
            let copy =
                |timeseries| CopiedSamples::of(timeseries, table.is_derived(timeseries), plan);
            (table.applied, plan, found.into_iter().map(copy).collect::<Vec<_>>())
        };
        let mut series = Vec::with_capacity(copied.len());
        let mut left = query.most_samples;
        for copied in copied {
            let selected = self.complete_samples(copied, plan).await?;
            let taken = selected.raw.len() + selected.rollups.len();
            let most = query.most_samples;
            left = left.checked_sub(taken).ok_or(QueryError::TooManySamples { most })?;
            series.push(selected);
        }
        let SelectPlan { raw_since, is_rolled_up, .. } = plan;
        Ok(Selection { series, raw_since, is_rolled_up, through })
    }

    /// What tells the series for which `matches` holds from others, in their order; only those called `name`, if it is given.
    pub fn identities(
        &self,
        name: Option<&str>,
        matches: &(dyn Fn(&Identity) -> bool + Send + Sync),
    ) -> Vec<Arc<Identity>> {
        let table = self.table();
        let found = table.candidates(name).filter(|timeseries| matches(&timeseries.identity));
        let mut found: Vec<_> = found.map(|timeseries| timeseries.identity.clone()).collect();
        found.sort_by(|a, b| a.order().cmp(&b.order()));
        found
    }

    async fn complete_samples(
        &self,
        copied: CopiedSamples,
        plan: SelectPlan,
    ) -> Result<SelectedSeries, QueryError> {
        let CopiedSamples { identity, row, is_derived, raw, mut buckets, missing } = copied;
        let range = (plan.from, plan.raw_since);
        for (column, bytes) in self.stored(&row, missing).await? {
            // One that is broken must not cost the others.
            let read = read_stored(column, &bytes, identity.kind, range, &mut buckets);
            read.unwrap_or_else(|error| {
                tracing::error!(row, column, %error, "a stored chunk is left out");
            });
        }
        buckets.sort_by_key(|(start, _)| *start);
        let width = RESOLUTIONS[plan.resolution].width;
        let rollups = buckets.into_iter().map(|(start, bucket)| Rollup::of(start, width, bucket));
        let from = if plan.is_rolled_up { plan.raw_since } else { plan.from };
        let mut raw = merged(&raw, (from, plan.to)).unwrap_or_else(|error| {
            tracing::error!(row, %error, "raw samples are left out");
            Vec::new()
        });
        if !is_derived {
            // Of equal times the one that came last counts.
            raw.reverse();
            raw.dedup_by_key(|sample| sample.time);
            raw.reverse();
        }
        Ok(SelectedSeries { identity, raw, rollups: rollups.collect() })
    }
}

impl SelectPlan {
    /// Raw samples as far back as all are there, and before them rollups of the finest width that is kept for the range.
    fn new(
        query: &SelectQuery<'_>,
        raw: Millis,
        resolutions: [Millis; RESOLUTIONS.len()],
        now: Millis,
    ) -> Self {
        let SelectQuery { from, to, .. } = *query;
        let oldest = now.saturating_sub(raw);
        let is_rolled_up = from < oldest;
        let is_kept = |resolution: &usize| from.saturating_add(resolutions[*resolution]) >= now;
        let resolution = (1..RESOLUTIONS.len()).find(is_kept).unwrap_or(RESOLUTIONS.len() - 1);
        let width = RESOLUTIONS[resolution].width;
        let raw_since = if is_rolled_up { oldest.next_multiple_of(width) } else { oldest };
        // Rollups begin with the one in which that lies.
        let from = if is_rolled_up { from / width * width } else { from };
        Self { resolution, from, raw_since, to, is_rolled_up }
    }
}

impl CopiedSamples {
    fn of(timeseries: &Timeseries, is_derived: bool, plan: SelectPlan) -> Self {
        let mut buckets = Vec::new();
        let mut missing = Vec::new();
        if plan.is_rolled_up {
            let end = plan.raw_since.min(plan.to.saturating_add(1));
            missing = timeseries.read(plan.resolution, (plan.from, end), &mut buckets);
        }
        let from = if plan.is_rolled_up { plan.raw_since } else { plan.from };
        Self {
            identity: timeseries.identity.clone(),
            row: timeseries.row.clone(),
            is_derived,
            raw: timeseries.raw.pieces(from, plan.to),
            buckets,
            missing,
        }
    }
}

impl Rollup {
    fn of(start: Millis, width: Millis, bucket: Bucket) -> Self {
        let Bucket { min, max, sum, increase, last, count, last_at, ended_at } = bucket;
        let is_stale = ended_at.is_some_and(|ended_at| count == 0.0 || ended_at > last_at);
        Self { start, width, count, min, max, sum, increase, last, last_at, is_stale }
    }
}
