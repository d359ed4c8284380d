//! The names of all topics, kept on this node: what Redis told last, and what the tail has met since.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use ::redis::{cmd, pipe};

use super::{RedisShared, topics::RedisTopics};
use crate::{
    broker::candidates::{behind, matching},
    position::Offset,
    redis::RedisFailure,
    topic::{Topic, TopicFilter},
};

/// Names met since Redis was asked, beyond which it is asked again.
const MOST_FRESH: usize = 10_000;
/// Entries of the hash that Redis tells at a time: it serves nobody else meanwhile.
const PIECE: usize = 1000;
/// Topics whose numbers are asked for by name.
const FEW: usize = 1000;

/// What this node knows of the topics' names. Everything that has an event up to this node's head is there.
#[derive(Default)]
pub(super) struct TopicNames {
    /// As Redis told; none at first, and in a new epoch.
    known: Option<Arc<RedisTopics>>,
    /// Which question it answered, and how many were asked.
    answered: u64,
    asked: u64,
    is_asking: bool,
    /// Met since the question was put, and before that.
    fresh: BTreeMap<Topic, ()>,
    older: BTreeMap<Topic, ()>,
}

/// The names as they were at one moment.
#[derive(Clone)]
pub struct KnownNames {
    known: Arc<RedisTopics>,
    fresh: BTreeMap<Topic, ()>,
}

impl TopicNames {
    /// The tail has met events of these.
    pub(super) fn meet<'a>(&mut self, topics: impl Iterator<Item = &'a str>) {
        let mut last = "";
        for topic in topics {
            // Nobody can tell yet what an answer under way will hold.
            let is_known =
                !self.is_asking && self.known.as_ref().is_some_and(|known| known.holds(topic));
            if topic == last || is_known || self.fresh.contains_key(topic) {
                continue;
            }
            last = topic;
            if let Ok(topic) = Topic::parse(topic) {
                self.fresh.insert(topic, ());
            }
        }
    }

    /// What Redis told may be of another history.
    pub(super) fn doubt(&mut self) {
        self.known = None;
    }

    /// What Redis told, for the names: retention may have forgotten some of them since.
    fn told(&self) -> Option<Arc<RedisTopics>> {
        let is_small = self.fresh.len() + self.older.len() <= MOST_FRESH;
        self.known.clone().filter(|_| is_small)
    }

    /// The same, if retention has taken nothing since: its numbers hold as well.
    pub(super) fn current(&self, trims: u64) -> Option<Arc<RedisTopics>> {
        self.told().filter(|known| known.trims == trims)
    }

    fn begin(&mut self) -> u64 {
        self.older.append(&mut self.fresh);
        self.is_asking = true;
        self.asked += 1;
        self.asked
    }

    fn end(&mut self, question: u64, topics: &Arc<RedisTopics>) {
        self.is_asking = false;
        self.answered = question;
        self.older.clear();
        self.fresh.retain(|topic, ()| !topics.holds(topic.as_str()));
        self.known = Some(topics.clone());
    }

    fn names(&self, known: Arc<RedisTopics>) -> KnownNames {
        let mut fresh = self.fresh.clone();
        fresh.extend(self.older.iter().map(|(topic, ())| (topic.clone(), ())));
        fresh.retain(|topic, ()| !known.holds(topic.as_str()));
        KnownNames { known, fresh }
    }
}

impl KnownNames {
    /// Those that begin with `prefix` and lie behind `after`, in order, at most `most`.
    pub fn page(&self, prefix: &str, after: &str, most: usize) -> Vec<Topic> {
        let fresh = behind(&self.fresh, prefix, after).map(|(topic, ())| topic).take(most);
        let mut found: Vec<_> = self.known.behind(prefix, after).take(most).chain(fresh).collect();
        found.sort_unstable();
        found.into_iter().take(most).cloned().collect()
    }

    /// Those that match; None if they are more than `most`.
    fn matching(&self, filter: &TopicFilter, most: usize) -> Option<Vec<Topic>> {
        let fresh = matching(&self.fresh, filter).map(|(topic, ())| topic);
        let all = self.known.matching(filter).chain(fresh);
        let found: Vec<_> = all.take(most.saturating_add(1)).cloned().collect();
        (found.len() <= most).then_some(found)
    }

    /// Those met since Redis was asked.
    pub(super) fn fresh(&self) -> Vec<Topic> {
        self.fresh.keys().cloned().collect()
    }
}

impl RedisShared {
    /// The names of all topics, and maybe of some that were forgotten a moment ago: whoever asks for their numbers finds
    /// out. So a node need not fetch all of them again each time retention takes something.
    pub(super) async fn names(&self) -> Result<KnownNames, RedisFailure> {
        let told = self.names.lock().told();
        let known = match told {
            Some(known) => known,
            None => self.load_topics().await?,
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

    /// The topics that a filter matches as Redis knows them now; None of many.
    pub(super) async fn few_topics(
        &self,
        filter: &TopicFilter,
    ) -> Result<Option<Arc<RedisTopics>>, RedisFailure> {
        match self.names_of(filter, FEW).await? {
            Some(names) => self.topics_named(&names).await.map(Some),
            None => Ok(None),
        }
    }

    /// Some topics as Redis knows them now.
    pub(super) async fn topics_named(
        &self,
        names: &[Topic],
    ) -> Result<Arc<RedisTopics>, RedisFailure> {
        let mut ask = pipe();
        ask.atomic();
        ask.cmd("HMGET").arg(&self.scripts.meta).arg(&["trims", "trimmed", "forgotten_through"]);
        // Never none: that is no question to Redis.
        ask.cmd("HMGET").arg(&self.scripts.topics).arg("");
        names.iter().for_each(|name| {
            ask.arg(name.as_str());
        });
        let (meta, numbers): (Vec<Option<u64>>, Vec<Option<String>>) =
            self.link.run_all(&ask).await?;
        let [trims, forgotten] = self.take_in(&meta);
        let entries = names.iter().zip(numbers.into_iter().skip(1));
        let known = entries.filter_map(|(name, numbers)| Some((name.to_string(), numbers?)));
        Ok(Arc::new(RedisTopics::new(trims, forgotten, known)))
    }

    /// What retention took from a filter's topics, as it was when it last took something, or later. Of a filter without
    /// wildcards it may tell of no others.
    pub(super) async fn topics_for(
        &self,
        filter: &TopicFilter,
    ) -> Result<Arc<RedisTopics>, RedisFailure> {
        let current = self.names.lock().current(self.trims.load(Ordering::Acquire));
        match current {
            Some(known) => Ok(known),
            None => self.topics_for_now(filter).await,
        }
    }

    /// The same, as it is now.
    pub(super) async fn topics_for_now(
        &self,
        filter: &TopicFilter,
    ) -> Result<Arc<RedisTopics>, RedisFailure> {
        if !filter.is_literal() {
            return self.load_topics().await;
        }
        let names = self.names_of(filter, usize::MAX).await?.unwrap_or_default();
        self.topics_named(&names).await
    }

    /// All topics as they were when retention last took something, or later.
    pub(super) async fn known_topics(&self) -> Result<Arc<RedisTopics>, RedisFailure> {
        let trims = || self.trims.load(Ordering::Acquire);
        if let Some(known) = self.names.lock().current(trims()) {
            return Ok(known);
        }
        self.load_topics().await
    }

    /// All topics as they are now. Redis is asked by one at a time, and who waited meanwhile has the same answer.
    pub(super) async fn load_topics(&self) -> Result<Arc<RedisTopics>, RedisFailure> {
        let asked = self.names.lock().asked;
        let _turn = self.asking.acquire().await.map_err(|_| closing())?;
        let question = {
            let mut names = self.names.lock();
            // It was put after this one came.
            if names.answered > asked
                && let Some(known) = &names.known
            {
                return Ok(known.clone());
            }
            names.begin()
        };
        let (epoch, meta) = self.meta().await?;
        let [trims, forgotten] = self.take_in(&meta);
        let (mut entries, mut cursor) = (Vec::new(), 0u64);
        loop {
            let mut scan = cmd("HSCAN");
            scan.arg(&self.scripts.topics).arg(cursor).arg("COUNT").arg(PIECE);
            let (next, mut piece): (u64, Vec<(String, String)>) = self.link.run(&scan).await?;
            entries.append(&mut piece);
            cursor = next;
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
        let mut ask = pipe();
        ask.atomic();
        ask.cmd("HGET").arg(&self.scripts.meta).arg("epoch");
        ask.cmd("HMGET").arg(&self.scripts.meta).arg(&["trims", "trimmed", "forgotten_through"]);
        self.link.run_all(&ask).await
    }

    /// How often retention took something, and what forgotten topics lost that are not remembered.
    fn take_in(&self, meta: &[Option<u64>]) -> [u64; 2] {
        let number = |index: usize| meta.get(index).copied().flatten().unwrap_or(0);
        self.trimmed.fetch_max(number(1), Ordering::AcqRel);
        self.trims.fetch_max(number(0), Ordering::AcqRel);
        [number(0), number(2)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicPattern;

    fn told(names: &[&str]) -> Arc<RedisTopics> {
        let entry = |name: &&str| ((*name).to_owned(), "1 1 1 1 0".to_owned());
        Arc::new(RedisTopics::new(0, 0, names.iter().map(entry)))
    }

    #[test]
    fn a_topic_met_while_redis_is_asked_is_not_missed() {
        let mut names = TopicNames::default();
        let all = |names: &TopicNames| -> Vec<String> {
            let known = names.known.clone().unwrap_or_default();
            let found = names.names(known).page("", "", 100);
            found.iter().map(Topic::to_string).collect()
        };
        names.meet(["a", "a", "b"].into_iter());
        let question = names.begin();
        names.end(question, &told(&["a", "b", "c"]));
        assert_eq!(all(&names), ["a", "b", "c"]);
        assert!(names.fresh.is_empty());
        // "b" is forgotten when Redis tells, and comes back before its answer is taken in.
        let question = names.begin();
        names.meet(["b", "d"].into_iter());
        assert_eq!(all(&names), ["a", "b", "c", "d"]);
        names.end(question, &told(&["a", "c"]));
        assert_eq!(all(&names), ["a", "b", "c", "d"]);
        // An answer that never came takes nothing away; the next one does.
        names.begin();
        names.meet(["e"].into_iter());
        let question = names.begin();
        assert_eq!(all(&names), ["a", "b", "c", "d", "e"]);
        names.end(question, &told(&["a", "e"]));
        assert_eq!(all(&names), ["a", "e"]);
        let filter = TopicFilter::new([TopicPattern::parse("*").unwrap()]);
        let known = names.names(told(&["a", "e"]));
        assert_eq!(
            (known.matching(&filter, 1), known.matching(&filter, 2).map(|n| n.len())),
            (None, Some(2))
        );
    }

    #[test]
    fn what_redis_told_holds_until_retention_or_many_new_names() {
        let mut names = TopicNames::default();
        assert!(names.current(0).is_none());
        let question = names.begin();
        names.end(question, &told(&["a"]));
        assert!(names.current(0).is_some());
        assert!(names.current(1).is_none());
        let many: Vec<_> = (0..=MOST_FRESH).map(|n| format!("t.{n}")).collect();
        names.meet(many.iter().map(String::as_str));
        assert!(names.current(0).is_none());
    }
}
