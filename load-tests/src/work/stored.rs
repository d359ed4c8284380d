//! Publishing alone: how many events a second are stored and answered.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::Deserialize;

use super::{Job, cpu_per};
use crate::{
    mark::{Mark, now},
    result::{Case, Figures, Measure},
    server::{Cpu, Event, Server},
    swarm::Publisher,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    cases: Vec<Requests>,
    /// Topics, and keys of each, that the events are spread over.
    topics: u64,
    keys: u64,
    /// Bytes of an event's data.
    bytes: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requests {
    requests: u64,
    /// Events of each request.
    batch: u64,
    /// Publishers, each of which sends its next request when the one before is answered.
    connections: usize,
}

/// How long the server may be silent.
const PATIENCE: u16 = 30_000;

impl Stored {
    pub(super) fn cases(&self) -> Vec<Case> {
        let label =
            |case: &Requests| format!("{} a request, {} publishers", case.batch, case.connections);
        self.cases.iter().map(|case| (0, label(case))).collect()
    }

    pub(super) fn run(&self, case: usize, job: &Job<'_>) -> Result<Figures> {
        let Some(case) = self.cases.get(case) else { bail!("no case {case}") };
        let server = Server::start(job.kind, job.site, job.hub)?;
        // Made before, so that the load is not what is measured.
        let requests: Vec<_> = (0..case.requests)
            .map(|request| {
                let mut bytes = Vec::new();
                let events: Vec<_> =
                    (0..case.batch).map(|at| self.event(request * case.batch + at)).collect();
                server.dialect.publish(&events, &mut bytes);
                bytes
            })
            .collect();
        let (cpu, start) = (server.cpu()?, Instant::now());
        let answers = send(&requests, case.connections, &server)?;
        let (time, cpu) = (start.elapsed(), server.cpu()?.since(cpu));
        let events = case.requests * case.batch;
        check(&answers, events)?;
        Ok(figures(events, case.requests, time, cpu))
    }

    fn event(&self, number: u64) -> Event {
        let topic = format!("load.t{}", number % self.topics);
        let key = Some(format!("k{}", number / self.topics % self.keys));
        Event { topic, key, mark: Mark { stream: 0, number, published: now() }, bytes: self.bytes }
    }
}

/// Sends all requests, and gives the answers.
fn send(requests: &[Vec<u8>], connections: usize, server: &Server) -> Result<Vec<Vec<u8>>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("no epoll")?;
    let mut waiting = requests.iter();
    let (mut publishers, mut answers) = (Vec::new(), Vec::with_capacity(requests.len()));
    for (index, request) in waiting.by_ref().take(connections).enumerate() {
        let mut publisher = Publisher::connect(server, index)?;
        publisher.send(request)?;
        epoll.add(publisher.socket(), interest(&publisher, index)).context("cannot watch")?;
        publishers.push(publisher);
    }
    let mut buffer = vec![0; 64 << 10];
    while answers.len() < requests.len() {
        let mut ready = [EpollEvent::empty(); 64];
        let count = epoll.wait(&mut ready, EpollTimeout::from(PATIENCE));
        let count = count.context("cannot wait for answers")?;
        ensure!(count > 0, "no answer within {PATIENCE} ms");
        for event in &ready[..count] {
            let index = event.data() as usize;
            let publisher = &mut publishers[index];
            publisher.advance(server.dialect.as_ref(), &mut buffer)?;
            if publisher.unacknowledged() == 0 {
                ensure!(!publisher.is_closed(), "the server closed a publisher's connection");
                answers.push(publisher.answer().to_vec());
                match waiting.next() {
                    Some(request) => publisher.send(request)?,
                    None => {
                        epoll.delete(publisher.socket()).context("cannot unwatch")?;
                        continue;
                    }
                }
            }
            let mut interest = interest(publisher, index);
            epoll.modify(publisher.socket(), &mut interest).context("cannot watch")?;
        }
    }
    Ok(answers)
}

fn interest(publisher: &Publisher, index: usize) -> EpollEvent {
    let out = if publisher.wants_to_write() { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
    EpollEvent::new(EpollFlags::EPOLLIN | out, index as u64)
}

/// Every event was new, and no offset was given twice.
fn check(answers: &[Vec<u8>], events: u64) -> Result<()> {
    #[derive(Deserialize)]
    struct Answer {
        offsets: Vec<u64>,
        duplicates: u64,
        position: String,
    }
    let mut offsets = Vec::new();
    for answer in answers {
        let answer: Answer = serde_json::from_slice(answer).context("an answer")?;
        ensure!(answer.duplicates == 0, "taken for duplicates at {}", answer.position);
        offsets.extend(answer.offsets);
    }
    offsets.sort_unstable();
    ensure!(offsets.len() as u64 == events, "{} offsets for {events} events", offsets.len());
    // Holes are no loss: the hub's own events have offsets in between.
    let twice = offsets.windows(2).find(|pair| pair[0] == pair[1]);
    ensure!(twice.is_none(), "offset {twice:?} was given twice");
    Ok(())
}

fn figures(events: u64, requests: u64, time: Duration, cpu: Cpu) -> Figures {
    let share = |cpu: Duration| 100.0 * cpu.as_secs_f64() / time.as_secs_f64();
    let mut figures = cpu_per(Measure::CpuPerEvent, cpu, events as f64);
    figures.extend([
        (Measure::EventsPerSecond, events as f64 / time.as_secs_f64()),
        (Measure::RequestsPerSecond, requests as f64 / time.as_secs_f64()),
        (Measure::CpuShare, share(cpu.nodes)),
    ]);
    figures.extend(cpu.redis.map(|redis| (Measure::RedisCpuShare, share(redis))));
    figures
}
