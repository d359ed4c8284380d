//! A way to Redis that can be cut, led elsewhere, and on which one answer can be held back.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU16, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::DEADLINE;

/// Passes on what comes in to a port of this machine; ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    way: Arc<Way>,
    accepting: JoinHandle<()>,
}

struct Way {
    target: AtomicU16,
    /// Bytes until the connection that carries them breaks; negative for none.
    left: AtomicI64,
    /// Changes when every connection is to break.
    lives: watch::Sender<u64>,
    gate: watch::Sender<Gate>,
    /// What is said instead of what, in as many bytes.
    disguise: Option<(&'static [u8], &'static [u8])>,
}

/// What becomes of answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// It shuts behind the first question that contains this.
    WaitsFor(&'static [u8]),
    /// Whoever asked that gets no answer yet; everybody else does.
    Shut,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        Self::new(port, None).await
    }

    /// Lets the server say `instead` where it says `what`; that it says in one piece.
    pub(crate) async fn disguising(port: u16, what: &'static [u8], instead: &'static [u8]) -> Self {
        assert_eq!(what.len(), instead.len());
        Self::new(port, Some((what, instead))).await
    }

    async fn new(port: u16, disguise: Option<(&'static [u8], &'static [u8])>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(Way {
            target: AtomicU16::new(port),
            left: AtomicI64::new(-1),
            lives: watch::Sender::new(0),
            gate: watch::Sender::new(Gate::Open),
            disguise,
        });
        let shared = way.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, shared.clone()));
            }
        });
        Self { address, way, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Breaks the connection that carries the byte after so many, in the middle of whatever it says.
    pub(crate) fn cut_after(&self, bytes: i64) {
        self.way.left.store(bytes, Ordering::SeqCst);
    }

    /// Holds back all answers of the connection on which next is asked what contains `question`.
    pub(crate) fn hold(&self, question: &'static [u8]) {
        self.way.gate.send_replace(Gate::WaitsFor(question));
    }

    /// Waits until that was asked.
    pub(crate) async fn is_holding(&self) {
        let mut gate = self.way.gate.subscribe();
        let shut = gate.wait_for(|gate| *gate == Gate::Shut);
        timeout(DEADLINE, shut).await.expect("nobody asked").unwrap();
    }

    /// Lets what was held back go on.
    pub(crate) fn release(&self) {
        self.way.gate.send_replace(Gate::Open);
    }

    /// Leads elsewhere; who is connected has to come again.
    pub(crate) fn lead_to(&self, port: u16) {
        self.way.target.store(port, Ordering::SeqCst);
        self.way.lives.send_modify(|lives| *lives += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.way.lives.send_modify(|lives| *lives += 1);
    }
}

async fn pass(near: TcpStream, way: Arc<Way>) {
    let mut lives = way.lives.subscribe();
    lives.mark_unchanged();
    let target = ("127.0.0.1", way.target.load(Ordering::SeqCst));
    // Refused like a port where nobody listens.
    let Ok(far) = TcpStream::connect(target).await else { return };
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return;
    }
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let is_held = AtomicBool::new(false);
    tokio::select! {
        () = copy(near_in, far_out, &way, Side::Questions, &is_held) => {}
        () = copy(far_in, near_out, &way, Side::Answers, &is_held) => {}
        _ = lives.changed() => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Questions,
    Answers,
}

/// Copies until either side ends or the bytes are used up.
async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    way: &Way,
    side: Side,
    is_held: &AtomicBool,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        match side {
            Side::Questions => {
                way.gate.send_if_modified(|gate| {
                    let shuts =
                        matches!(*gate, Gate::WaitsFor(what) if contains(&buffer[..count], what));
                    if shuts {
                        is_held.store(true, Ordering::SeqCst);
                        *gate = Gate::Shut;
                    }
                    shuts
                });
            }
            Side::Answers if is_held.load(Ordering::SeqCst) => {
                let mut gate = way.gate.subscribe();
                if gate.wait_for(|gate| *gate != Gate::Shut).await.is_err() {
                    return;
                }
                is_held.store(false, Ordering::SeqCst);
            }
            Side::Answers => {}
        }
        if let Some((what, instead)) = way.disguise {
            let found = buffer[..count].windows(what.len()).position(|window| window == what);
            if let Some(at) = found {
                buffer[at..at + what.len()].copy_from_slice(instead);
            }
        }
        let mut pass = count;
        let is_cut = way.left.load(Ordering::SeqCst) >= 0 && {
            let left = way.left.fetch_sub(count as i64, Ordering::SeqCst);
            pass = usize::try_from(left).unwrap_or(0).min(count);
            (0..count as i64).contains(&left)
        };
        if to.write_all(&buffer[..pass]).await.is_err() || is_cut {
            return;
        }
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
