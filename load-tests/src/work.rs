//! What a scenario does. Each kind of work has cases; a case on a server is one round of figures.

mod distinct;
mod fanout;
mod idle;
mod stalled;
mod stored;
mod storm;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::Deserialize;

use crate::{
    mark::{Mark, now},
    result::{Case, Figures, Measure},
    server::{Cpu, Event, From, Kind, Seat, Server, Site},
    swarm::{Swarm, Tally},
};

/// The kinds of work, as a scenario file names them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    Fanout(fanout::Fanout),
    Idle(idle::Idle),
    Stored(stored::Stored),
    Storm(storm::Storm),
    Stalled(stalled::Stalled),
    Distinct(distinct::Distinct),
}

/// One round of one case on one server.
pub(crate) struct Job<'a> {
    pub(crate) kind: Kind,
    pub(crate) site: &'a Site,
    pub(crate) hub: &'a toml::Table,
}

impl Work {
    /// What is varied.
    pub(crate) fn cases(&self) -> Vec<Case> {
        match self {
            Self::Fanout(work) => work.cases(),
            Self::Idle(work) => work.cases(),
            Self::Stored(work) => work.cases(),
            Self::Storm(work) => work.cases(),
            Self::Stalled(work) => work.cases(),
            Self::Distinct(work) => work.cases(),
        }
    }

    /// Runs the case of that index. Anything lost, doubled or out of order is an error.
    pub(crate) fn run(&self, case: usize, job: &Job<'_>) -> Result<Figures> {
        match self {
            Self::Fanout(work) => work.run(case, job),
            Self::Idle(work) => work.run(case, job),
            Self::Stored(work) => work.run(case, job),
            Self::Storm(work) => work.run(case, job),
            Self::Stalled(work) => work.run(case, job),
            Self::Distinct(work) => work.run(case, job),
        }
    }
}

/// Connections under way at once, where a scenario is not about that.
const AT_ONCE: usize = 64;

/// The topic of all events where a scenario is not about topics.
const TOPIC: &str = "load.a";

/// Subscribers that all ask for the same.
fn equal_seats(count: usize, first: u64, from: &From) -> Vec<Seat> {
    let seat = |user| {
        let topics = vec![TOPIC.to_owned()];
        Seat { topics, stream: 0, first, user, from: from.clone() }
    };
    (0..count).map(seat).collect()
}

/// Events of stream 0 with the numbers from `first` on, published now.
fn batch(first: u64, count: usize, bytes: usize) -> Vec<Event> {
    let published = now();
    let mark = |number| Mark { stream: 0, number, published };
    let event = |number| Event { topic: TOPIC.to_owned(), key: None, mark: mark(number), bytes };
    (first..first + count as u64).map(event).collect()
}

/// Of all subscribers together; of two nodes also what the second adds to the first.
fn latencies(tally: &Tally) -> Result<Figures> {
    let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    let p50 = |latency: &Histogram<u64>| ms(latency.value_at_quantile(0.5));
    let Some((first, others)) = tally.latency.split_first() else { return Ok(Vec::new()) };
    let mut all = first.clone();
    for other in others {
        all.add(other).context("latencies that do not add up")?;
    }
    let mut figures = vec![
        (Measure::LatencyP50, p50(&all)),
        (Measure::LatencyP99, ms(all.value_at_quantile(0.99))),
        (Measure::LatencyMax, ms(all.max())),
    ];
    if let [second] = others {
        figures.extend([
            (Measure::FirstNodeP50, p50(first)),
            (Measure::SecondNodeP50, p50(second)),
            (Measure::SecondNodeAdds, p50(second) - p50(first)),
        ]);
    }
    Ok(figures)
}

/// Microseconds of processor time for each of `count`, as `measure`; what Redis used beside it.
fn cpu_per(measure: Measure, cpu: Cpu, count: f64) -> Figures {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count;
    let redis = cpu.redis.map(|redis| {
        let beside = match measure {
            Measure::CpuPerEvent => Measure::RedisCpuPerEvent,
            _ => Measure::RedisCpuPerDelivery,
        };
        (beside, each(redis))
    });
    [(measure, each(cpu.nodes))].into_iter().chain(redis).collect()
}

/// Waits until the server has come to rest after what was done to it.
fn rest(swarm: &mut Swarm<'_>, server: &Server) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let before = server.cpu()?;
        swarm.until_time(Instant::now() + Duration::from_millis(200))?;
        if server.cpu()?.since(before).nodes < Duration::from_millis(4) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "the server does not come to rest");
    }
}
