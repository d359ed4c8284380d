//! One topic, many equal subscribers: what does a delivery cost, and how long does it take?

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;

use super::{AT_ONCE, Job, batch, equal_seats};
use crate::{
    result::{Case, Figures, Measure},
    server::{From, Server},
    swarm::Swarm,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fanout {
    /// Each number is a case.
    subscribers: Vec<usize>,
    /// Each pace is a case.
    pace: Vec<Pace>,
    /// Publishes that are measured, and before them those that only warm up.
    publishes: u64,
    warm_up: u64,
    /// Events of each publish.
    batch: usize,
    /// Bytes of an event's data.
    bytes: usize,
}

/// When the next publish follows.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pace {
    /// This many a second, whether or not the ones before were delivered.
    PerSecond(u32),
    /// When the one before was acknowledged.
    Acknowledged,
    /// When the one before was delivered to everybody.
    Delivered,
}

impl Fanout {
    pub(super) fn cases(&self) -> Vec<Case> {
        let label = |(subscribers, pace): (usize, Pace)| {
            let pace = match pace {
                Pace::PerSecond(rate) => format!("{rate}/s"),
                Pace::Acknowledged => "as acknowledged".to_owned(),
                Pace::Delivered => "as delivered".to_owned(),
            };
            (subscribers, format!("{subscribers} subscribers, {pace}"))
        };
        self.combinations().map(label).collect()
    }

    pub(super) fn run(&self, case: usize, job: &Job<'_>) -> Result<Figures> {
        let Some((subscribers, pace)) = self.combinations().nth(case) else {
            anyhow::bail!("no case {case}");
        };
        let server = Server::start(job.kind, job.site, job.hub)?;
        let mut swarm = Swarm::new(&server)?;
        swarm.open(&equal_seats(subscribers, 1, &From::Now), AT_ONCE)?;
        self.drive(&mut swarm, subscribers, pace, self.warm_up, 1)?;
        let first = 1 + self.warm_up * self.batch as u64;
        swarm.tally.reset();
        let (cpu, start) = (server.cpu()?, Instant::now());
        self.drive(&mut swarm, subscribers, pace, self.publishes, first)?;
        let (time, cpu) = (start.elapsed(), server.cpu()?.since(cpu));
        let deliveries = swarm.tally.deliveries as f64;
        let mut figures = super::cpu_per(Measure::CpuPerDelivery, cpu, deliveries);
        figures.extend([
            (Measure::DeliveriesPerSecond, deliveries / time.as_secs_f64()),
            (Measure::BytesPerDelivery, swarm.tally.bytes as f64 / deliveries),
        ]);
        figures.extend(super::latencies(&swarm.tally)?);
        Ok(figures)
    }

    fn combinations(&self) -> impl Iterator<Item = (usize, Pace)> {
        self.subscribers.iter().flat_map(|count| self.pace.iter().map(|pace| (*count, *pace)))
    }

    /// Publishes, and waits until everybody has received everything.
    fn drive(
        &self,
        swarm: &mut Swarm<'_>,
        subscribers: usize,
        pace: Pace,
        publishes: u64,
        first: u64,
    ) -> Result<()> {
        let before = swarm.tally.deliveries;
        let each = (subscribers * self.batch) as u64;
        let start = Instant::now();
        for index in 0..publishes {
            match pace {
                Pace::PerSecond(rate) => {
                    let due = Duration::from_secs_f64(index as f64 / f64::from(rate));
                    swarm.until_time(start + due)?;
                }
                Pace::Acknowledged => {
                    swarm.until("an acknowledgement", |swarm| swarm.unacknowledged() == 0)?;
                }
                Pace::Delivered => swarm.until("the deliveries", |swarm| {
                    swarm.unacknowledged() == 0 && swarm.tally.deliveries == before + index * each
                })?,
            }
            swarm.publish(&batch(first + index * self.batch as u64, self.batch, self.bytes))?;
        }
        swarm.until("all deliveries", |swarm| {
            let Swarm { tally, .. } = swarm;
            swarm.unacknowledged() == 0 && tally.deliveries == before + publishes * each
        })
    }
}
