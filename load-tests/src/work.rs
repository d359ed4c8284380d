//! What a scenario does. Each kind of work has cases; a case on a server is one round of figures.

mod distinct;
mod fanout;
mod idle;
mod stalled;
mod stored;
mod storm;

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;

use crate::{
    mark::{Mark, now},
    process::Process,
    result::{Case, Figures, Measure},
    server::{Event, From, Kind, Seat, Site},
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

fn latencies(tally: &Tally) -> [(Measure, f64); 3] {
    let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    [
        (Measure::LatencyP50, ms(tally.latency.value_at_quantile(0.5))),
        (Measure::LatencyP99, ms(tally.latency.value_at_quantile(0.99))),
        (Measure::LatencyMax, ms(tally.latency.max())),
    ]
}

/// Waits until the server has come to rest after what was done to it.
fn rest(swarm: &mut Swarm<'_>, process: &Process) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let before = process.cpu()?;
        swarm.until_time(Instant::now() + Duration::from_millis(200))?;
        if process.cpu()?.saturating_sub(before) < Duration::from_millis(4) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "the server does not come to rest");
    }
}
