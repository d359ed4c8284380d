//! The names of all topics, kept on this node: what Redis told last, and what the tail has met since.

use std::{collections::BTreeMap, sync::Arc};

use super::topics::RedisTopics;
use crate::{
    broker::candidates::{behind, matching},
    topic::{Topic, TopicFilter},
};

/// Names met since Redis was asked, beyond which it is asked again.
const MOST_FRESH: usize = 10_000;

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
    pub(super) fn told(&self) -> Option<Arc<RedisTopics>> {
        let is_small = self.fresh.len() + self.older.len() <= MOST_FRESH;
        self.known.clone().filter(|_| is_small)
    }

    /// The same, if retention has taken nothing since: its numbers hold as well.
    pub(super) fn current(&self, trims: u64) -> Option<Arc<RedisTopics>> {
        self.told().filter(|known| known.trims == trims)
    }

    /// How often Redis was asked.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    /// What Redis told, if it was asked behind the first `asked` times.
    pub(super) fn answered_since(&self, asked: u64) -> Option<Arc<RedisTopics>> {
        self.known.clone().filter(|_| self.answered > asked)
    }

    pub(super) fn begin(&mut self) -> u64 {
        self.older.append(&mut self.fresh);
        self.is_asking = true;
        self.asked += 1;
        self.asked
    }

    pub(super) fn end(&mut self, question: u64, topics: &Arc<RedisTopics>) {
        self.is_asking = false;
        self.answered = question;
        self.older.clear();
        self.fresh.retain(|topic, ()| !topics.holds(topic.as_str()));
        self.known = Some(topics.clone());
    }

    pub(super) fn names(&self, known: Arc<RedisTopics>) -> KnownNames {
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
    pub(super) fn matching(&self, filter: &TopicFilter, most: usize) -> Option<Vec<Topic>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicPattern;

    pub(super) fn told(names: &[&str]) -> Arc<RedisTopics> {
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
