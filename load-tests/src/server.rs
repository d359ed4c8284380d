//! What load is put on: the hub, its peers, and the floor, each a process of its own with its own way of speaking.

mod cluster;
mod floor;
mod http;
mod hub;
mod nats;
mod nchan;

pub(crate) use floor::serve as serve_floor;
pub(crate) use http::upgraded;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{frame::Frame, mark::Mark, process::Process};

/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kinds of servers, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// One `send()` of a prebuilt frame to each socket.
    Floor,
    Hub,
    /// Two hubs over one Redis.
    Cluster,
    Nchan,
    Nats,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Floor, Self::Hub, Self::Cluster, Self::Nchan, Self::Nats];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Hub => "pulsehub",
            Self::Cluster => "pulsehub, two nodes",
            Self::Nchan => "nchan",
            Self::Nats => "nats-server",
        }
    }

    /// Why it cannot be measured here, if it cannot.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Self::Floor | Self::Hub => None,
            Self::Cluster => cluster::missing(),
            Self::Nchan => nchan::missing(),
            Self::Nats => nats::missing(),
        }
    }
}

/// Where servers are found and where they run.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The hub's program.
    pub(crate) hub: PathBuf,
    /// The core servers run on.
    pub(crate) core: usize,
    /// The core the load comes from.
    pub(crate) load_core: usize,
    /// The core Redis runs on: one of those two.
    pub(crate) redis_core: usize,
    /// Their data folders are made here; the file system decides what a sync costs.
    pub(crate) scratch: PathBuf,
}

/// A running server.
pub(crate) struct Server {
    /// Where subscribers go, by turns: one for each node.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where publishers go, by turns; one alone goes to the first.
    pub(crate) publishers: Vec<SocketAddr>,
    pub(crate) dialect: Box<dyn Dialect>,
    nodes: Vec<Process>,
    redis: Option<Process>,
    _folder: TempDir,
}

impl Server {
    /// Starts one. `settings` are the hub's, as in its settings file, and nobody else's.
    pub(crate) fn start(kind: Kind, site: &Site, settings: &toml::Table) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("pulsehub-load-").tempdir_in(&site.scratch);
        let folder = folder.with_context(|| format!("no folder in {}", site.scratch.display()))?;
        let started = match kind {
            Kind::Floor => floor::start(site, folder.path())?,
            Kind::Hub => hub::start(site, folder.path(), settings)?,
            Kind::Cluster => cluster::start(site, folder.path(), settings)?,
            Kind::Nchan => nchan::start(site, folder.path())?,
            Kind::Nats => nats::start(site, folder.path())?,
        };
        let Started { addresses, publishers, nodes, redis, dialect } = started;
        Ok(Self { addresses, publishers, dialect, nodes, redis, _folder: folder })
    }

    /// An error if a process of it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.nodes.iter_mut().chain(&mut self.redis).try_for_each(Process::check)
    }

    /// Processor time it has used so far, all nodes together.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let nodes = self.nodes.iter().map(Process::cpu).sum::<Result<_>>()?;
        Ok(Cpu { nodes, redis: self.redis.as_ref().map(Process::cpu).transpose()? })
    }

    /// Bytes of its memory that are resident, all nodes together, without Redis.
    pub(crate) fn rss(&self) -> Result<u64> {
        self.nodes.iter().map(Process::rss).sum()
    }
}

/// Processor time of a server, and of the Redis its nodes share.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) nodes: Duration,
    pub(crate) redis: Option<Duration>,
}

impl Cpu {
    /// What was used after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        let redis = self.redis.zip(before.redis).map(|(now, then)| now.saturating_sub(then));
        Self { nodes: self.nodes.saturating_sub(before.nodes), redis }
    }
}

struct Started {
    addresses: Vec<SocketAddr>,
    publishers: Vec<SocketAddr>,
    nodes: Vec<Process>,
    redis: Option<Process>,
    dialect: Box<dyn Dialect>,
}

impl Started {
    /// A server that is one process.
    fn alone(
        address: SocketAddr,
        publisher: SocketAddr,
        process: Process,
        dialect: impl Dialect + 'static,
    ) -> Self {
        let (addresses, publishers) = (vec![address], vec![publisher]);
        let dialect = Box::new(dialect);
        Self { addresses, publishers, nodes: vec![process], redis: None, dialect }
    }
}

/// An address nobody listens on, for servers that cannot choose one themselves.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    listener.local_addr().context("no free port")
}

/// Waits until somebody listens there.
fn wait_until_open(process: &mut Process, address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        process.check()?;
        if Instant::now() > deadline {
            bail!("nobody listens on {address} after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What a subscriber asks for.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// Patterns of the hub; a peer takes the first as a name.
    pub(crate) topics: Vec<String>,
    /// The stream all of whose events it must get.
    pub(crate) stream: u32,
    /// The number of the first event it must get.
    pub(crate) first: u64,
    pub(crate) user: usize,
    pub(crate) from: From,
}

/// Where a subscriber begins.
#[derive(Clone, Debug)]
pub(crate) enum From {
    Now,
    /// This many past events.
    Last(u64),
    /// A position as the hub tells it.
    Position(String),
}

/// An event to publish.
pub(crate) struct Event {
    pub(crate) topic: String,
    /// What the hub's `latest` keeps the newest of.
    pub(crate) key: Option<String>,
    pub(crate) mark: Mark,
    /// Bytes of its payload.
    pub(crate) bytes: usize,
}

/// What a server's frame means to the subscriber.
pub(crate) enum Heard {
    /// Events; their marks are to be found in the payload.
    Events,
    /// From here on nothing that is published is missed.
    Live,
    /// To be sent back.
    Answer(Vec<u8>),
    /// The subscription is broken: a gap, a refusal, an end.
    Broken(String),
    Nothing,
}

/// How to speak with one kind of server.
pub(crate) trait Dialect {
    /// The request for a WebSocket.
    fn upgrade(&self, seat: &Seat) -> Vec<u8>;

    /// What to send once the socket is open; without it the subscription is live by then.
    fn join(&self, seat: &Seat) -> Option<Vec<u8>>;

    /// What a frame means. Control frames are not asked about.
    fn hear(&self, frame: &Frame<'_>) -> Heard;

    /// What a publisher's connection says first.
    fn greet(&self) -> Vec<u8>;

    /// Appends what publishes `events`, and tells how many acknowledgements that brings.
    fn publish(&self, events: &[Event], out: &mut Vec<u8>) -> usize;

    /// The first acknowledgement in `bytes`, if it is whole.
    fn acknowledged(&self, bytes: &[u8]) -> Result<Option<Ack>>;
}

/// A server's word that it took what was published.
pub(crate) struct Ack {
    /// Bytes it took on the wire.
    pub(crate) length: usize,
    /// How many of the acknowledgements it stands for: 0 for what only came along.
    pub(crate) count: usize,
    /// The body of a server's answer over HTTP.
    pub(crate) body: Vec<u8>,
    /// What the server wants to hear in return.
    pub(crate) reply: &'static [u8],
}
