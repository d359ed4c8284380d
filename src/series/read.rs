//! Reading series: memory first, and the store for what is no longer there.

use std::collections::{BTreeMap, HashMap};

use super::{
    QueryError, Series,
    chunk::Bucket,
    figure::{Folder, Stretch, histogram_percentile},
    query::{Agg, Columns, Described, Grid, LOOKBACK, MAX_SERIES, MAX_VALUES, QuerySpec},
    sample::{Kind, Labels, Name},
    track::{Identity, Missing, Point},
};
use crate::time::{Millis, Span};

/// Who may read a series: asked with the topic it comes from.
pub type May<'a> = &'a (dyn Fn(&str) -> bool + Send + Sync);

/// One series read into the stretches of a grid.
struct Row {
    identity: Identity,
    stretches: Vec<Stretch>,
}

/// What was copied of a series while the lock was held.
struct Copied {
    identity: Identity,
    row: Box<str>,
    buckets: Vec<(Millis, Bucket)>,
    /// What is wanted besides from the store.
    missing: Vec<Missing>,
}

/// Units and parts of histograms, by topic and labels without the bound.
type Histograms = BTreeMap<(String, Labels), (Option<Box<str>>, Vec<Histogram>)>;

impl Series {
    /// What all series of `name` that have `labels` and may be read come to together: over the last
    /// `window`, or, without one, ever since. None where nothing is known.
    ///
    /// A window is measured in buckets of a second up to fifteen minutes, of ten seconds up to six
    /// hours, of a minute beyond. Ever since there is neither rate nor p95.
    pub async fn window(
        &self,
        name: &Name,
        labels: &Labels,
        agg: Agg,
        window: Option<Span>,
        now: Millis,
        may: May<'_>,
    ) -> Result<Option<f64>, QueryError> {
        let Some(window) = window else { return Ok(self.ever(name, labels, agg, may)) };
        let grid = Grid::window(window, &self.keep(), now);
        let seconds = window.0.as_secs_f64().max(1.0);
        let rows = self.rows(name, labels, agg, grid, may, usize::MAX).await?;
        if !rows.is_empty() {
            let kind = rows[0].identity.kind;
            let mut whole = Stretch::default();
            rows.into_iter().flat_map(|row| row.stretches).for_each(|part| whole.join(part));
            return Ok(whole.figure(kind, agg, seconds));
        }
        let histograms =
            self.histograms(name, labels, agg, grid, may, usize::MAX).await?.into_values();
        let whole = histograms.map(|(_, stretches)| stretches).reduce(|mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| a.join(b));
            a
        });
        Ok(whole.and_then(|whole| whole.first()?.figure(agg, seconds)))
    }

    /// What has been since the series began.
    fn ever(&self, name: &Name, labels: &Labels, agg: Agg, may: May<'_>) -> Option<f64> {
        let table = self.table();
        let whole = |name: &Name| {
            let tracks = table.find(name, labels).map(|(_, track)| track);
            let tracks = tracks.filter(|track| may(&track.identity.topic));
            let mut tracks: Vec<_> = tracks.collect();
            tracks.sort_by_key(|track| track.newest.time);
            let last = tracks.last()?;
            let whole = tracks.iter().map(|track| track.ever).reduce(Bucket::and)?;
            Some((last.identity.kind, Bucket { last: last.newest.value, ..whole }))
        };
        if let Some((kind, bucket)) = whole(name) {
            return match (kind, agg) {
                (Kind::Gauge, Agg::Avg) => Some(bucket.sum / bucket.count),
                (Kind::Counter, Agg::Increase) | (_, Agg::Sum) => Some(bucket.sum),
                (_, Agg::Min) => Some(bucket.min),
                (_, Agg::Max) => Some(bucket.max),
                (_, Agg::Last) => Some(bucket.last),
                (_, Agg::Count) => Some(bucket.count),
                _ => None,
            };
        }
        let of = |suffix| whole(&part(name, suffix)?).map(|(_, bucket)| bucket.sum);
        match agg {
            Agg::Avg => of("_sum").zip(of("_count")).map(|(sum, count)| sum / count),
            Agg::Sum => of("_sum"),
            Agg::Count | Agg::Increase => of("_count"),
            _ => None,
        }
        .filter(|figure| figure.is_finite())
    }

    /// Columns for a chart: a row for each series of the name that has the labels and may be read.
    pub async fn query(
        &self,
        spec: &QuerySpec,
        now: Millis,
        may: May<'_>,
    ) -> Result<Columns, QueryError> {
        let keep = self.keep();
        let grid = Grid::new(spec, &keep, now);
        let since = grid.since(&keep, now);
        let QuerySpec { name, labels, .. } = spec;
        let agg_of = |kind| match (spec.agg, kind) {
            (Some(agg), _) => agg,
            (None, Kind::Gauge) => Agg::Avg,
            (None, Kind::Counter) => Agg::Rate,
        };
        let wanted = spec.agg.unwrap_or(Agg::Avg);
        let mut columns = Columns {
            times: grid.times(),
            values: Vec::new(),
            series: Vec::new(),
            step: grid.step / 1000,
            since: since / 1000,
        };
        // Of a stretch that begins before samples are kept nobody knows all.
        let is_known = |at: &usize| grid.start(*at) >= since;
        let mut rows = self.rows(name, labels, wanted, grid, may, MAX_SERIES).await?;
        rows.sort_by(|a, b| {
            (&a.identity.topic, &a.identity.labels).cmp(&(&b.identity.topic, &b.identity.labels))
        });
        let seconds = |at| grid.seconds(at, now);
        for Row { identity, stretches } in rows {
            let agg = agg_of(identity.kind);
            let figures = stretches.into_iter().enumerate();
            let figures = figures.map(|(at, mut part)| {
                Some(at).filter(is_known)?;
                part.figure(identity.kind, agg, seconds(at))
            });
            columns.values.push(figures.collect());
            let Identity { topic, labels, unit, .. } = identity;
            columns.series.push(Described { topic: topic.to_string(), labels, agg, unit });
        }
        if columns.series.is_empty() {
            let histograms = self.histograms(name, labels, wanted, grid, may, MAX_SERIES).await?;
            for ((topic, labels), (unit, stretches)) in histograms {
                let figures = stretches.iter().enumerate();
                let figures = figures.map(|(at, part)| {
                    Some(at).filter(is_known)?;
                    part.figure(wanted, seconds(at))
                });
                columns.values.push(figures.collect());
                // How many observations there were is not in the unit of what was observed.
                let unit = unit.filter(|_| matches!(wanted, Agg::Avg | Agg::Sum | Agg::P95));
                columns.series.push(Described { topic, labels, agg: wanted, unit });
            }
        }
        Ok(columns)
    }

    /// The newest value of all series of the name that have the labels.
    pub fn newest(&self, name: &Name, labels: &Labels) -> Option<Point> {
        let table = self.table();
        table.find(name, labels).map(|(_, track)| track.newest).max_by_key(|point| point.time)
    }

    /// What there is of the histograms called `name`.
    async fn histograms(
        &self,
        name: &Name,
        labels: &Labels,
        agg: Agg,
        grid: Grid,
        may: May<'_>,
        most: usize,
    ) -> Result<Histograms, QueryError> {
        let suffixes: &[&str] = match agg {
            Agg::Avg => &["_sum", "_count"],
            Agg::Sum => &["_sum"],
            Agg::Count | Agg::Increase | Agg::Rate => &["_count"],
            Agg::P95 => &["_bucket"],
            Agg::Min | Agg::Max | Agg::Last => &[],
        };
        let mut found = Histograms::new();
        for suffix in suffixes {
            let Some(name) = part(name, suffix) else { continue };
            // A histogram has a series for each bound, and one for what lies above.
            let most = most.saturating_mul(super::extract::MAX_BOUNDS + 1);
            for row in self.rows(&name, labels, agg, grid, may, most).await? {
                let Identity { topic, labels, unit, .. } = row.identity;
                let key = (topic.to_string(), labels.without("le"));
                let bound = labels.get("le").and_then(|bound| bound.parse::<f64>().ok());
                let new = || (unit, vec![Histogram::default(); grid.count]);
                let (_, histogram) = found.entry(key).or_insert_with(new);
                for (whole, part) in histogram.iter_mut().zip(row.stretches) {
                    whole.take(suffix, bound, part.increase());
                }
            }
        }
        if found.len() > most {
            return Err(QueryError::TooMany { found: found.len(), most });
        }
        Ok(found)
    }

    async fn rows(
        &self,
        name: &Name,
        labels: &Labels,
        agg: Agg,
        grid: Grid,
        may: May<'_>,
        most: usize,
    ) -> Result<Vec<Row>, QueryError> {
        let found: Vec<(usize, Box<str>)> = {
            let table = self.table();
            let found = table.find(name, labels);
            let found = found.filter(|(_, track)| may(&track.identity.topic));
            found.map(|(place, track)| (place, track.row.clone())).collect()
        };
        let most = most.min(MAX_VALUES / grid.count.max(1));
        if found.len() > most {
            return Err(QueryError::TooMany { found: found.len(), most });
        }
        let mut rows = Vec::with_capacity(found.len());
        for (place, row) in found {
            // One after the other: the buckets of all at once may be more than memory has room for.
            let Some(series) = self.copy(place, row, grid) else { continue };
            rows.push(self.complete(series, agg, grid).await?);
            tokio::task::yield_now().await; // there may be many of them
        }
        Ok(rows)
    }

    /// What memory has of one series; None if it is gone.
    fn copy(&self, place: usize, row: Box<str>, grid: Grid) -> Option<Copied> {
        let table = self.table();
        let track = table.track(place).filter(|track| track.row == row)?;
        let mut buckets = Vec::new();
        let missing = track.read(grid.tier, range(grid), &mut buckets);
        Some(Copied { identity: track.identity.clone(), row, buckets, missing })
    }

    /// Reads what memory lacks from the store, and puts all of it into stretches.
    async fn complete(&self, series: Copied, agg: Agg, grid: Grid) -> Result<Row, QueryError> {
        let Copied { identity, row, mut buckets, missing } = series;
        let ends = missing.first().zip(missing.last());
        if let Some(columns) = ends.map(|(first, last)| first.column..last.column + 1) {
            let stored: HashMap<_, _> = self.stored(&row, columns).await?.into_iter().collect();
            for chunk in missing {
                let stored = stored.get(&chunk.column).map(|bytes| &bytes[..]);
                chunk.read(stored, range(grid), &mut buckets)?;
            }
        }
        // Of equal times what is stored comes first, and what came late behind it.
        buckets.sort_by_key(|(time, _)| *time);
        buckets.dedup_by(|(later, next), (time, bucket)| {
            let is_same = later == time;
            if is_same {
                *bucket = bucket.and(*next);
            }
            is_same
        });
        let mut folder = Folder::new(identity.kind, agg);
        let mut stretches = vec![Stretch::default(); grid.count];
        for (time, bucket) in buckets {
            match grid.index(time) {
                Some(at) => folder.add(&mut stretches[at], time, bucket),
                None => folder.skip(bucket),
            }
        }
        Ok(Row { identity, stretches })
    }
}

/// What is read for a grid: a little before it, too, for what was added at its beginning.
fn range(grid: Grid) -> (Millis, Millis) {
    (grid.from.saturating_sub(LOOKBACK), grid.to())
}

/// The name of a part of a histogram.
fn part(name: &Name, suffix: &str) -> Option<Name> {
    Name::new(&format!("{name}{suffix}")).ok()
}

/// What is known of a histogram in one stretch.
#[derive(Debug, Clone, Default)]
struct Histogram {
    sum: Option<f64>,
    count: Option<f64>,
    /// How much was observed at or below each bound.
    totals: Vec<(f64, f64)>,
}

impl Histogram {
    fn take(&mut self, suffix: &str, bound: Option<f64>, increase: Option<f64>) {
        let Some(increase) = increase else { return };
        match (suffix, bound) {
            ("_sum", _) => *self.sum.get_or_insert_default() += increase,
            ("_count", _) => *self.count.get_or_insert_default() += increase,
            (_, Some(bound)) => match self.totals.iter_mut().find(|(found, _)| *found == bound) {
                Some((_, total)) => *total += increase,
                None => self.totals.push((bound, increase)),
            },
            _ => {}
        }
    }

    fn join(&mut self, other: Self) {
        self.take("_sum", None, other.sum);
        self.take("_count", None, other.count);
        for (bound, total) in other.totals {
            self.take("_bucket", Some(bound), Some(total));
        }
    }

    fn figure(&self, agg: Agg, seconds: f64) -> Option<f64> {
        match agg {
            Agg::Avg => Some(self.sum? / self.count.filter(|count| *count > 0.0)?),
            Agg::Sum => self.sum,
            Agg::Count | Agg::Increase => self.count,
            Agg::Rate => self.count.map(|count| count / seconds),
            Agg::P95 => histogram_percentile(&mut self.totals.clone()),
            Agg::Min | Agg::Max | Agg::Last => None,
        }
    }
}
