//! Everybody comes back at once: how long until all are live, and does each get what it missed?

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{AT_ONCE, Job, batch, equal_seats, rest};
use crate::{
    result::{Case, Figures, Measure},
    server::{From, Server},
    swarm::Swarm,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Storm {
    /// Each number is a case.
    clients: Vec<usize>,
    /// Events that were published while everybody was away.
    missed: usize,
    /// Events published once all are live again, which each must get too.
    afterwards: usize,
    /// Bytes of an event's data.
    bytes: usize,
}

impl Storm {
    pub(super) fn cases(&self) -> Vec<Case> {
        self.clients.iter().map(|count| (*count, format!("{count} clients"))).collect()
    }

    pub(super) fn run(&self, case: usize, job: &Job<'_>) -> Result<Figures> {
        let Some(&count) = self.clients.get(case) else { bail!("no case {case}") };
        let server = Server::start(job.kind, job.site, job.hub)?;
        let mut swarm = Swarm::new(&server)?;
        swarm.open(&equal_seats(count, 1, &From::Now), AT_ONCE)?;
        self.publish(&mut swarm, 1, 1)?;
        delivered(&mut swarm, count)?;
        let position = position(swarm.answer())?;
        swarm.drop_all();
        self.publish(&mut swarm, 2, self.missed)?;
        rest(&mut swarm, &server)?;

        swarm.tally.reset();
        let (cpu, start) = (server.cpu()?, Instant::now());
        swarm.open(&equal_seats(count, 2, &From::Position(position)), count)?;
        let (time, cpu) = (start.elapsed(), server.cpu()?.since(cpu));
        delivered(&mut swarm, count * self.missed)?;
        self.publish(&mut swarm, 2 + self.missed as u64, self.afterwards)?;
        delivered(&mut swarm, count * (self.missed + self.afterwards))?;
        Ok(vec![
            (Measure::SecondsUntilLive, time.as_secs_f64()),
            (Measure::CpuSeconds, cpu.nodes.as_secs_f64()),
        ])
    }

    fn publish(&self, swarm: &mut Swarm<'_>, first: u64, count: usize) -> Result<()> {
        for number in first..first + count as u64 {
            swarm.publish(&batch(number, 1, self.bytes))?;
            swarm.until("an acknowledgement", |swarm| swarm.unacknowledged() == 0)?;
        }
        Ok(())
    }
}

/// Waits for so many deliveries. One more would be a fault of its subscriber, told by its number.
fn delivered(swarm: &mut Swarm<'_>, count: usize) -> Result<()> {
    swarm.until("all deliveries", |swarm| swarm.tally.deliveries == count as u64)
}

fn position(answer: &[u8]) -> Result<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).context("the answer")?;
    answer["position"].as_str().map(str::to_owned).context("an answer without a position")
}
