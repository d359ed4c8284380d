//! What this node knows of all topics, and asks Redis about them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ::redis::pipe;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    names::{KnownNames, TopicNames},
    stored::StoredLog,
    topics::RedisTopics,
};
use crate::{
    broker::{TopicInfo, journal::RetentionRules},
    event::Block,
    position::Offset,
    redis::RedisFailure,
    topic::{Topic, TopicFilter},
};

/// Entries of the hash that Redis tells at a time: it serves nobody else meanwhile.
const PIECE: usize = 1000;
/// Topics whose numbers are asked for by name, at most or at a time.
const FEW: usize = 1000;

/// What Redis told of the topics last, and what was heard since.
pub(in crate::broker) struct TopicCache {
    stored: Arc<StoredLog>,
    rules: Arc<RetentionRules>,
    /// Held to look up, to add or to copy names.
    names: Mutex<TopicNames>,
    /// Redis is asked for all topics by one at a time.
    asking: Semaphore,
    /// How often retention took something, as far as is known, and what it took from the stream.
    trims: AtomicU64,
    trimmed: AtomicU64,
}

impl TopicCache {
    pub(super) fn new(stored: Arc<StoredLog>, rules: Arc<RetentionRules>) -> Self {
        Self {
            stored,
            rules,
            names: Mutex::default(),
            asking: Semaphore::new(1),
            trims: AtomicU64::new(0),
            trimmed: AtomicU64::new(0),
        }
    }

    /// The tail has met this block.
    pub(super) fn meet(&self, block: &Block) {
        self.names.lock().meet(block.records().map(|record| record.topic()));
    }

    /// What Redis told may be of another history.
    pub(super) fn doubt(&self) {
        self.names.lock().doubt();
    }

    /// So often retention took something, and up to here it took the stream.
    pub(super) fn set_trimmed(&self, trims: u64, trimmed: Offset) {
        self.trimmed.store(trimmed, Ordering::Release);
        self.trims.store(trims, Ordering::Release);
    }

    /// The last offset that retention took from the stream.
    pub(super) fn trimmed(&self) -> Offset {
        self.trimmed.load(Ordering::Acquire)
    }

    /// The names of all topics, and maybe of some that were forgotten a moment ago: whoever asks for their numbers finds
    /// out. So a node need not fetch all of them again each time retention takes something.
    pub(in crate::broker) async fn names(&self) -> Result<KnownNames, RedisFailure> {
        let told = self.names.lock().told();
        let known = match told {
            Some(known) => known,
            None => self.load().await?,
        };
        Ok(self.names.lock().names(known))
    }

    /// The names that a filter matches; None if they are more than `most`.
    pub(super) async fn names_of(
        &self,
        filter: &TopicFilter,
        most: usize,
    ) -> Result<Option<Vec<Topic>>, RedisFailure> {
        if filter.is_literal() {
            let named = filter.patterns().iter();
            let names = named.filter_map(|pattern| Topic::parse(pattern.as_str()).ok());
            return Ok(Some(names.collect()));
        }
        let (names, filter) = (self.names().await?, filter.clone());
        off_the_workers(move || names.matching(&filter, most)).await
    }

    /// What is known of some topics, in order.
    pub(in crate::broker) async fn infos(
        &self,
        names: &[Topic],
    ) -> Result<Vec<TopicInfo>, RedisFailure> {
        let mut infos = Vec::new();
        for names in names.chunks(FEW) {
            infos.extend(self.named(names).await?.infos(&self.rules));
        }
        Ok(infos)
    }

    /// The topics that a filter matches as Redis knows them now; None of many.
    pub(super) async fn few(
        &self,
        filter: &TopicFilter,
    ) -> Result<Option<Arc<RedisTopics>>, RedisFailure> {
        match self.names_of(filter, FEW).await? {
            Some(names) => self.named(&names).await.map(Some),
            None => Ok(None),
        }
    }

    /// Some topics as Redis knows them now.
    async fn named(&self, names: &[Topic]) -> Result<Arc<RedisTopics>, RedisFailure> {
        let StoredLog { link, keys } = &*self.stored;
        let mut ask = pipe();
        ask.atomic();
        ask.cmd("HMGET").arg(&keys.meta).arg(&["trims", "trimmed", "forgotten_through"]);
        // Never none: that is no question to Redis.
        ask.cmd("HMGET").arg(&keys.topics).arg("");
        names.iter().for_each(|name| {
            ask.arg(name.as_str());
        });
        let (meta, numbers): (Vec<Option<u64>>, Vec<Option<String>>) = link.run_all(&ask).await?;
        let [trims, forgotten] = self.take_in(&meta);
        let entries = names.iter().zip(numbers.into_iter().skip(1));
        let known = entries.filter_map(|(name, numbers)| Some((name.to_string(), numbers?)));
        Ok(Arc::new(RedisTopics::new(trims, forgotten, known)))
    }

    /// What retention took from a filter's topics, as it was when it last took something, or later. Of a filter without
    /// wildcards it may tell of no others.
    pub(super) async fn of(&self, filter: &TopicFilter) -> Result<Arc<RedisTopics>, RedisFailure> {
        match self.current() {
            Some(known) => Ok(known),
            None => self.of_now(filter).await,
        }
    }

    /// The same, as it is now.
    pub(super) async fn of_now(
        &self,
        filter: &TopicFilter,
    ) -> Result<Arc<RedisTopics>, RedisFailure> {
        if !filter.is_literal() {
            return self.load().await;
        }
        let names = self.names_of(filter, usize::MAX).await?.unwrap_or_default();
        self.named(&names).await
    }

    /// All topics as they were when retention last took something, or later.
    pub(super) async fn all(&self) -> Result<Arc<RedisTopics>, RedisFailure> {
        // Another node may have: of topics that nothing was taken from since, what Redis told before is true.
        let trims: Option<u64> = self.stored.meta("trims").await?;
        self.trims.fetch_max(trims.unwrap_or(0), Ordering::AcqRel);
        match self.current() {
            Some(known) => Ok(known),
            None => self.load().await,
        }
    }

    fn current(&self) -> Option<Arc<RedisTopics>> {
        let trims = self.trims.load(Ordering::Acquire);
        self.names.lock().current(trims)
    }

    /// All topics as they are now. Redis is asked by one at a time, and who waited meanwhile has the same answer.
    pub(super) async fn load(&self) -> Result<Arc<RedisTopics>, RedisFailure> {
        let asked = self.names.lock().asked();
        let _turn = self.asking.acquire().await.map_err(|_| closing())?;
        let question = {
            let mut names = self.names.lock();
            if let Some(known) = names.answered_since(asked) {
                return Ok(known);
            }
            names.begin()
        };
        let (epoch, meta) = self.meta().await?;
        let [trims, forgotten] = self.take_in(&meta);
        let (mut entries, mut cursor) = (Vec::new(), 0u64);
        loop {
            let piece: Vec<(String, String)>;
            (cursor, piece) = self.stored.scan(&self.stored.keys.topics, cursor, PIECE).await?;
            entries.extend(piece);
            if cursor == 0 {
                break;
            }
        }
        if self.meta().await?.0 != epoch {
            let reason = "the log went on in a new epoch meanwhile".to_owned();
            return Err(RedisFailure::Refused(reason));
        }
        let topics = off_the_workers(move || RedisTopics::new(trims, forgotten, entries)).await?;
        let topics = Arc::new(topics);
        self.names.lock().end(question, &topics);
        Ok(topics)
    }

    async fn meta(&self) -> Result<(Option<String>, Vec<Option<u64>>), RedisFailure> {
        let StoredLog { link, keys } = &*self.stored;
        let mut ask = pipe();
        ask.atomic();
        ask.cmd("HGET").arg(&keys.meta).arg("epoch");
        ask.cmd("HMGET").arg(&keys.meta).arg(&["trims", "trimmed", "forgotten_through"]);
        link.run_all(&ask).await
    }

    /// How often retention took something, and what forgotten topics lost that are not remembered.
    fn take_in(&self, meta: &[Option<u64>]) -> [u64; 2] {
        let number = |index: usize| meta.get(index).copied().flatten().unwrap_or(0);
        self.trimmed.fetch_max(number(1), Ordering::AcqRel);
        self.trims.fetch_max(number(0), Ordering::AcqRel);
        [number(0), number(2)]
    }

    /// The last offset that retention took from the filter; 0 if it took nothing.
    pub(in crate::broker) async fn trimmed_through(
        &self,
        filter: &TopicFilter,
    ) -> Result<Offset, RedisFailure> {
        self.lost(&self.of(filter).await?, filter, 0).await
    }

    /// The last offset above `after` that retention took from the filter; not above it if it took nothing.
    pub(super) async fn lost(
        &self,
        topics: &Arc<RedisTopics>,
        filter: &TopicFilter,
        after: Offset,
    ) -> Result<Offset, RedisFailure> {
        if let Some(lost) = topics.lost(filter, after) {
            return Ok(lost);
        }
        let (topics, filter) = (topics.clone(), filter.clone());
        off_the_workers(move || topics.trimmed_through(&filter)).await
    }
}

/// There may be a million topics to look at, which is no work for the runtime's threads.
pub(super) async fn off_the_workers<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RedisFailure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| closing())
}

fn closing() -> RedisFailure {
    RedisFailure::Unreachable("the hub is shutting down".to_owned())
}
