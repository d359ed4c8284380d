//! Retention: what is too old or too much leaves the stream, and every topic's loss is noted first.
//!
//! The stream keeps everything for the longest age of all rules. What a shorter rule takes is only
//! marked; readers leave it out.

use std::{sync::Arc, time::Duration};

use ::redis::cmd;
use tokio_util::sync::CancellationToken;

use super::{
    clock_check::ClockCheck,
    cut::{Cut, CutSearch},
    latest::RedisLatest,
    progress::RedisProgress,
    scripts::LogScripts,
    stored::StoredLog,
    topic_cache::{TopicCache, off_the_workers},
};
use crate::{redis::RedisFailure, time::Millis, topic::Topic};

/// How often retention looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one node does it for all.
const TURN: Millis = 5_000;

/// What leaves the log, and when.
pub(super) struct RedisRetention {
    pub(super) stored: Arc<StoredLog>,
    pub(super) scripts: Arc<LogScripts>,
    pub(super) topics: Arc<TopicCache>,
    pub(super) latest: Arc<RedisLatest>,
    pub(super) progress: Arc<RedisProgress>,
    pub(super) clocks: Arc<ClockCheck>,
    pub(super) cuts: CutSearch,
    pub(super) max_topics: usize,
    /// This node, which one node at a time goes by.
    pub(super) node: Arc<str>,
}

impl RedisRetention {
    /// Looks after retention until `stop`, on one node at a time.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let work = async {
                tokio::time::sleep(INTERVAL).await;
                // Every node shows its own clock, also when it is not its turn.
                self.clocks.time().await?;
                if self.is_our_turn().await? {
                    self.to_the_end().await?;
                }
                Ok::<(), RedisFailure>(())
            };
            let result = tokio::select! {
                () = stop.cancelled() => break,
                result = work => result,
            };
            match result {
                // That Redis is gone is said by the tail.
                Err(RedisFailure::Refused(error)) if !failing => {
                    tracing::warn!(%error, "retention failed; trying again");
                    failing = true;
                }
                Err(_) => {}
                Ok(()) => failing = false,
            }
        }
    }

    /// Does all there is to do.
    pub(super) async fn to_the_end(&self) -> Result<(), RedisFailure> {
        while self.step().await? {}
        self.latest.cap().await
    }

    /// Several nodes at it would do no harm, only the same work.
    async fn is_our_turn(&self) -> Result<bool, RedisFailure> {
        let key = self.stored.keys.of("maintainer");
        let mut claim = cmd("SET");
        claim.arg(&key).arg(&*self.node).arg("NX").arg("PX").arg(TURN);
        if self.stored.link.run::<Option<String>>(&claim).await?.is_some() {
            return Ok(true);
        }
        let holder: Option<String> = self.stored.link.run(cmd("GET").arg(&key)).await?;
        Ok(holder.as_deref() == Some(&*self.node))
    }

    /// One step; true if there is more to do.
    async fn step(&self) -> Result<bool, RedisFailure> {
        let topics = self.topics.all().await?;
        let mut cut = Cut::default();
        let now = self.clocks.time().await?;
        self.cuts.oldest(&topics, now, &mut cut).await?;
        if let Some(now) = now {
            self.cuts.short(&topics, now, &mut cut).await?;
        }
        let (fresh, most) = (self.topics.names().await?.fresh(), self.max_topics);
        let known = topics.clone();
        let (forget, dropped) = off_the_workers(move || {
            let forget: Vec<Topic> = known.empty(&fresh, most).cloned().collect();
            let dropped = known.too_many_forgotten(forget.len(), most);
            let dropped: Vec<Topic> = dropped.into_iter().cloned().collect();
            (forget, dropped)
        })
        .await?;
        if cut.through.is_none() && cut.marks.is_empty() && forget.is_empty() {
            return Ok(false);
        }
        let mut call = self.scripts.trim();
        call.arg(topics.trims);
        call.arg(cut.through.map_or(String::new(), |offset| offset.to_string())).arg(cut.bytes);
        call.arg(cut.marks.len());
        for (name, offset) in &cut.marks {
            call.arg(name).arg(*offset);
        }
        call.arg(cut.topics.len());
        for (topic, gone) in &cut.topics {
            call.arg(topic.as_str()).arg(gone.events).arg(gone.bytes).arg(gone.through);
        }
        call.arg(forget.len());
        for topic in forget {
            call.arg(topic.as_str()).arg(self.stored.keys.latest(topic.as_str()));
        }
        call.arg(dropped.len());
        for topic in dropped {
            call.arg(topic.as_str());
        }
        let is_done: bool = self.stored.link.script(&call).await?;
        if !is_done {
            return Ok(false); // another node was quicker, or the log goes on in a new epoch
        }
        self.topics.load().await?;
        self.progress.trimmed();
        // What was cut may have emptied topics.
        Ok(cut.more || cut.through.is_some() || !cut.topics.is_empty())
    }
}
