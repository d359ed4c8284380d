//! Many distinct subscriptions over many topics: what a publish costs must follow its matches, not the subscriptions.

use std::time::Instant;

use anyhow::{Result, bail};
use serde::Deserialize;

use super::{AT_ONCE, Job, cpu_per, latencies};
use crate::{
    mark::{Mark, now},
    result::{Case, Figures, Measure},
    server::{Event, From, Seat, Server},
    swarm::Swarm,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Distinct {
    cases: Vec<Subscribed>,
    /// Single publishes that are measured; before them each topic is published to once.
    publishes: u64,
    /// Bytes of an event's data.
    bytes: usize,
}

/// Each topic is matched by one of the subscriptions, however many there are, and each of them is had by so many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribed {
    subscriptions: Level,
    matches: usize,
}

/// How finely the topics are shared out.
#[derive(Clone, Copy, Debug, Deserialize)]
enum Level {
    #[serde(rename = "10")]
    Ten,
    #[serde(rename = "1000")]
    Thousand,
    #[serde(rename = "10000")]
    TenThousand,
}

const TOPICS: u64 = 100_000;

/// Has no factor in common with the number of topics, so that its multiples meet each topic once.
const STRIDE: u64 = 76_801;

impl Level {
    fn count(self) -> u64 {
        match self {
            Self::Ten => 10,
            Self::Thousand => 1_000,
            Self::TenThousand => 10_000,
        }
    }

    /// `load.a7.**`, `load.a7.b712.**`, `load.a7.b712.c7123.**`
    fn pattern(self, index: u64) -> String {
        let topic = topic(index * (TOPICS / self.count()));
        let tokens = match self {
            Self::Ten => 2,
            Self::Thousand => 3,
            Self::TenThousand => 4,
        };
        let tokens: Vec<_> = topic.split('.').take(tokens).chain(["**"]).collect();
        tokens.join(".")
    }
}

fn topic(index: u64) -> String {
    format!("load.a{}.b{}.c{}.d{index}", index / 10_000, index / 100, index / 10)
}

impl Distinct {
    pub(super) fn cases(&self) -> Vec<Case> {
        let case = |Subscribed { subscriptions, matches }: &Subscribed| {
            let count = subscriptions.count();
            let label = format!("{count} subscriptions, {matches} to each");
            (usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(*matches), label)
        };
        self.cases.iter().map(case).collect()
    }

    pub(super) fn run(&self, case: usize, job: &Job<'_>) -> Result<Figures> {
        let Some(Subscribed { subscriptions, matches }) = self.cases.get(case) else {
            bail!("no case {case}");
        };
        let (level, matches) = (*subscriptions, *matches as u64);
        let server = Server::start(job.kind, job.site, job.hub)?;
        let mut swarm = Swarm::new(&server)?;
        let seats: Vec<_> = (0..level.count() * matches).map(|at| seat(level, at)).collect();
        swarm.open(&seats, AT_ONCE)?;
        let mut sequence = Sequence { level, next: 0, numbers: vec![0; level.count() as usize] };
        while sequence.next < TOPICS {
            let events: Vec<_> = (0..1_000).map(|_| sequence.event(self.bytes)).collect();
            swarm.publish(&events)?;
            let wanted = sequence.next * matches;
            swarm.until("the warm-up", |swarm| swarm.tally.deliveries == wanted)?;
        }
        swarm.until("the answer", |swarm| swarm.unacknowledged() == 0)?;
        swarm.tally.reset();
        let (cpu, start) = (server.cpu()?, Instant::now());
        for index in 1..=self.publishes {
            swarm.publish(&[sequence.event(self.bytes)])?;
            swarm.until("the deliveries", |swarm| {
                swarm.unacknowledged() == 0 && swarm.tally.deliveries == index * matches
            })?;
        }
        let (time, cpu) = (start.elapsed(), server.cpu()?.since(cpu));
        let events = self.publishes as f64;
        let mut figures = cpu_per(Measure::CpuPerEvent, cpu, events);
        figures.push((Measure::EventsPerSecond, events / time.as_secs_f64()));
        figures.extend(latencies(&swarm.tally)?);
        Ok(figures)
    }
}

fn seat(level: Level, at: u64) -> Seat {
    let stream = at % level.count();
    let topics = vec![level.pattern(stream)];
    Seat { topics, stream: stream as u32, first: 1, user: at as usize, from: From::Now }
}

/// Events over all topics, numbered within the stream of the subscription that matches.
struct Sequence {
    level: Level,
    next: u64,
    numbers: Vec<u64>,
}

impl Sequence {
    fn event(&mut self, bytes: usize) -> Event {
        let index = self.next * STRIDE % TOPICS;
        self.next += 1;
        let stream = index / (TOPICS / self.level.count());
        let number = &mut self.numbers[stream as usize];
        *number += 1;
        let mark = Mark { stream: stream as u32, number: *number, published: now() };
        Event { topic: topic(index), key: None, mark, bytes }
    }
}
