//! What a subscriber costs that does nothing: fresh, and after it has replayed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Deserialize;

use super::{AT_ONCE, Job, batch, equal_seats};
use crate::{
    result::{Case, Figures, Measure},
    server::{From, Kind, Server},
    swarm::Swarm,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Idle {
    /// Each number is a case.
    connections: Vec<usize>,
    /// Past events that each connection of a second, equal group replays; the hub only.
    replay: u64,
    /// Bytes of an event's data.
    bytes: usize,
}

/// How long memory must not move, and how long that is waited for.
const STEADY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);

impl Idle {
    pub(super) fn cases(&self) -> Vec<Case> {
        self.connections.iter().map(|count| (*count, format!("{count} connections"))).collect()
    }

    pub(super) fn run(&self, case: usize, job: &Job<'_>) -> Result<Figures> {
        let Some(&count) = self.connections.get(case) else { bail!("no case {case}") };
        let mut figures = vec![(Measure::IdleMemory, self.memory(count, job, 0)?)];
        if matches!(job.kind, Kind::Hub | Kind::Cluster) && self.replay > 0 {
            figures.push((Measure::ReplayedMemory, self.memory(count, job, self.replay)?));
        }
        Ok(figures)
    }

    /// KiB of a server's memory for one more of `count` connections, each of which replays so many events.
    fn memory(&self, count: usize, job: &Job<'_>, replay: u64) -> Result<f64> {
        let mut server = Server::start(job.kind, job.site, job.hub)?;
        let first = count / 4;
        let growth = {
            let mut swarm = Swarm::new(&server)?;
            if replay > 0 {
                swarm.publish(&batch(1, usize::try_from(replay)?, self.bytes))?;
                swarm.until("the events to be stored", |swarm| swarm.unacknowledged() == 0)?;
            }
            let from = if replay == 0 { From::Now } else { From::Last(replay) };
            // The first quarter pays for what is made once, and uses up memory that was freed: what the others add
            // is what one more connection costs.
            swarm.open(&equal_seats(first, 1, &from), AT_ONCE)?;
            let before = steady(&server)?;
            swarm.open(&equal_seats(count - first, 1, &from), AT_ONCE)?;
            let after = steady(&server)?;
            let expected = count as u64 * replay;
            if swarm.tally.deliveries != expected {
                bail!("{} events were replayed, not {expected}", swarm.tally.deliveries);
            }
            after.saturating_sub(before)
        };
        server.check()?;
        Ok(growth as f64 / 1024.0 / (count - first) as f64)
    }
}

/// The memory of a server that has come to rest.
fn steady(server: &Server) -> Result<u64> {
    let start = Instant::now();
    let (mut rss, mut since) = (server.rss()?, Instant::now());
    while since.elapsed() < STEADY {
        std::thread::sleep(Duration::from_millis(100));
        let now = server.rss()?;
        if now.abs_diff(rss) > rss / 500 {
            (rss, since) = (now, Instant::now());
        }
        if start.elapsed() > PATIENCE {
            bail!("the server's memory still moves after {PATIENCE:?}");
        }
    }
    server.rss()
}
