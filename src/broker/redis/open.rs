//! Joining the log: what is asked of Redis first, and the tasks of a node.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64},
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Redis, RedisInner, RedisLog, RedisShared,
    hellos::Hellos,
    retention,
    scripts::LogScripts,
    tail,
    writer::{self, RedisWriter},
};
use crate::{
    broker::{
        journal::{JournalConfig, RetentionRules},
        queue::{QUEUE_LENGTH, QueueRoom},
        ring::Ring,
    },
    redis::{self, Keys, Link, RedisOpenError, Server},
    tasks::TaskFailures,
    telemetry::Telemetry,
    time::{Clock, Millis},
};

pub(super) async fn open(
    config: JournalConfig,
    server: Server,
    clock: Clock,
    telemetry: Telemetry,
) -> Result<Redis, RedisOpenError> {
    let keys = Keys::new(&server.config().prefix);
    let warnings = redis::check(&server, &keys).await?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let place = server.to_string();
    let refuse = |reason: String| RedisOpenError { server: place.clone(), reason };
    let node = crate::id::short().map_err(|error| refuse(error.to_string()))?;
    let (scripts, link) = (LogScripts::new(&keys), Link::new(server.clone()));
    let state = scripts
        .hello(&link, None, clock.hand(), &node)
        .await
        .map_err(|error| refuse(error.to_string()))?;
    let ask = ::redis::cmd("HGET").arg(&scripts.meta).arg("received").clone();
    let newest: Option<Millis> = link.run(&ask).await.map_err(|error| refuse(error.to_string()))?;
    clock.meet(newest.unwrap_or(0));
    let room = config.queue_bytes.as_usize();
    let queue = QueueRoom::new(room, config.queue_timeout.0, telemetry.clone());
    let log = RedisLog {
        epoch: state.lineage.newest(),
        lineage: state.lineage.clone(),
        ring: Ring::new(state.head, config.recent_bytes.as_usize()),
    };
    let shared = Arc::new(RedisShared {
        rules: RetentionRules::new(&config),
        config,
        server,
        keys,
        scripts,
        clock,
        telemetry,
        node,
        link,
        log: Mutex::new(log),
        head: watch::Sender::new(state.head),
        names: Mutex::default(),
        asking: Semaphore::new(1),
        trims: AtomicU64::new(state.trims),
        trimmed: AtomicU64::new(state.trimmed),
        hellos: Hellos::new(state.head),
        given: AtomicU64::new(0),
        closing: CancellationToken::new(),
        full: Mutex::default(),
        warnings,
        apart: AtomicBool::new(false),
    });
    let (requests, queued) = mpsc::channel(QUEUE_LENGTH);
    let following = CancellationToken::new();
    let (writing, tasks) = (TaskTracker::new(), TaskTracker::new());
    let failures = TaskFailures::default();
    let writer = RedisWriter::new(shared.clone()).map_err(|error| refuse(error.to_string()))?;
    let writer = writer::run(writer, queued);
    writing.spawn(failures.watch("the log's writer", writer));
    let tail = tail::run(shared.clone(), following.clone());
    tasks.spawn(failures.watch("the log's tail", tail));
    let retention = retention::run(shared.clone(), following.clone());
    tasks.spawn(failures.watch("retention", retention));
    Ok(Redis(Arc::new(RedisInner { shared, requests, queue, following, writing, tasks, failures })))
}
