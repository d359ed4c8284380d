//! The tail: one connection per node that reads the stream from where the node stands.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ::redis::aio::MultiplexedConnection;
use bytes::Bytes;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::{RedisShared, scripts::LogState};
use crate::{
    backoff::Backoff,
    broker::codec,
    event::Block,
    position::{Epoch, Offset},
    redis::{RedisFailure, backoff},
};

/// How long Redis holds an answer back when there is nothing new.
const BLOCK: Duration = Duration::from_millis(200);
/// How often a node says where it stands.
const HELLO: Duration = Duration::from_secs(1);
/// The most entries of one answer. A connection begins with one and asks for more from answer to
/// answer: if the last one ended because Redis has a limit on answers, this one still gets on.
const MOST_COUNT: usize = 64;

/// An entry of the stream as Redis answers it.
pub(super) type RawEntry = (String, HashMap<String, Bytes>);

/// A batch in the stream.
pub(super) struct StreamEntry {
    pub(super) epoch: Epoch,
    /// The head before it.
    pub(super) before: Offset,
    pub(super) block: Arc<Block>,
    /// Its bytes in Redis.
    pub(super) stored: usize,
}

/// Reads the stream until `stop`, through all failures.
pub(super) async fn run(shared: Arc<RedisShared>, stop: CancellationToken) {
    let mut backoff = backoff();
    loop {
        let began = Instant::now();
        let failure = tokio::select! {
            () = stop.cancelled() => return,
            failure = follow(&shared, &mut backoff) => failure,
        };
        if !backoff.is_failing() {
            tracing::warn!(%failure, after = ?began.elapsed(), "Redis is lost; trying again until it is back");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.failed()) => {}
        }
    }
}

/// One connection's life; tells `backoff` once it works.
async fn follow(shared: &RedisShared, backoff: &mut Backoff) -> RedisFailure {
    let mut connection = match shared.server.connect(BLOCK).await {
        Ok(connection) => connection,
        Err(error) => return RedisFailure::Unreachable(error.to_string()),
    };
    let mut greeted: Option<Instant> = None;
    let mut count = 1;
    loop {
        if shared.hellos.is_wanted() || greeted.is_none_or(|last| last.elapsed() >= HELLO) {
            if let Err(failure) = hello(shared, &mut connection).await {
                return failure;
            }
            if backoff.worked() {
                tracing::info!("Redis is back");
            }
            greeted = Some(Instant::now());
        }
        let raw = match next(shared, &mut connection, count).await {
            Ok(raw) => raw,
            Err(failure) => return failure,
        };
        count = (count * 2).min(MOST_COUNT);
        shared.hellos.heard();
        for raw in raw {
            let entry = match StreamEntry::read(raw) {
                Ok(entry) => entry,
                Err(failure) => return failure,
            };
            if !shared.take(&entry) {
                // It begins an epoch that we have not heard of.
                if let Err(failure) = hello(shared, &mut connection).await {
                    return failure;
                }
                if !shared.take(&entry) {
                    return RedisFailure::Refused(
                        "the log goes on in an epoch it does not know".into(),
                    );
                }
            }
            // Each is a whole batch to unpack, and there may be as many again at once.
            yield_now().await;
        }
    }
}

async fn hello(
    shared: &RedisShared,
    connection: &mut MultiplexedConnection,
) -> Result<(), RedisFailure> {
    let asked = shared.hellos.asked();
    let call =
        shared.scripts.greeting(Some(shared.furthest()), shared.clock.hand(), &shared.node)?;
    let answer = call.invoke_async(connection).await.map_err(|error| RedisFailure::of(&error))?;
    shared.learn(LogState::read(answer)?, asked);
    shared.hellos.heard();
    Ok(())
}

async fn next(
    shared: &RedisShared,
    connection: &mut MultiplexedConnection,
    count: usize,
) -> Result<Vec<RawEntry>, RedisFailure> {
    let mut read = ::redis::cmd("XREAD");
    read.arg("COUNT").arg(count).arg("BLOCK").arg(BLOCK.as_millis() as u64);
    read.arg("STREAMS").arg(&shared.scripts.log).arg(format!("{}-0", *shared.head.borrow()));
    let answer: Option<Vec<(String, Vec<RawEntry>)>> =
        read.query_async(connection).await.map_err(|error| RedisFailure::of(&error))?;
    Ok(answer.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
}

impl StreamEntry {
    pub(super) fn read((id, mut fields): RawEntry) -> Result<Self, RedisFailure> {
        let mut read = || {
            let last: Offset = id.split_once('-')?.0.parse().ok()?;
            let number = |name, radix| {
                let text = fields.get(name).and_then(|text| std::str::from_utf8(text).ok())?;
                u64::from_str_radix(text, radix).ok()
            };
            let (epoch, before, received) = (number("e", 16)?, number("p", 10)?, number("r", 10)?);
            let body = fields.remove("b")?;
            let stored = body.len();
            let block = match fields.remove("u") {
                Some(origins) => unpack(&body)?.with_origins(&origins).ok()?,
                None => unpack(&body)?, // of an earlier version
            };
            let block = block.renumbered(before.checked_add(1)?, received).ok()?;
            (block.last() == last && !block.is_empty()).then(|| Self {
                epoch: Epoch::new(epoch),
                before,
                block,
                stored,
            })
        };
        read().ok_or_else(|| RedisFailure::Refused(format!("the entry {id} of the log is damaged")))
    }
}

/// Reads a block behind the byte that tells how it is packed.
fn unpack(body: &[u8]) -> Option<Block> {
    let (codec, body) = body.split_first()?;
    codec::decode(i64::from(*codec), body.to_vec()).ok()
}

impl RedisShared {
    /// Takes in the next entry; false if it belongs to an epoch that is not known.
    fn take(&self, entry: &StreamEntry) -> bool {
        // Before anybody hears of the events: their topics are found then.
        self.names.lock().meet(entry.block.records().map(|record| record.topic()));
        let mut log = self.log.lock();
        self.cross(&mut log);
        let head = *self.head.borrow();
        if entry.block.last() <= head {
            return true; // read before
        }
        if log.lineage.epoch_of(entry.block.last()) != entry.epoch {
            return false;
        }
        if entry.before != head {
            // Retention was here before us. Readers find out what they miss when they read on.
            tracing::warn!(
                head,
                before = entry.before,
                "a stretch of the log was gone before it was read"
            );
            log.ring.forget(entry.before);
            log.epoch = entry.epoch;
        }
        log.ring.push(entry.block.clone());
        self.head.send_replace(entry.block.last());
        self.cross(&mut log);
        true
    }
}
