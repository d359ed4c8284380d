//! How much room there is for series: of a topic, of a publisher and in all, by their number and their bytes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{SeriesConfig, timeseries::Identity};
use crate::time::Millis;

/// What series take, and whose they are.
pub(super) struct SeriesRoom {
    most: SeriesBounds,
    all: SeriesUsage,
    topics: HashMap<Arc<str>, SeriesUsage>,
    publishers: HashMap<Arc<str>, SeriesUsage>,
    crowded: HashMap<Arc<str>, Crowding>,
}

/// How many series there may be, and how many bytes of topics, names and labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeriesBounds {
    pub(super) series: usize,
    pub(super) of_topic: usize,
    pub(super) of_publisher: usize,
    pub(super) bytes: usize,
    pub(super) bytes_of_publisher: usize,
}

/// The bound that another series would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SeriesBound {
    #[error("`series.max_series` is reached")]
    Series,
    #[error("`series.max_per_topic` is reached")]
    OfTopic,
    #[error("`series.max_per_publisher` is reached")]
    OfPublisher,
    #[error("`series.max_bytes` is reached")]
    Bytes,
    #[error("`series.max_bytes_per_publisher` is reached")]
    BytesOfPublisher,
}

#[derive(Debug, Clone, Copy, Default)]
struct SeriesUsage {
    series: usize,
    bytes: usize,
}

/// Who lacks room, and why.
struct Crowding {
    since: Millis,
    why: Box<str>,
}

/// For so long a publisher is told what was found out about its series.
const TOLD_FOR: Millis = 60_000;
/// Publishers that are told at once, at most.
const MOST_CROWDED: usize = 1000;
/// What a large series takes, in bytes.
const LARGE: usize = 64 << 10;
/// So many series are looked at to see which label has exploded.
const LOOKED_AT: usize = 20_000;

impl SeriesBounds {
    pub(super) fn new(config: &SeriesConfig) -> Self {
        Self {
            series: config.max_series,
            of_topic: config.max_per_topic,
            of_publisher: config.max_per_publisher,
            bytes: config.max_bytes.as_usize(),
            bytes_of_publisher: config.max_bytes_per_publisher.as_usize(),
        }
    }
}

impl SeriesRoom {
    pub(super) fn new(most: SeriesBounds) -> Self {
        Self {
            most,
            all: SeriesUsage::default(),
            topics: HashMap::new(),
            publishers: HashMap::new(),
            crowded: HashMap::new(),
        }
    }

    /// The bound that a further series of so many bytes would exceed.
    pub(super) fn lacks(&self, topic: &str, publisher: &str, bytes: usize) -> Option<SeriesBound> {
        let Self { most, all, .. } = self;
        let of =
            |all: &HashMap<Arc<str>, SeriesUsage>, who| all.get(who).copied().unwrap_or_default();
        let (topic, publisher) = (of(&self.topics, topic), of(&self.publishers, publisher));
        let reached = [
            (all.series >= most.series, SeriesBound::Series),
            (topic.series >= most.of_topic, SeriesBound::OfTopic),
            (publisher.series >= most.of_publisher, SeriesBound::OfPublisher),
            (all.bytes + bytes > most.bytes, SeriesBound::Bytes),
            (publisher.bytes + bytes > most.bytes_of_publisher, SeriesBound::BytesOfPublisher),
        ];
        reached.into_iter().find(|(is_reached, _)| *is_reached).map(|(_, bound)| bound)
    }

    /// Whether a bound is reached, or a large series would reach one.
    pub(super) fn is_nearly_full(&self, topic: &str, publisher: &str) -> bool {
        self.lacks(topic, publisher, LARGE).is_some()
    }

    /// Counts a series.
    pub(super) fn take(&mut self, topic: &Arc<str>, publisher: &Arc<str>, bytes: usize) {
        let topic = self.topics.entry(topic.clone()).or_default();
        let publisher = self.publishers.entry(publisher.clone()).or_default();
        for usage in [&mut self.all, topic, publisher] {
            usage.series += 1;
            usage.bytes += bytes;
        }
    }

    /// Counts a series no more.
    pub(super) fn give_back(&mut self, topic: &str, publisher: &str, bytes: usize) {
        let less = |usage: &mut SeriesUsage| {
            usage.series = usage.series.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(bytes);
        };
        less(&mut self.all);
        for (usages, who) in [(&mut self.topics, topic), (&mut self.publishers, publisher)] {
            if let Some(usage) = usages.get_mut(who) {
                less(usage);
                if usage.series == 0 {
                    usages.remove(who);
                }
            }
        }
    }

    /// The topic's and the publisher's name as they are known here.
    pub(super) fn shared(&self, topic: &str, publisher: &str) -> (Arc<str>, Arc<str>) {
        let of = |all: &HashMap<Arc<str>, SeriesUsage>, who: &str| {
            all.get_key_value(who).map_or_else(|| who.into(), |(who, _)| who.clone())
        };
        (of(&self.topics, topic), of(&self.publishers, publisher))
    }

    /// Why a publisher has no room for another series, if that was so within the last minute.
    pub(super) fn crowding(&self, publisher: &str, now: Millis) -> Option<&str> {
        let found = self.crowded.get(publisher)?;
        (found.since + TOLD_FOR > now).then_some(&*found.why)
    }

    /// Notes that a series of a publisher found no room, and which label of the topic's series has exploded.
    pub(super) fn note_crowding<'a>(
        &mut self,
        bound: SeriesBound,
        (topic, publisher): (&str, &str),
        now: Millis,
        series: impl Iterator<Item = &'a Identity>,
    ) {
        if self.crowding(publisher, now).is_some() {
            return;
        }
        if self.crowded.len() >= MOST_CROWDED {
            self.crowded.retain(|_, found| found.since + TOLD_FOR > now);
        }
        if self.crowded.len() >= MOST_CROWDED {
            return;
        }
        let why = match exploded(series.filter(|series| *series.topic == *topic)) {
            Some((label, values)) => {
                let label: String = label.chars().take(64).collect();
                format!("{bound}: the label `{label}` of {topic} has {values} values")
            }
            None => bound.to_string(),
        };
        tracing::warn!(publisher, why, "there is no room for another series: samples are left out");
        self.crowded.insert(publisher.into(), Crowding { since: now, why: why.into() });
    }
}

/// The label with the most values, a series' name among them as `__name__`.
fn exploded<'a>(series: impl Iterator<Item = &'a Identity>) -> Option<(&'a str, usize)> {
    let mut values: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for Identity { name, labels, .. } in series.take(LOOKED_AT) {
        for (label, value) in [("__name__", name.as_str())].into_iter().chain(labels.iter()) {
            values.entry(label).or_default().insert(value);
        }
    }
    let counts = values.into_iter().map(|(label, values)| (label, values.len()));
    counts.reduce(|most, next| if next.1 > most.1 { next } else { most })
}
