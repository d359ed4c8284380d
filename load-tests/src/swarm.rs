//! All subscribers and one publisher on one thread: the receiving end costs as little as it can, and checks that each
//! subscriber gets every event once and in order.

mod client;
mod publisher;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::{
    mark::Marks,
    server::{Event, Seat, Server},
};
use client::Client;
pub(crate) use client::Phase;
pub(crate) use publisher::Publisher;

/// The token of the publisher's socket; subscribers have their index.
const PUBLISHER: u64 = u64::MAX;

/// How long anything may take before the scenario has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The faults that are told in full; more are only counted.
const TOLD: usize = 10;

/// The receiving end of a scenario, and its publisher.
pub(crate) struct Swarm<'a> {
    server: &'a Server,
    epoll: Epoll,
    clients: Vec<Client>,
    publisher: Option<Publisher>,
    buffer: Vec<u8>,
    marks: Marks,
    pub(crate) tally: Tally,
}

/// What was received since it was last reset.
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    pub(crate) bytes: u64,
    /// Nanoseconds from publish to receive, for the subscribers of each node.
    pub(crate) latency: Vec<Histogram<u64>>,
    /// Subscribers that are live; never reset.
    pub(crate) live: usize,
    faults: Vec<String>,
    faulty: usize,
}

impl Tally {
    fn new(nodes: usize) -> Result<Self> {
        let latency = vec![Histogram::new_with_bounds(1_000, 600_000_000_000, 3)?; nodes];
        Ok(Self { deliveries: 0, bytes: 0, latency, live: 0, faults: Vec::new(), faulty: 0 })
    }

    pub(crate) fn reset(&mut self) {
        (self.deliveries, self.bytes) = (0, 0);
        self.latency.iter_mut().for_each(Histogram::reset);
    }

    fn fault(&mut self, text: impl FnOnce() -> String) {
        self.faulty += 1;
        if self.faults.len() < TOLD {
            self.faults.push(text());
        }
    }

    fn check(&self) -> Result<()> {
        if self.faulty > 0 {
            let (faulty, live, faults) = (self.faulty, self.live, self.faults.join("; "));
            bail!("{faulty} faults, {live} live: {faults}");
        }
        Ok(())
    }
}

impl<'a> Swarm<'a> {
    pub(crate) fn new(server: &'a Server) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("no epoll")?;
        let buffer = vec![0; 256 << 10];
        let (marks, tally) = (Marks::new(), Tally::new(server.addresses.len())?);
        Ok(Self { server, epoll, clients: Vec::new(), publisher: None, buffer, marks, tally })
    }

    /// Connects a subscriber for each seat, at most `at_once` of them under way, and waits until all are live.
    pub(crate) fn open(&mut self, seats: &[Seat], at_once: usize) -> Result<()> {
        let before = self.clients.len();
        for (index, seat) in seats.iter().enumerate() {
            let wanted = (before + index + 1).saturating_sub(at_once);
            self.until("the subscribers before to be live", |swarm| swarm.tally.live >= wanted)?;
            self.connect(seat)?;
        }
        let all = before + seats.len();
        self.until("all subscribers to be live", |swarm| swarm.tally.live == all)
    }

    fn connect(&mut self, seat: &Seat) -> Result<()> {
        let Server { addresses, dialect, .. } = self.server;
        // By turns: the nodes get equal shares without anything in front of them.
        let node = self.clients.len() % addresses.len();
        let client = Client::connect(addresses[node], node, seat, &**dialect)?;
        let index = self.clients.len() as u64;
        let interest = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT, index);
        self.epoll.add(client.socket(), interest).context("cannot watch a subscriber")?;
        self.clients.push(client);
        Ok(())
    }

    /// Closes all subscribers without a word, as a lost network does.
    pub(crate) fn drop_all(&mut self) {
        self.clients.clear();
        self.tally.live = 0;
    }

    /// From now on the subscriber reads nothing, or it reads again.
    pub(crate) fn stall(&mut self, index: usize, stalled: bool) -> Result<()> {
        let client = self.clients.get_mut(index).context("no such subscriber")?;
        let flags = if stalled { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
        let mut interest = EpollEvent::new(flags, index as u64);
        self.epoll.modify(client.socket(), &mut interest).context("cannot stall a subscriber")
    }

    /// Sends events; [`Swarm::unacknowledged`] tells when they were taken.
    pub(crate) fn publish(&mut self, events: &[Event]) -> Result<()> {
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            empty => {
                let publisher = Publisher::connect(self.server, 0)?;
                let interest = EpollEvent::new(EpollFlags::EPOLLIN, PUBLISHER);
                self.epoll.add(publisher.socket(), interest).context("cannot watch")?;
                empty.insert(publisher)
            }
        };
        publisher.publish(events, self.server.dialect.as_ref())?;
        self.watch_publisher()
    }

    /// Acknowledgements that are still to come.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.publisher.as_ref().map_or(0, Publisher::unacknowledged)
    }

    /// The body of the last acknowledgement.
    pub(crate) fn answer(&self) -> &[u8] {
        self.publisher.as_ref().map_or(&[], Publisher::answer)
    }

    /// The number of the next event the subscriber expects.
    pub(crate) fn expected(&self, index: usize) -> Option<u64> {
        self.clients.get(index).map(Client::expected)
    }

    /// Receives until `done`; a fault, a server that ended, or no end within a minute is an error.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            self.turn(Duration::from_millis(100))?;
            if Instant::now() > deadline {
                let Tally { deliveries, live, .. } = self.tally;
                let missing = self.unacknowledged();
                bail!(
                    "waited {PATIENCE:?} for {what}: {live} live, {deliveries} deliveries, \
                     {missing} unacknowledged"
                );
            }
        }
        Ok(())
    }

    /// Receives until that moment.
    pub(crate) fn until_time(&mut self, time: Instant) -> Result<()> {
        loop {
            let left = time.saturating_duration_since(Instant::now());
            self.turn(left)?;
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// One round of what is ready, waiting at most `patience`: whole milliseconds of it, then busily.
    fn turn(&mut self, patience: Duration) -> Result<()> {
        let mut ready = [EpollEvent::empty(); 1024];
        let patience = EpollTimeout::from(u16::try_from(patience.as_millis()).unwrap_or(u16::MAX));
        let count = match self.epoll.wait(&mut ready, patience) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error).context("cannot wait for sockets"),
        };
        for event in &ready[..count] {
            if event.data() == PUBLISHER {
                self.advance_publisher()?;
            } else {
                self.advance(event)?;
            }
        }
        self.tally.check()
    }

    fn advance(&mut self, event: &EpollEvent) -> Result<()> {
        // Closed while this round was under way.
        let Some(client) = self.clients.get_mut(event.data() as usize) else { return Ok(()) };
        let (dialect, tally) = (self.server.dialect.as_ref(), &mut self.tally);
        let was = client.phase();
        if event.events().contains(EpollFlags::EPOLLOUT) {
            client.write()?;
        } else {
            client.read(&mut self.buffer, &self.marks, dialect, tally);
        }
        let writes = client.wants_to_write();
        if writes || event.events().contains(EpollFlags::EPOLLOUT) {
            let out = if writes { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut interest = EpollEvent::new(EpollFlags::EPOLLIN | out, event.data());
            self.epoll.modify(client.socket(), &mut interest).context("cannot watch")?;
        }
        match (was, client.phase()) {
            (Phase::Closed, _) => {}
            (_, Phase::Closed) => {
                // Its fault is told; watched on, it would be ready for ever.
                self.epoll.delete(client.socket()).context("cannot unwatch")?;
                tally.live -= usize::from(was == Phase::Live);
            }
            (Phase::Live, _) => {}
            (_, Phase::Live) => tally.live += 1,
            _ => {}
        }
        Ok(())
    }

    fn advance_publisher(&mut self) -> Result<()> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        publisher.advance(self.server.dialect.as_ref(), &mut self.buffer)?;
        if publisher.is_closed() {
            self.publisher = None; // the next publish connects anew
            return Ok(());
        }
        self.watch_publisher()
    }

    fn watch_publisher(&self) -> Result<()> {
        let Some(publisher) = &self.publisher else { return Ok(()) };
        let out = publisher.wants_to_write();
        let out = if out { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let mut interest = EpollEvent::new(EpollFlags::EPOLLIN | out, PUBLISHER);
        self.epoll.modify(publisher.socket(), &mut interest).context("cannot watch")
    }
}
