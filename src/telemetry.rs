//! The hub's own numbers, counted where things happen and shown on `/metrics` and `hub.metrics`.

mod labels;
mod limit;
mod metrics;
mod text;

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;

use self::labels::{CodeLabel, DutyLabel, PartLabel, ReasonLabel, SourceLabel, StateLabel};
pub use self::{
    labels::DroppedPart,
    limit::{Limit, LimitLabel},
    metrics::Metrics,
};

/// Every metric of the hub. Cheap to clone, as each request does; clones count together.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Metrics>);

impl std::ops::Deref for Telemetry {
    type Target = Metrics;

    fn deref(&self) -> &Metrics {
        &self.0
    }
}

impl Telemetry {
    /// All metrics at zero.
    #[expect(clippy::new_without_default, reason = "a second set of metrics is never a default")]
    pub fn new() -> Self {
        Self(Arc::new(Metrics::new()))
    }

    /// Whether the clock is in doubt, and how often it has jumped.
    pub fn clock(&self, jumps: u64, is_settled: bool) {
        self.clock_jumps.inc_by(jumps.saturating_sub(self.clock_jumps.get()));
        self.clock_unsettled.set(i64::from(!is_settled));
    }

    /// Counts one hit of `limit`.
    pub fn hit(&self, limit: Limit) {
        self.limit_hits.get_or_create(&LimitLabel { limit }).inc();
    }

    /// Counts one refusal answered with `code`.
    pub fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts parts of a request that could not be kept.
    pub fn dropped(&self, what: DroppedPart, count: usize) {
        self.dropped.get_or_create(&PartLabel { part: what.name() }).inc_by(count as u64);
    }

    /// How many instances are in `state`.
    pub fn instances(&self, state: &'static str) -> Gauge {
        self.instances.get_or_create_owned(&StateLabel { state })
    }

    /// Counts one gap said for `reason`.
    pub fn gap(&self, reason: &'static str) {
        self.gaps.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts one sample left out of its series for `reason`.
    pub fn series_dropped(&self, reason: &'static str) {
        self.series_drops.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts one time that `source` did not answer as it should.
    pub fn source_failed(&self, source: &str) {
        let label = SourceLabel { source: source.to_owned() };
        self.source_failures.get_or_create(&label).inc();
    }

    /// Counts one time that `duty` could not be done.
    pub fn duty_failed(&self, duty: &str) {
        self.duty_failures.get_or_create(&DutyLabel { duty: duty.to_owned() }).inc();
    }

    /// Counts things that `source` sent and that could not be published.
    pub fn source_left_out(&self, source: &str, count: u64) {
        let label = SourceLabel { source: source.to_owned() };
        self.source_left_out.get_or_create(&label).inc_by(count);
    }

    /// Counts one socket closed with `code`.
    pub fn closed(&self, code: &'static str) {
        self.closes.get_or_create(&CodeLabel { code }).inc();
    }

    /// All metrics in the OpenMetrics text format 1.0.
    pub fn openmetrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// All metrics in the text format 0.0.4 of Prometheus.
    pub fn prometheus_text(&self) -> Result<String, std::fmt::Error> {
        Ok(text::from_openmetrics(&self.openmetrics()?))
    }
}
