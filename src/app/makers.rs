//! Those who make something of events, and what they make: series, projections, the registry of instances, and the
//! events of pull sources. One node of the cluster does each of it at a time, as a duty.

use anyhow::Context as _;

use super::{background::Background, base::Base};
use crate::{
    config::Config,
    duty::Duties,
    follow::Feed,
    id,
    instances::Instances,
    projections::{self, Plan, Projections},
    series::Series,
    sources::Flext,
};

pub(super) struct Makers {
    pub(super) series: Series,
    pub(super) projections: Projections,
    pub(super) instances: Instances,
    duties: Duties,
}

impl Makers {
    pub(super) async fn new(config: &Config, plan: Plan, base: &Base) -> anyhow::Result<Self> {
        let (clock, telemetry) = (&base.clock, &base.telemetry);
        // Not the node's name, which the node has again when it comes back.
        let holder = id::short()?;
        let duties =
            Duties::new(base.store.clone(), base.broker.clone(), &holder, telemetry.clone());
        let feed = Feed::new(base.broker.clone());
        let series = Series::new(
            config.series,
            plan.rules(),
            feed.clone(),
            base.store.clone(),
            clock.clone(),
            telemetry.clone(),
        );
        let projections = Projections::new(
            plan,
            series.clone(),
            feed.clone(),
            projections::ProjectionBounds {
                keys: config.journal.latest_keys,
                event: config.limits.event.as_usize(),
            },
            clock.clone(),
            telemetry.clone(),
        );
        let instances = Instances::new(
            config.instances.clone(),
            feed,
            base.store.clone(),
            clock.clone(),
            telemetry.clone(),
        )?;
        instances.load().await.context("cannot read the registry of instances")?;
        Ok(Self { series, projections, instances, duties })
    }

    pub(super) fn run(self, config: &Config, base: &Base, background: &Background) {
        let Self { series, projections, instances, duties } = self;
        background.run("series", |stop| duties.clone().run(series, stop));
        background.run("projections", |stop| projections.run(duties.clone(), stop));
        background.run("instances", |stop| instances.run(duties.clone(), stop));
        let limit = config.limits.event.as_usize();
        for source in &config.sources {
            let (broker, telemetry) = (base.broker.clone(), base.telemetry.clone());
            let flext = Flext::new(source.clone(), limit, broker, telemetry, base.clock.clone());
            background
                .run(format!("source {}", source.name), |stop| duties.clone().run(flext, stop));
        }
    }
}
