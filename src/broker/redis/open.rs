//! Joining the log: what is asked of Redis first, and the parts and tasks of a node.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    Redis, RedisInner,
    batch::GroupCalls,
    clock_check::ClockCheck,
    cut::CutSearch,
    hellos::Hellos,
    latest::RedisLatest,
    node_tasks::NodeTasks,
    progress::RedisProgress,
    reader::RedisReader,
    retention::RedisRetention,
    scripts::{LogScripts, LogState},
    stored::{LogKeys, StoredLog},
    tail::LogTail,
    topic_cache::TopicCache,
    writer::RedisWriter,
};
use crate::{
    broker::{
        codec::Compressor,
        journal::{JournalConfig, RetentionRules},
        queue::{QUEUE_LENGTH, QueueRoom},
    },
    redis::{self, Keys, Link, RedisFailure, RedisOpenError, Server},
    telemetry::Telemetry,
    time::{Clock, Millis},
};

pub(super) async fn open(
    config: JournalConfig,
    server: Server,
    clock: Clock,
    telemetry: Telemetry,
) -> Result<Redis, RedisOpenError> {
    let prefix = &server.config().prefix;
    let warnings = redis::check(&server, &Keys::new(prefix)).await?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let place = server.to_string();
    let refuse = |reason: String| RedisOpenError { server: place.clone(), reason };
    let refuse_failure = |failure: RedisFailure| refuse(failure.to_string());
    let node: Arc<str> = crate::id::short().map_err(|error| refuse(error.to_string()))?.into();
    let keys = LogKeys::new(prefix);
    let stored = Arc::new(StoredLog::new(server.clone(), keys.clone()));
    let scripts = Arc::new(LogScripts::new(keys, clock.clone(), node.clone()));
    let state = hello(&stored, &scripts).await.map_err(refuse_failure)?;
    let newest: Option<Millis> = stored.meta("received").await.map_err(refuse_failure)?;
    clock.meet(newest.unwrap_or(0));

    let rules = Arc::new(RetentionRules::new(&config));
    let topics = Arc::new(TopicCache::new(stored.clone(), rules.clone()));
    let room = config.recent_bytes.as_usize();
    let progress = Arc::new(RedisProgress::new(&state, topics.clone(), room));
    let hellos = Arc::new(Hellos::new(state.head));
    let latest = Arc::new(RedisLatest {
        stored: stored.clone(),
        scripts: scripts.clone(),
        topics: topics.clone(),
        telemetry: telemetry.clone(),
        most: config.latest_keys,
        full: Mutex::default(),
    });
    let clocks = Arc::new(ClockCheck::new(stored.clone(), clock, telemetry.clone()));
    let retention = Arc::new(RedisRetention {
        cuts: CutSearch {
            stored: stored.clone(),
            progress: progress.clone(),
            rules,
            max_bytes: config.max_bytes.0,
        },
        stored: stored.clone(),
        scripts: scripts.clone(),
        topics: topics.clone(),
        latest: latest.clone(),
        progress: progress.clone(),
        clocks: clocks.clone(),
        max_topics: config.max_topics,
        node: node.clone(),
    });
    let patience = server.config().timeout.0;
    let reader = RedisReader {
        stored,
        progress: progress.clone(),
        topics: topics.clone(),
        hellos: hellos.clone(),
        patience,
    };
    let queue_bytes = config.queue_bytes.as_usize();
    let queue = QueueRoom::new(queue_bytes, config.queue_timeout.0, telemetry.clone());
    let compressor = Compressor::new().map_err(|error| refuse(error.to_string()))?;
    let writer = RedisWriter {
        link: Link::new(server.clone()),
        calls: GroupCalls { scripts: scripts.clone(), config, compressor },
        progress: progress.clone(),
        latest: latest.clone(),
        hellos: hellos.clone(),
        telemetry: telemetry.clone(),
        node: node.clone(),
        groups: 0,
        failing: false,
    };
    let tail =
        LogTail { server, scripts, progress: progress.clone(), hellos: hellos.clone(), telemetry };

    let (requests, queued) = mpsc::channel(QUEUE_LENGTH);
    let tasks = NodeTasks::default();
    tasks.write("log writer", |closing| writer.run(queued, closing));
    tasks.follow("log tail", |stop| tail.run(stop));
    tasks.follow("retention", |stop| retention.clone().run(stop));
    Ok(Redis(Arc::new(RedisInner {
        node,
        warnings,
        patience,
        requests,
        queue,
        tasks,
        progress,
        reader,
        latest,
        topics,
        hellos,
        clocks,
        retention,
    })))
}

async fn hello(stored: &StoredLog, scripts: &LogScripts) -> Result<LogState, RedisFailure> {
    LogState::read(stored.link.script(&scripts.greeting(None)?).await?)
}
