//! One subscriber does not read: do the others notice, and does the server's memory?

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{AT_ONCE, Job, batch, cpu_per, equal_seats, latencies, rest};
use crate::{
    result::{Case, Figures, Measure},
    server::{From, Server},
    swarm::Swarm,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stalled {
    /// Those who read.
    subscribers: usize,
    /// Publishes a second, and how many.
    per_second: u32,
    publishes: u64,
    /// Events of each publish, and bytes of an event's data. Together more than the kernel holds for a socket.
    batch: usize,
    bytes: usize,
}

impl Stalled {
    pub(super) fn cases(&self) -> Vec<Case> {
        let label = |stalled| (self.subscribers, format!("{stalled} stalled"));
        ["none", "one"].map(label).to_vec()
    }

    pub(super) fn run(&self, case: usize, job: &Job<'_>) -> Result<Figures> {
        let stalled = case == 1;
        let bytes = self.publishes * (self.batch * self.bytes) as u64;
        let held = held_by_kernel()?;
        ensure!(
            bytes > held,
            "{bytes} bytes do not fill the {held} the kernel may hold for a socket"
        );
        let server = Server::start(job.kind, job.site, job.hub)?;
        let mut swarm = Swarm::new(&server)?;
        let readers = self.subscribers;
        swarm.open(&equal_seats(readers + 1, 1, &From::Now), AT_ONCE)?;
        if stalled {
            swarm.stall(readers, true)?;
        }
        rest(&mut swarm, &server)?;
        let (rss, cpu, start) = (server.rss()?, server.cpu()?, Instant::now());
        for index in 0..self.publishes {
            let due = Duration::from_secs_f64(index as f64 / f64::from(self.per_second));
            swarm.until_time(start + due)?;
            swarm.publish(&batch(1 + index * self.batch as u64, self.batch, self.bytes))?;
        }
        let all = self.publishes * self.batch as u64;
        let readers_all = all * (readers + usize::from(!stalled)) as u64;
        swarm.until("all deliveries", |swarm| swarm.tally.deliveries == readers_all)?;
        let cpu = server.cpu()?.since(cpu);
        rest(&mut swarm, &server)?;
        let growth = server.rss()?.saturating_sub(rss);
        let mut figures = cpu_per(Measure::CpuPerDelivery, cpu, readers_all as f64);
        figures.push((Measure::MemoryGrowth, growth as f64 / f64::from(1 << 20)));
        figures.extend(latencies(&swarm.tally)?);
        if stalled {
            self.catch_up(&mut swarm, readers, all)?;
        }
        Ok(figures)
    }

    /// Who stalled reads on, and must still get everything, once and in order.
    fn catch_up(&self, swarm: &mut Swarm<'_>, index: usize, all: u64) -> Result<()> {
        let expected = swarm.expected(index).context("no stalled subscriber")?;
        ensure!(expected == 1, "the stalled subscriber has read {expected}");
        if swarm.stall(index, false).is_err() {
            bail!("the stalled subscriber is gone");
        }
        swarm.until("the stalled subscriber", |swarm| swarm.expected(index) == Some(all + 1))
    }
}

/// The most bytes the kernel keeps for a connection whose reader stalls: a send buffer at its largest, and a receive
/// buffer that has not grown.
fn held_by_kernel() -> Result<u64> {
    let buffer = |name: &str, column: usize| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let value = text.split_whitespace().nth(column).and_then(|value| value.parse::<u64>().ok());
        value.with_context(|| format!("{path} holds {text:?}"))
    };
    Ok(buffer("tcp_wmem", 2)? + buffer("tcp_rmem", 1)?)
}
