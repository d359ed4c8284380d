//! Questions about series: what is wanted, and the figures made of buckets.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    resolution::{AHEAD, Keep, RESOLUTIONS},
    sample::{Labels, Name},
};
use crate::time::{Millis, Span};

/// What is made of the samples in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// Their mean; of a histogram the mean of what it observed.
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// Their sum; of a counter or a histogram what was added.
    Sum,
    /// The newest.
    Last,
    /// How many; of a histogram how many observations.
    Count,
    /// What was added in each second.
    Rate,
    /// What was added.
    Increase,
    /// What 95 of 100 do not exceed.
    P95,
}

const AGGREGATES: [(&str, Aggregate); 9] = [
    ("avg", Aggregate::Avg),
    ("min", Aggregate::Min),
    ("max", Aggregate::Max),
    ("sum", Aggregate::Sum),
    ("last", Aggregate::Last),
    ("count", Aggregate::Count),
    ("rate", Aggregate::Rate),
    ("increase", Aggregate::Increase),
    ("p95", Aggregate::P95),
];

/// Not a name of an [`Aggregate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one of avg, min, max, sum, last, count, rate, increase, p95")]
pub struct AggregateError;

impl FromStr for Aggregate {
    type Err = AggregateError;

    fn from_str(text: &str) -> Result<Self, AggregateError> {
        AGGREGATES.iter().find(|(name, _)| *name == text).map(|(_, agg)| *agg).ok_or(AggregateError)
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = AGGREGATES.iter().find(|(_, agg)| agg == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// A question.
#[derive(Debug, Clone)]
pub struct QuerySpec {
    /// Which series.
    pub name: Name,
    /// Those that have all of these.
    pub labels: Labels,
    /// From when on.
    pub from: Millis,
    /// Until when, itself not included.
    pub to: Millis,
    /// How long each stretch is; without it, about [`POINTS`] are given.
    pub step: Option<Span>,
    /// What is wanted of each; without it, what suits the series: the mean of a gauge or a
    /// histogram, a counter's rate.
    pub agg: Option<Aggregate>,
}

/// An answer: a row of values for each series, one for each time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Columns {
    /// When each stretch begins, in seconds since 1970.
    pub times: Vec<u64>,
    /// Of each series, what is known of each stretch.
    pub values: Vec<Vec<Option<f64>>>,
    /// Whose values these are, in the same order.
    pub series: Vec<Described>,
    /// How long a stretch is, in seconds.
    pub step: u64,
    /// From when on samples are kept at the width that was read, in seconds since 1970. What is
    /// null before that nobody knows any more; what is null later has no sample.
    pub since: u64,
}

/// A series in an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Described {
    /// The topic it comes from.
    pub topic: String,
    /// Its labels.
    #[serde(serialize_with = "as_object")]
    pub labels: Labels,
    /// What its values are.
    pub agg: Aggregate,
    /// What they are measured in, by the producer's own word.
    pub unit: Option<Box<str>>,
}

pub(crate) fn as_object<S: serde::Serializer>(labels: &Labels, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(labels.iter())
}

/// The points of an answer whose step was not given.
pub const POINTS: u64 = 600;
/// The most points of an answer.
pub const MAX_POINTS: u64 = 11_000;
/// The most series of an answer.
pub const MAX_SERIES: usize = 200;

/// The most values of an answer, all series together.
pub const MAX_VALUES: usize = 1_000_000;

/// Where to read, and into which stretches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) resolution: usize,
    pub(super) from: Millis,
    pub(super) step: Millis,
    pub(super) count: usize,
}

/// How far back the value before the first stretch is looked for, to tell what was added since.
pub(super) const LOOKBACK: Millis = 10 * 60_000;

impl Grid {
    /// The stretches of a question: whole ones on even times, as wide as the buckets of the coarsest
    /// resolution that is fine enough, or of the first that still has all of it.
    pub(super) fn new(spec: &QuerySpec, keep: &Keep, now: Millis) -> Self {
        let longest = keep.resolutions[RESOLUTIONS.len() - 1];
        let to = spec.to.min(now.saturating_add(AHEAD));
        let from = spec.from.max(now.saturating_sub(longest)).min(to);
        let wanted = spec.step.map_or((to - from).div_ceil(POINTS), Span::millis);
        let wanted = wanted.clamp((to - from).div_ceil(MAX_POINTS).max(1), longest.max(1));
        let fine =
            RESOLUTIONS.iter().rposition(|resolution| resolution.width <= wanted).unwrap_or(0);
        let kept = keep.resolutions.iter().position(|keep| from.saturating_add(*keep) >= now);
        let resolution = fine.max(kept.unwrap_or(RESOLUTIONS.len() - 1));
        let step = wanted.next_multiple_of(RESOLUTIONS[resolution].width);
        let from = from / step * step;
        let count = usize::try_from((to - from).div_ceil(step)).unwrap_or(usize::MAX);
        Self { resolution, from, step, count }
    }

    /// One stretch: the last `span` until `now`, from the finest resolution that has all of it.
    pub(super) fn window(span: Span, keep: &Keep, now: Millis) -> Self {
        let from = now.saturating_sub(span.millis());
        let resolution = keep
            .resolutions
            .iter()
            .position(|keep| span.millis() <= *keep)
            .unwrap_or(RESOLUTIONS.len() - 1);
        let from = from.next_multiple_of(RESOLUTIONS[resolution].width);
        // What is a little ahead of our clock is there too.
        Self { resolution, from, step: (now + AHEAD).saturating_sub(from).max(1), count: 1 }
    }

    /// When a stretch begins.
    pub(super) fn start(&self, index: usize) -> Millis {
        self.from + self.step * index as Millis
    }

    /// How many seconds of a stretch have gone by.
    pub(super) fn seconds(&self, index: usize, now: Millis) -> f64 {
        let gone = now
            .saturating_sub(self.start(index))
            .clamp(RESOLUTIONS[self.resolution].width, self.step);
        gone as f64 / 1000.0
    }

    /// From when on every sample is there: chunks are kept as a whole.
    pub(super) fn since(&self, keep: &Keep, now: Millis) -> Millis {
        let span = RESOLUTIONS[self.resolution].span();
        now.saturating_sub(keep.resolutions[self.resolution]) / span * span
    }

    /// In which stretch a time lies.
    pub(super) fn index(&self, time: Millis) -> Option<usize> {
        let index = time.checked_sub(self.from)? / self.step;
        usize::try_from(index).ok().filter(|index| *index < self.count)
    }

    pub(super) fn to(&self) -> Millis {
        self.from + self.step * self.count as Millis
    }

    pub(super) fn times(&self) -> Vec<u64> {
        (0..self.count as u64).map(|at| (self.from + at * self.step) / 1000).collect()
    }
}
