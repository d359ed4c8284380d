//! Projections: JSON made of derived values and newest events, as the configuration shapes it.
//!
//! Every node follows the log and can tell what a projection is now; the node that holds the lease
//! publishes each on its topic when it changes.

mod asked;
mod buckets;
mod collect;
mod collector;
mod config;
mod configured_topics;
mod fault;
mod plan;
mod publisher;
mod shape;
mod snapshot;
mod style;
mod take;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::StatusCode;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::{
    asked::{Asked, RowLimit, RowLimitError},
    buckets::{Days, DaysError, Hours, HoursError},
    config::{FreshnessConfig, Path, PathError, ProjectionConfig, ProjectionsConfig},
    fault::ProjectionFault,
    plan::{Plan, Projection},
};
use self::{
    collector::Collector,
    publisher::Publisher,
    snapshot::{Drawn, ProjectionSnapshot},
};
use crate::{
    broker::Broker,
    duty::Duties,
    follow::Feed,
    series::{QueryError, Series},
    telemetry::Telemetry,
    time::Clock,
};

/// All projections. Cheap to clone.
#[derive(Clone)]
pub struct Projections(Arc<ProjectionsInner>);

struct ProjectionsInner {
    plan: Plan,
    series: Series,
    collector: Collector,
    broker: Broker,
    bounds: ProjectionBounds,
    clock: Clock,
    telemetry: Telemetry,
    /// The charts as they are shown, by derived value. Held for a look-up only.
    drawn: Mutex<HashMap<(usize, Hours), Drawn>>,
}

/// A projection as it is now.
#[derive(Debug)]
pub struct ShownProjection {
    /// Its JSON.
    pub value: Value,
    /// What it is to be answered with instead of 200, if its values are not good.
    pub failure: Option<StatusCode>,
}

/// How much one may be.
#[derive(Debug, Clone, Copy)]
pub struct ProjectionBounds {
    /// Keys that are counted as present: `journal.latest_keys`.
    pub keys: usize,
    /// Bytes of a projection that is published: `limits.event`.
    pub event: usize,
}

/// Why a projection is not known now.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The hub has started and has not read yet what it is made of.
    #[error("the hub is still reading what this is made of")]
    Starting,
    /// Who follows the log for it does not keep up.
    #[error("the hub does not keep up with what this is made of")]
    Behind,
    /// The series did not answer.
    #[error(transparent)]
    Series(#[from] QueryError),
}

/// How long a request waits for a hub that is starting.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits for what a projection shows to come up with the log; then it gets what there is.
const CATCH_UP: Duration = Duration::from_millis(500);

impl Projections {
    /// The projections of `plan`, which are followed once [`run`](Self::run) does.
    pub fn new(
        plan: Plan,
        series: Series,
        feed: Feed,
        bounds: ProjectionBounds,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Self {
        let broker = feed.broker().clone();
        let collector = Collector::new(feed, plan.collect_rules.clone(), bounds, telemetry.clone());
        let drawn = Mutex::default();
        Self(Arc::new(ProjectionsInner {
            plan,
            series,
            collector,
            broker,
            bounds,
            clock,
            telemetry,
            drawn,
        }))
    }

    /// The projections there are, which are numbered from 0.
    pub fn all(&self) -> &[Projection] {
        self.0.plan.projections()
    }

    /// What `projection` is now.
    pub async fn now(
        &self,
        projection: &Projection,
        asked: Asked,
    ) -> Result<ShownProjection, ProjectionError> {
        timeout(PATIENCE, self.ready()).await.map_err(|_| ProjectionError::Starting)?;
        let _ = timeout(CATCH_UP, self.caught_up(projection)).await;
        let snapshot = ProjectionSnapshot::take(&self.0, projection, asked).await?;
        let status = projection.freshness.as_ref().and_then(|watch| watch.status);
        let failure = status.filter(|_| snapshot.trouble().is_some());
        Ok(ShownProjection { value: snapshot.render(), failure })
    }

    /// Follows the log and, while the lease is ours, publishes, until `stop`.
    pub async fn run(self, duties: Duties, stop: CancellationToken) {
        let publish = async {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.ready() => {}
            }
            duties.run(Publisher::new(&self.0), stop.clone()).await;
        };
        tokio::select! {
            () = publish => {}
            _ = self.0.collector.run() => {}
        }
    }

    /// Waits until whoever has published and was answered finds it in what `projection` shows.
    async fn caught_up(&self, projection: &Projection) {
        let head = self.0.broker.head().offset;
        self.0.collector.progress().reaches(head).await;
        let parts = projection.shows();
        if !parts.derives.is_empty() || !parts.charts.is_empty() {
            self.0.series.progress().reaches(head).await;
        }
    }

    /// Waits until what projections are made of was read.
    async fn ready(&self) {
        let mut collected = self.0.collector.changes();
        let mut series = self.0.series.changes();
        // The other side of either lives as long as this one.
        let _ = collected.wait_for(|changes| *changes > 0).await;
        let _ = series.wait_for(|changes| *changes > 0).await;
    }
}
