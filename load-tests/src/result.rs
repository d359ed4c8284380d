//! What was measured: one row for each figure of each round, and medians over the rounds.

use std::{collections::BTreeMap, fs::File, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::server::Kind;

/// What a figure says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    CpuPerDelivery,
    RedisCpuPerDelivery,
    CpuPerEvent,
    RedisCpuPerEvent,
    CpuShare,
    RedisCpuShare,
    DeliveriesPerSecond,
    EventsPerSecond,
    RequestsPerSecond,
    LatencyP50,
    LatencyP99,
    LatencyMax,
    FirstNodeP50,
    SecondNodeP50,
    SecondNodeAdds,
    BytesPerDelivery,
    IdleMemory,
    ReplayedMemory,
    MemoryGrowth,
    SecondsUntilLive,
    CpuSeconds,
}

impl Measure {
    /// With its unit, as a table's heading.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CpuPerDelivery => "CPU µs/delivery",
            Self::RedisCpuPerDelivery => "Redis' CPU µs/delivery",
            Self::CpuPerEvent => "CPU µs/event",
            Self::RedisCpuPerEvent => "Redis' CPU µs/event",
            Self::CpuShare => "CPU % of a core",
            Self::RedisCpuShare => "Redis' CPU % of a core",
            Self::DeliveriesPerSecond => "deliveries/s",
            Self::EventsPerSecond => "events/s",
            Self::RequestsPerSecond => "requests/s",
            Self::LatencyP50 => "p50 ms",
            Self::LatencyP99 => "p99 ms",
            Self::LatencyMax => "max ms",
            Self::FirstNodeP50 => "p50 ms, first node",
            Self::SecondNodeP50 => "p50 ms, second node",
            Self::SecondNodeAdds => "ms the second node adds at p50",
            Self::BytesPerDelivery => "bytes/delivery",
            Self::IdleMemory => "idle KiB/connection",
            Self::ReplayedMemory => "KiB/connection after replay",
            Self::MemoryGrowth => "memory growth MiB",
            Self::SecondsUntilLive => "s until all live",
            Self::CpuSeconds => "CPU s",
        }
    }
}

/// One figure of one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    /// What is varied within the scenario.
    pub(crate) case: String,
    pub(crate) server: Kind,
    pub(crate) subscribers: usize,
    pub(crate) round: usize,
    pub(crate) measure: Measure,
    pub(crate) value: f64,
}

/// The figures of one round of one case on one server, before they are rows.
pub(crate) type Figures = Vec<(Measure, f64)>;

/// Writes rows, one JSON object a line.
pub(crate) fn write(rows: &[Row], path: &Path) -> Result<()> {
    let mut file =
        File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    for row in rows {
        writeln!(file, "{}", serde_json::to_string(row)?)?;
    }
    file.flush().context("cannot write the rows")
}

/// The middle value, the mean of both where there are two.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    match values.len() % 2 {
        0 => Some(f64::midpoint(values[middle - 1], upper)),
        _ => Some(upper),
    }
}

/// A case of a scenario: its label and its subscribers.
pub(crate) type Case = (usize, String);

/// Medians over the rounds, by case, server and measure.
pub(crate) fn medians(rows: &[Row]) -> BTreeMap<(Case, Kind), BTreeMap<Measure, f64>> {
    let mut values: BTreeMap<_, BTreeMap<Measure, Vec<f64>>> = BTreeMap::new();
    for row in rows {
        let of = ((row.subscribers, row.case.clone()), row.server);
        values.entry(of).or_default().entry(row.measure).or_default().push(row.value);
    }
    let median = |(measure, values)| median(values).map(|value| (measure, value));
    values.into_iter().map(|(of, by)| (of, by.into_iter().filter_map(median).collect())).collect()
}

/// The median of the ratios to `of` of the same round.
pub(crate) fn ratio(rows: &[&Row], of: &[&Row]) -> Option<f64> {
    let ratios = rows.iter().filter_map(|row| {
        let other = of.iter().find(|other| other.round == row.round)?;
        (other.value > 0.0).then_some(row.value / other.value)
    });
    median(ratios.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
