//! The writer: what is queued goes to Redis in groups, one script at a time.
//!
//! A script whose answer does not come may have run, or may run yet. So the same ids are sent again
//! until the publisher must be answered: Redis knows them if they are stored, and by the call's name
//! whether that same call did it.

use std::{sync::Arc, time::Instant};

use ::redis::Value;
use tokio::{sync::mpsc, time::timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    RedisBatch,
    batch::{GroupCalls, ScriptAnswer, WriteGroup},
    hellos::Hellos,
    latest::RedisLatest,
    progress::RedisProgress,
};
use crate::{
    broker::{PublishError, Published, queue::RETRY_AFTER},
    redis::{Link, RedisFailure, backoff},
    telemetry::{Limit, Telemetry},
    topic::Topic,
};

/// About how much one script takes in; the rest waits for the next.
const GROUP_BYTES: usize = 512 << 10;
const GROUP_EVENTS: usize = 1000;

/// Who writes to the log.
pub(super) struct RedisWriter {
    pub(super) link: Link,
    pub(super) calls: GroupCalls,
    pub(super) progress: Arc<RedisProgress>,
    pub(super) latest: Arc<RedisLatest>,
    pub(super) hellos: Arc<Hellos>,
    pub(super) telemetry: Telemetry,
    pub(super) node: Arc<str>,
    /// Groups so far, which name their calls.
    pub(super) groups: u64,
    /// Whether the last group failed; said once, and once when it is over.
    pub(super) failing: bool,
}

impl RedisWriter {
    /// Stores what is queued until the queue is closed and empty; `closing` closes it.
    pub(super) async fn run(
        mut self,
        mut queue: mpsc::Receiver<RedisBatch>,
        closing: CancellationToken,
    ) {
        let mut next = None;
        loop {
            let first = tokio::select! {
                biased;
                first = std::future::ready(next.take()), if next.is_some() => first,
                first = queue.recv() => first,
                () = closing.cancelled() => {
                    // What was queued before is stored; nothing comes behind it.
                    queue.close();
                    queue.recv().await
                }
            };
            let Some(first) = first else { return };
            let group;
            (group, next) = gather(first, &mut queue);
            self.store(group).await;
        }
    }

    async fn store(&mut self, batches: Vec<RedisBatch>) {
        // The oldest decides: nobody waits longer than was promised.
        let deadline = batches.iter().map(|batch| batch.terms.deadline).min();
        let deadline = deadline.unwrap_or_else(Instant::now);
        let started = Instant::now();
        let mut group = WriteGroup::new(batches);
        let result = self.try_store(&mut group, deadline).await;
        match &result {
            Ok(()) if self.failing => {
                tracing::info!("Redis can be written again");
                self.failing = false;
            }
            Err(PublishError::TooManyTopics { .. }) if group.batches.len() > 1 => {
                // One of them is refused, not all.
                for batch in group.batches {
                    Box::pin(self.store(vec![batch])).await;
                }
                return;
            }
            Err(error @ (PublishError::Unavailable { .. } | PublishError::Unknown { .. }))
                if !self.failing =>
            {
                tracing::error!(%error, "Redis cannot be written; publishes are answered 503");
                self.failing = true;
            }
            _ => {}
        }
        if result.is_ok() {
            self.telemetry.commit_seconds.observe(started.elapsed().as_secs_f64());
        }
        self.answer(group, result);
    }

    async fn try_store(
        &mut self,
        group: &mut WriteGroup,
        deadline: Instant,
    ) -> Result<(), PublishError> {
        self.groups += 1;
        let name = format!("{}-{}", self.node, self.groups);
        let mut maybe_stored = false;
        let mut backoff = backoff();
        loop {
            let open = group.open();
            if open.is_empty() {
                return Ok(());
            }
            let failure = match self.ask(group, &open, &name, deadline).await {
                Ok(ScriptAnswer::Stored { first, full }) => {
                    group.stored(&open, first);
                    self.progress.given(group.last);
                    let full = full.iter().filter_map(|topic| Topic::parse(topic).ok());
                    self.latest.overflow(full);
                    continue;
                }
                Ok(ScriptAnswer::Duplicates(found)) => {
                    group.found(&open, &found);
                    continue;
                }
                Ok(ScriptAnswer::TooManyTopics(topics)) => {
                    self.telemetry.hit(Limit::Topics);
                    let limit = self.calls.config.max_topics;
                    let topics = topics.iter().filter_map(|topic| Topic::parse(topic).ok());
                    return Err(PublishError::TooManyTopics { limit, topics: topics.collect() });
                }
                Ok(ScriptAnswer::Fenced) => return Err(PublishError::Fenced),
                Ok(ScriptAnswer::Moved) => {
                    self.hellos.ask();
                    self.link.forget().await;
                    RedisFailure::Unreachable("the log is about to go on in a new epoch".to_owned())
                }
                Err(failure) => failure,
            };
            maybe_stored |= matches!(failure, RedisFailure::Unanswered(_));
            let wait = backoff.failed();
            let is_final = matches!(&failure, RedisFailure::Refused(why) if !may_pass(why));
            if is_final || Instant::now() + wait >= deadline {
                let (reason, retry_after) = (failure.to_string(), RETRY_AFTER);
                return Err(if maybe_stored {
                    PublishError::Unknown { reason, ids: Vec::new(), retry_after }
                } else {
                    PublishError::Unavailable { reason, retry_after }
                });
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn ask(
        &mut self,
        group: &WriteGroup,
        open: &[usize],
        name: &str,
        deadline: Instant,
    ) -> Result<ScriptAnswer, RedisFailure> {
        let refused = |error: std::io::Error| RedisFailure::Refused(error.to_string());
        let epoch = self.progress.front.lock().lineage.newest();
        let call = self.calls.call(group, open, epoch, name).map_err(refused)?;
        let asked = self.link.script_on::<Vec<Value>>(&call);
        match timeout_at(deadline.into(), asked).await {
            Ok(answer) => {
                let (answer, ran_on) = answer?;
                let said = ScriptAnswer::read(&answer)
                    .ok_or_else(|| RedisFailure::Unanswered(format!("{answer:?}")))?;
                if matches!(said, ScriptAnswer::Stored { .. } | ScriptAnswer::Duplicates(_)) {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.link.replicated(ran_on, left).await?;
                }
                Ok(said)
            }
            Err(_) => {
                // The answer must not be taken for the next call's, and comes too late anyway.
                self.link.forget().await;
                Err(RedisFailure::Unanswered("it took too long".to_owned()))
            }
        }
    }

    fn answer(&self, group: WriteGroup, result: Result<(), PublishError>) {
        let Self { telemetry, progress, .. } = self;
        let last = group.last;
        for (batch, outcome) in group.outcomes() {
            let answer = match (outcome, &result) {
                (Some((offsets, accepted)), _) => {
                    telemetry.events_stored.inc_by(accepted as u64);
                    telemetry.events_duplicate.inc_by((offsets.len() - accepted) as u64);
                    let offset = offsets.iter().copied().max().unwrap_or(last);
                    let position = progress.front.position(offset);
                    Ok(Published { position, offsets, accepted, left_out: None })
                }
                (None, Err(error)) => {
                    telemetry.publish_failures.inc();
                    let mut error = error.clone();
                    if let PublishError::Unknown { ids, .. } = &mut error {
                        ids.extend(batch.events.iter().map(|event| event.id.clone()));
                    }
                    Err(error)
                }
                (None, Ok(())) => Err(PublishError::Closed), // a group is settled when it is ok
            };
            if let Some(asked) = batch.answer {
                // The publisher may have gone.
                let _ = asked.send(answer);
            }
        }
    }
}

/// What goes with `first`, and what was taken from the queue but goes alone.
fn gather(
    first: RedisBatch,
    queue: &mut mpsc::Receiver<RedisBatch>,
) -> (Vec<RedisBatch>, Option<RedisBatch>) {
    let (mut bytes, mut events) = (first.bytes, first.events.len());
    let is_alone = first.terms.fence.is_some();
    let mut group = vec![first];
    while !is_alone && bytes < GROUP_BYTES && events < GROUP_EVENTS {
        let Ok(batch) = queue.try_recv() else { break };
        if batch.terms.fence.is_some() {
            return (group, Some(batch));
        }
        bytes += batch.bytes;
        events += batch.events.len();
        group.push(batch);
    }
    (group, None)
}

/// Whether a refusal may be over in a moment: a master is being chosen, or is loading its data.
fn may_pass(refusal: &str) -> bool {
    ["READONLY", "LOADING", "MASTERDOWN", "BUSY"].iter().any(|code| refusal.contains(code))
}
