//! The tail: one connection per node that reads the stream from where the node stands.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::redis::aio::MultiplexedConnection;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::{
    entry::{RawEntry, StreamEntry},
    hellos::Hellos,
    progress::RedisProgress,
    scripts::{LogScripts, LogState},
};
use crate::{
    backoff::Backoff,
    redis::{RedisFailure, Server, backoff},
    telemetry::Telemetry,
};

/// How long Redis holds an answer back when there is nothing new.
const BLOCK: Duration = Duration::from_millis(200);
/// How often a node says where it stands.
const HELLO: Duration = Duration::from_secs(1);
/// The most entries of one answer. A connection begins with one and asks for more from answer to
/// answer: if the last one ended because Redis has a limit on answers, this one still gets on.
const MOST_COUNT: usize = 64;

/// Who reads the stream.
pub(super) struct LogTail {
    pub(super) server: Server,
    pub(super) scripts: Arc<LogScripts>,
    pub(super) progress: Arc<RedisProgress>,
    pub(super) hellos: Arc<Hellos>,
    pub(super) telemetry: Telemetry,
}

impl LogTail {
    /// Reads the stream until `stop`, through all failures.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut backoff = backoff();
        loop {
            let began = Instant::now();
            let failure = tokio::select! {
                () = stop.cancelled() => return,
                failure = self.follow(&mut backoff) => failure,
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
    async fn follow(&self, backoff: &mut Backoff) -> RedisFailure {
        let mut connection = match self.server.connect(BLOCK).await {
            Ok(connection) => connection,
            Err(error) => return RedisFailure::Unreachable(error.to_string()),
        };
        let mut greeted: Option<Instant> = None;
        let mut count = 1;
        loop {
            if self.hellos.is_wanted() || greeted.is_none_or(|last| last.elapsed() >= HELLO) {
                if let Err(failure) = self.hello(&mut connection).await {
                    return failure;
                }
                if backoff.worked() {
                    tracing::info!("Redis is back");
                }
                greeted = Some(Instant::now());
            }
            if let Err(failure) = self.read_on(&mut connection, count).await {
                return failure;
            }
            count = (count * 2).min(MOST_COUNT);
        }
    }

    async fn hello(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisFailure> {
        let asked = self.hellos.asked();
        let call = self.scripts.greeting(Some(self.progress.furthest()))?;
        let answer =
            call.invoke_async(connection).await.map_err(|error| RedisFailure::of(&error))?;
        let state = LogState::read(answer)?;
        self.telemetry.journal_bytes.set(i64::try_from(state.bytes).unwrap_or(i64::MAX));
        self.progress.learn(&state);
        self.hellos.told(state.head, asked);
        self.hellos.heard();
        Ok(())
    }

    /// Takes in what Redis answers next, at most `count` entries.
    async fn read_on(
        &self,
        connection: &mut MultiplexedConnection,
        count: usize,
    ) -> Result<(), RedisFailure> {
        let raw = self.next(connection, count).await?;
        self.hellos.heard();
        for raw in raw {
            let entry = StreamEntry::read(raw)?;
            if !self.progress.take(&entry) {
                // It begins an epoch that we have not heard of.
                self.hello(connection).await?;
                if !self.progress.take(&entry) {
                    let reason = "the log goes on in an epoch it does not know".to_owned();
                    return Err(RedisFailure::Refused(reason));
                }
            }
            // Each is a whole batch to unpack, and there may be as many again at once.
            yield_now().await;
        }
        Ok(())
    }

    async fn next(
        &self,
        connection: &mut MultiplexedConnection,
        count: usize,
    ) -> Result<Vec<RawEntry>, RedisFailure> {
        let at = format!("{}-0", self.progress.front.offset());
        let mut read = ::redis::cmd("XREAD");
        read.arg("COUNT").arg(count).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        read.arg("STREAMS").arg(&self.scripts.keys.log).arg(at);
        let answer: Option<Vec<(String, Vec<RawEntry>)>> =
            read.query_async(connection).await.map_err(|error| RedisFailure::of(&error))?;
        Ok(answer.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
    }
}
