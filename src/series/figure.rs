//! Figures made of buckets: what a stretch of time comes to.

use super::{chunk::Bucket, query::Aggregate, sample::Kind};

/// What is known of a stretch of time.
#[derive(Debug, Clone, Default)]
pub(super) struct Stretch {
    /// All its buckets as one.
    bucket: Option<Bucket>,
    /// What was added in it; None where that cannot be told.
    increase: Option<f64>,
    /// The mean and the weight of each bucket, where a percentile is wanted.
    points: Vec<(f64, f64)>,
}

/// Puts the buckets of one series, in order of time, into stretches.
pub(super) struct Folder {
    kind: Kind,
    wants_points: bool,
    /// The value before.
    before: Option<f64>,
}

impl Folder {
    pub(super) fn new(kind: Kind, agg: Aggregate) -> Self {
        let wants_points = agg == Aggregate::P95 && kind == Kind::Gauge;
        Self { kind, wants_points, before: None }
    }

    /// Passes over a bucket that lies before the first stretch.
    pub(super) fn skip(&mut self, bucket: Bucket) {
        if bucket.is_empty() {
            return;
        }
        self.before = Some(bucket.last);
    }

    /// Adds a bucket to the stretch it lies in.
    pub(super) fn add(&mut self, stretch: &mut Stretch, bucket: Bucket) {
        if bucket.is_empty() {
            return;
        }
        let before = self.before.replace(bucket.last);
        let increase = match (self.kind, before) {
            (Kind::Counter, _) => Some(bucket.increase),
            // A gauge may be a counter that nobody declared: a fall is a new beginning.
            (Kind::Gauge, Some(before)) if bucket.last < before => Some(bucket.last.max(0.0)),
            (Kind::Gauge, Some(before)) => Some(bucket.last - before),
            (Kind::Gauge, None) => None,
        };
        stretch.increase = sum(stretch.increase, increase);
        if self.wants_points {
            stretch.points.push((bucket.sum / bucket.count, bucket.count));
        }
        stretch.bucket = Some(stretch.bucket.map_or(bucket, |before| before.and(bucket)));
    }
}

impl Stretch {
    /// What is asked for, of a stretch of so many seconds.
    pub(super) fn figure(&mut self, kind: Kind, agg: Aggregate, seconds: f64) -> Option<f64> {
        let bucket = self.bucket?;
        match agg {
            // Of a counter's totals there is no mean that means anything.
            Aggregate::Avg => (kind == Kind::Gauge).then(|| bucket.sum / bucket.count),
            Aggregate::Min => Some(bucket.min),
            Aggregate::Max => Some(bucket.max),
            Aggregate::Sum if kind == Kind::Counter => Some(bucket.increase),
            Aggregate::Sum => Some(bucket.sum),
            Aggregate::Last => Some(bucket.last),
            Aggregate::Count => Some(bucket.count),
            Aggregate::Increase => self.increase,
            Aggregate::Rate => self.increase.map(|increase| increase / seconds),
            Aggregate::P95 => percentile(&mut self.points),
        }
    }

    /// The same stretch of another series beside it.
    pub(super) fn join(&mut self, other: Self) {
        let Some(theirs) = other.bucket else { return };
        self.bucket = Some(self.bucket.map_or(theirs, |ours| ours.and(theirs)));
        self.increase = sum(self.increase, other.increase);
        self.points.extend(other.points);
    }

    /// What was added in it.
    pub(super) fn increase(&self) -> Option<f64> {
        self.increase
    }
}

fn sum(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (one, other) => one.or(other),
    }
}

const QUANTILE: f64 = 0.95;

/// The smallest of the values that at least 95 % of the weight do not exceed (nearest rank).
fn percentile(points: &mut [(f64, f64)]) -> Option<f64> {
    points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let wanted = points.iter().map(|(_, weight)| weight).sum::<f64>() * QUANTILE;
    let mut passed = 0.0;
    let found = points.iter().find(|(_, weight)| {
        passed += weight;
        passed >= wanted
    });
    found.or(points.last()).map(|(value, _)| *value)
}

/// The percentile of a histogram: `totals` is how much was observed at or below each bound. Within
/// a bucket the observations are taken to lie evenly, as Prometheus' `histogram_quantile` does;
/// what lies above the last finite bound counts as that bound.
pub(super) fn histogram_percentile(totals: &mut [(f64, f64)]) -> Option<f64> {
    totals.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (bound, all) = *totals.last()?;
    // Without the last bucket nobody knows how many there were.
    if bound != f64::INFINITY || all <= 0.0 {
        return None;
    }
    let wanted = all * QUANTILE;
    let (mut lower, mut below) = (None, 0.0f64);
    for (bound, total) in totals.iter() {
        // Bounds that came later, or a producer's rounding, must not make it fall.
        let total = total.max(below);
        if total >= wanted {
            if *bound == f64::INFINITY {
                return lower;
            }
            let start = lower.unwrap_or(if *bound > 0.0 { 0.0 } else { *bound });
            let share = if total > below { (wanted - below) / (total - below) } else { 1.0 };
            return Some(start + (bound - start) * share);
        }
        (lower, below) = (Some(*bound), total);
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let mut points: Vec<_> = (1..=100).rev().map(|n| (f64::from(n), 1.0)).collect();
        assert_eq!(percentile(&mut points), Some(95.0));
        assert_eq!(percentile(&mut [(7.0, 1.0)]), Some(7.0));
        assert_eq!(percentile(&mut [(1.0, 19.0), (9.0, 1.0)]), Some(1.0));
        assert_eq!(percentile(&mut [(1.0, 18.0), (9.0, 1.0)]), Some(9.0));
        assert_eq!(percentile(&mut []), None);
    }

    #[test]
    fn a_histograms_percentile_lies_within_its_bucket() {
        let infinity = f64::INFINITY;
        let mut totals = [(infinity, 100.0), (1.0, 90.0), (2.0, 100.0), (0.5, 50.0)];
        assert_eq!(histogram_percentile(&mut totals), Some(1.5));
        assert_eq!(histogram_percentile(&mut [(1.0, 10.0), (infinity, 100.0)]), Some(1.0));
        assert_eq!(histogram_percentile(&mut [(2.0, 100.0), (infinity, 100.0)]), Some(1.9));
        assert_eq!(histogram_percentile(&mut [(2.0, 100.0)]), None);
        assert_eq!(histogram_percentile(&mut [(1.0, 0.0), (infinity, 0.0)]), None);
        assert_eq!(histogram_percentile(&mut [(infinity, 5.0)]), None);
        let mut falling = [(1.0, 50.0), (2.0, 40.0), (infinity, 50.0)];
        assert_eq!(histogram_percentile(&mut falling), Some(0.95));
    }
}
