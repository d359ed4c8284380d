//! Reading series: memory first, and the store for what is no longer there.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    QueryError, Series,
    chunk::Bucket,
    figure::{Folder, Stretch, histogram_percentile},
    query::{Aggregate, Columns, Described, Grid, LOOKBACK, MAX_SERIES, MAX_VALUES, QuerySpec},
    raw::{by_second, merged},
    sample::{Kind, Labels, Name},
    timeseries::{Identity, Point, Timeseries, read_stored},
};
use crate::time::{Millis, Span};

/// Which series are read: asked with each that has the name and the labels, or is a part of the
/// histogram of that name.
pub type May<'a> = &'a (dyn Fn(&Identity) -> bool + Send + Sync);

/// One series read into the stretches of a grid.
pub(super) struct Row {
    pub(super) identity: Arc<Identity>,
    pub(super) stretches: Vec<Stretch>,
}

/// What is asked of the series of a name.
#[derive(Clone, Copy)]
struct Question<'a> {
    /// Only of those that have all of these.
    labels: &'a Labels,
    agg: Aggregate,
    grid: Grid,
    may: May<'a>,
    /// The most series there may be.
    most: usize,
}

/// What was copied of a series while the lock was held.
pub(super) struct Copied {
    identity: Arc<Identity>,
    row: Box<str>,
    /// Where the question is one of seconds.
    raw: Vec<Bytes>,
    buckets: Vec<(Millis, Bucket)>,
    /// The columns of the chunks that only the store has.
    missing: Vec<u64>,
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
        agg: Aggregate,
        window: Option<Span>,
        now: Millis,
        may: May<'_>,
    ) -> Result<Option<f64>, QueryError> {
        let Some(window) = window else { return Ok(self.ever(name, labels, agg, may)) };
        let grid = Grid::window(window, &self.keep(), now);
        let seconds = window.0.as_secs_f64().max(1.0);
        let mut found: Option<(Kind, Stretch)> = None;
        let join = |Row { identity, stretches }| {
            let (_, whole) = found.get_or_insert((identity.kind, Stretch::default()));
            stretches.into_iter().for_each(|part| whole.join(part));
        };
        let question = Question { labels, agg, grid, may, most: usize::MAX };
        self.rows(name, question, join).await?;
        if let Some((kind, mut whole)) = found {
            return Ok(whole.figure(kind, agg, seconds));
        }
        let histograms = self.histograms(name, question).await?.into_values();
        let whole = histograms.map(|(_, stretches)| stretches).reduce(|mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| a.join(b));
            a
        });
        Ok(whole.and_then(|whole| whole.first()?.figure(agg, seconds)))
    }

    /// What has been since the series began.
    fn ever(&self, name: &Name, labels: &Labels, agg: Aggregate, may: May<'_>) -> Option<f64> {
        let table = self.table();
        let whole = |name: &Name| {
            let timeseries = table.find(name, labels).map(|(_, timeseries)| timeseries);
            let timeseries = timeseries.filter(|timeseries| may(&timeseries.identity));
            let mut timeseries: Vec<_> = timeseries.collect();
            timeseries.sort_by_key(|timeseries| timeseries.identity.order());
            let whole = timeseries.iter().map(|timeseries| timeseries.ever).reduce(Bucket::and)?;
            Some((timeseries.first()?.identity.kind, whole))
        };
        if let Some((kind, bucket)) = whole(name) {
            return ever_figure(kind, agg, bucket);
        }
        let of = |suffix| whole(&part(name, suffix)?).map(|(_, bucket)| bucket.increase);
        match agg {
            Aggregate::Avg => of("_sum").zip(of("_count")).map(|(sum, count)| sum / count),
            Aggregate::Sum => of("_sum"),
            Aggregate::Count | Aggregate::Increase => of("_count"),
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
            (None, Kind::Gauge) => Aggregate::Avg,
            (None, Kind::Counter) => Aggregate::Rate,
        };
        let wanted = spec.agg.unwrap_or(Aggregate::Avg);
        let mut columns = Columns {
            times: grid.times(),
            values: Vec::new(),
            series: Vec::new(),
            step: grid.step / 1000,
            since: since / 1000,
        };
        // Of a stretch that begins before samples are kept nobody knows all.
        let is_known = |at: &usize| grid.start(*at) >= since;
        let seconds = |at| grid.seconds(at, now);
        let show = |Row { identity, stretches }| {
            let agg = agg_of(identity.kind);
            let figures = stretches.into_iter().enumerate();
            let figures = figures.map(|(at, mut part)| {
                Some(at).filter(is_known)?;
                part.figure(identity.kind, agg, seconds(at))
            });
            columns.values.push(figures.collect());
            let Identity { topic, labels, unit, .. } = Arc::unwrap_or_clone(identity);
            let unit = unit.filter(|_| agg != Aggregate::Count);
            columns.series.push(Described { topic: topic.to_string(), labels, agg, unit });
        };
        let question = Question { labels, agg: wanted, grid, may, most: MAX_SERIES };
        self.rows(name, question, show).await?;
        if columns.series.is_empty() {
            let histograms = self.histograms(name, question).await?;
            for ((topic, labels), (unit, stretches)) in histograms {
                let figures = stretches.iter().enumerate();
                let figures = figures.map(|(at, part)| {
                    Some(at).filter(is_known)?;
                    part.figure(wanted, seconds(at))
                });
                columns.values.push(figures.collect());
                // How many observations there were is not in the unit of what was observed.
                let unit = unit
                    .filter(|_| matches!(wanted, Aggregate::Avg | Aggregate::Sum | Aggregate::P95));
                columns.series.push(Described { topic, labels, agg: wanted, unit });
            }
        }
        Ok(columns)
    }

    /// The newest value of all series of the name that have the labels.
    pub fn newest(&self, name: &Name, labels: &Labels) -> Option<Point> {
        let table = self.table();
        let found = table.find(name, labels).map(|(_, timeseries)| timeseries);
        let newest =
            found.max_by_key(|timeseries| (timeseries.newest().time, timeseries.identity.order()));
        newest.map(Timeseries::newest)
    }

    /// What there is of the histograms called `name`.
    async fn histograms(
        &self,
        name: &Name,
        question: Question<'_>,
    ) -> Result<Histograms, QueryError> {
        let Question { labels, agg, grid, most, .. } = question;
        let suffixes: &[&str] = match agg {
            Aggregate::Avg => &["_sum", "_count"],
            Aggregate::Sum => &["_sum"],
            Aggregate::Count | Aggregate::Increase | Aggregate::Rate => &["_count"],
            Aggregate::P95 => &["_bucket"],
            Aggregate::Min | Aggregate::Max | Aggregate::Last => &[],
        };
        let mut found = Histograms::new();
        let units = self.units(name, labels);
        for suffix in suffixes {
            let Some(name) = part(name, suffix) else { continue };
            // A histogram has a series for each bound, and one for what lies above.
            let most = most.saturating_mul(super::typed::MAX_BOUNDS + 1);
            let question = Question { most, ..question };
            let take = |Row { identity, stretches }| {
                let Identity { topic, labels, .. } = &*identity;
                let bound = labels.get("le").and_then(|bound| bound.parse::<f64>().ok());
                let key = (topic.to_string(), labels.without("le"));
                let new = |key: &_| {
                    (units.get(key).cloned().flatten(), vec![Histogram::default(); grid.count])
                };
                let (_, histogram) = found.entry(key).or_insert_with_key(new);
                for (whole, part) in histogram.iter_mut().zip(stretches) {
                    whole.take(suffix, bound, part.increase());
                }
            };
            self.rows(&name, question, take).await?;
        }
        if found.len() > most {
            return Err(QueryError::TooMany { found: found.len(), most });
        }
        Ok(found)
    }

    /// The units of the histograms called `name`, which are those of their sums.
    fn units(&self, name: &Name, labels: &Labels) -> BTreeMap<(String, Labels), Option<Box<str>>> {
        let Some(name) = part(name, "_sum") else { return BTreeMap::new() };
        let table = self.table();
        let sums = table.find(&name, labels).map(|(_, timeseries)| &*timeseries.identity);
        let unit = |sum: &Identity| ((sum.topic.to_string(), sum.labels.clone()), sum.unit.clone());
        sums.map(unit).collect()
    }

    /// Reads the series of a name one after the other, ordered by topic and labels: what there is of
    /// all of them at once may be more than memory has room for.
    async fn rows(
        &self,
        name: &Name,
        Question { labels, agg, grid, may, most }: Question<'_>,
        mut take: impl FnMut(Row) + Send,
    ) -> Result<(), QueryError> {
        let found: Vec<(usize, Box<str>)> = {
            let table = self.table();
            let found = table.find(name, labels);
            let found = found.filter(|(_, timeseries)| may(&timeseries.identity));
            let mut found: Vec<_> = found.collect();
            // Nodes hear of series in different orders, and all are to answer the same.
            found.sort_by_key(|(_, timeseries)| timeseries.identity.order());
            found.into_iter().map(|(place, timeseries)| (place, timeseries.row.clone())).collect()
        };
        let most = most.min(MAX_VALUES / grid.count.max(1));
        if found.len() > most {
            return Err(QueryError::TooMany { found: found.len(), most });
        }
        for (place, row) in found {
            let Some(series) = self.copy(place, &row, grid) else { continue };
            take(self.complete(series, agg, grid).await?);
            tokio::task::yield_now().await; // there may be many of them
        }
        Ok(())
    }

    /// What memory has of one series; None if it is gone.
    fn copy(&self, place: usize, row: &str, grid: Grid) -> Option<Copied> {
        let table = self.table();
        let timeseries = table.timeseries(place).filter(|timeseries| *timeseries.row == *row)?;
        Some(Copied::of(timeseries, grid))
    }

    /// Reads what memory lacks from the store, and puts all of it into stretches.
    pub(super) async fn complete(
        &self,
        series: Copied,
        agg: Aggregate,
        grid: Grid,
    ) -> Result<Row, QueryError> {
        let Copied { identity, row, raw, mut buckets, missing } = series;
        if !raw.is_empty() {
            // Before the range too, for what a counter had counted until then.
            let (from, to) = range(grid);
            let samples = merged(&raw, (0, to.saturating_sub(1))).unwrap_or_else(|error| {
                tracing::error!(row, %error, "raw samples are left out");
                Vec::new()
            });
            buckets = by_second(&samples);
            buckets.retain(|(time, _)| *time >= from);
        }
        for (column, bytes) in self.stored(&row, missing).await? {
            // One that is broken must not cost the others.
            let read = read_stored(column, &bytes, identity.kind, range(grid), &mut buckets);
            read.unwrap_or_else(|error| {
                tracing::error!(row, column, %error, "a stored chunk is left out");
            });
        }
        buckets.sort_by_key(|(time, _)| *time);
        let mut folder = Folder::new(identity.kind, agg);
        let mut stretches = vec![Stretch::default(); grid.count];
        for (time, bucket) in buckets {
            match grid.index(time) {
                Some(at) => folder.add(&mut stretches[at], bucket),
                None => folder.skip(bucket),
            }
        }
        Ok(Row { identity, stretches })
    }
}

impl Copied {
    /// What memory has of a series.
    pub(super) fn of(timeseries: &Timeseries, grid: Grid) -> Self {
        let (identity, row) = (timeseries.identity.clone(), timeseries.row.clone());
        let (mut raw, mut buckets, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        if grid.resolution == 0 {
            raw = timeseries.raw.pieces(0, range(grid).1);
        } else {
            missing = timeseries.read(grid.resolution, range(grid), &mut buckets);
        }
        Self { identity, row, raw, buckets, missing }
    }
}

/// What a series comes to since it began.
pub(super) fn ever_figure(kind: Kind, agg: Aggregate, bucket: Bucket) -> Option<f64> {
    match (kind, agg) {
        (Kind::Gauge, Aggregate::Avg) => Some(bucket.sum / bucket.count),
        (Kind::Counter, Aggregate::Increase | Aggregate::Sum) => Some(bucket.increase),
        (Kind::Gauge, Aggregate::Sum) => Some(bucket.sum),
        (_, Aggregate::Min) => Some(bucket.min),
        (_, Aggregate::Max) => Some(bucket.max),
        (_, Aggregate::Last) => Some(bucket.last),
        (_, Aggregate::Count) => Some(bucket.count),
        _ => None,
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

    fn figure(&self, agg: Aggregate, seconds: f64) -> Option<f64> {
        match agg {
            Aggregate::Avg => Some(self.sum? / self.count.filter(|count| *count > 0.0)?),
            Aggregate::Sum => self.sum,
            Aggregate::Count | Aggregate::Increase => self.count,
            Aggregate::Rate => self.count.map(|count| count / seconds),
            Aggregate::P95 => histogram_percentile(&mut self.totals.clone()),
            Aggregate::Min | Aggregate::Max | Aggregate::Last => None,
        }
    }
}
