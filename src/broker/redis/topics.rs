//! What Redis knows of each topic: a copy of its hash, as it was at one moment.

use std::collections::BTreeMap;

use crate::{
    broker::{
        TopicInfo,
        candidates::{behind, matching},
        journal::RetentionRules,
        losses::TopicLosses,
    },
    position::Offset,
    time::Millis,
    topic::{Topic, TopicFilter},
};

/// All topics.
#[derive(Debug, Default)]
pub(super) struct RedisTopics {
    /// How often retention had taken something by then.
    pub(super) trims: u64,
    /// Of forgotten topics that are not remembered even so, the last loss.
    pub(super) forgotten_through: Offset,
    by_name: BTreeMap<Topic, Numbers>,
    /// Those that make room for others, and what they had lost.
    forgotten: BTreeMap<Topic, Offset>,
    /// What all of them lost.
    losses: TopicLosses,
}

/// Topics forgotten in one script, but for the hub's own, and forgotten ones that are not remembered any more: Redis
/// serves nobody else meanwhile.
const FORGET_STEP: usize = 10_000;

/// What the numbers of a forgotten topic end with; see `trim.lua`.
const FORGOTTEN: &str = " f";

#[derive(Debug, Clone, Copy)]
struct Numbers {
    events: u64,
    bytes: u64,
    last_offset: Offset,
    last_received: Millis,
    trimmed_through: Offset,
}

impl RedisTopics {
    /// From the names and numbers of the hash; what is not a topic is left out.
    pub(super) fn new(
        trims: u64,
        forgotten_through: Offset,
        entries: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut topics = Self { trims, forgotten_through, ..Self::default() };
        for (name, text) in entries {
            let (Ok(topic), Some(numbers)) = (Topic::parse(&name), Numbers::parse(&text)) else {
                continue;
            };
            topics.losses.raise(&topic, numbers.trimmed_through);
            // A scan may tell of one twice, which was forgotten or came back meanwhile.
            if text.ends_with(FORGOTTEN) {
                topics.by_name.remove(&topic);
                topics.forgotten.insert(topic, numbers.trimmed_through);
            } else {
                topics.forgotten.remove(&topic);
                topics.by_name.insert(topic, numbers);
            }
        }
        topics
    }

    /// Which forgotten topics are too many to be remembered, with `more` that are about to be forgotten:
    /// those that lost something longest ago, a tenth more than needed, at most [`FORGET_STEP`].
    pub(super) fn too_many_forgotten(&self, more: usize, most: usize) -> Vec<&Topic> {
        let count = self.forgotten.len() + more;
        if count <= most {
            return Vec::new();
        }
        let mut all: Vec<_> = self.forgotten.iter().collect();
        all.sort_unstable_by_key(|(_, lost)| **lost);
        all.truncate((count - most + most / 10).min(FORGET_STEP));
        all.into_iter().map(|(topic, _)| topic).collect()
    }

    /// In order.
    pub(super) fn infos(&self, rules: &RetentionRules) -> Vec<TopicInfo> {
        let info = |(topic, numbers): (&Topic, &Numbers)| TopicInfo {
            topic: topic.clone(),
            events: numbers.events,
            bytes: numbers.bytes,
            last_offset: numbers.last_offset,
            last_received: numbers.last_received,
            trimmed_through: numbers.trimmed_through,
            max_age: rules.max_age(rules.of(topic.as_str())),
        };
        self.by_name.iter().map(info).collect()
    }

    /// Whether it is there and not forgotten.
    pub(super) fn holds(&self, topic: &str) -> bool {
        self.by_name.contains_key(topic)
    }

    /// Those that match, in order.
    pub(super) fn matching<'a>(
        &'a self,
        filter: &'a TopicFilter,
    ) -> impl Iterator<Item = &'a Topic> {
        matching(&self.by_name, filter).map(|(topic, _)| topic)
    }

    /// Those that begin with `prefix` and lie behind `after`, in order.
    pub(super) fn behind<'a>(
        &'a self,
        prefix: &'a str,
        after: &str,
    ) -> impl Iterator<Item = &'a Topic> + use<'a> {
        behind(&self.by_name, prefix, after).map(|(topic, _)| topic)
    }

    /// Topics without events, if with `fresh` ones there are `limit` or more of their kind: of the hub's own, or
    /// of all others. Of these at most [`FORGET_STEP`]; not all of the hub's own can be forgotten, and so none is left out.
    pub(super) fn empty(&self, fresh: &[Topic], limit: usize) -> impl Iterator<Item = &Topic> {
        let names = || self.by_name.keys().chain(fresh);
        let own = names().filter(|topic| topic.is_reserved()).count();
        let is_full = [names().count() - own, own].map(|count| count >= limit);
        let empty = move |is_own: bool| {
            let empty = self.by_name.iter().filter(|(_, numbers)| numbers.events == 0);
            let kind = empty.map(|(topic, _)| topic).filter(move |it| it.is_reserved() == is_own);
            kind.filter(move |_| is_full[usize::from(is_own)])
        };
        empty(true).chain(empty(false).take(FORGET_STEP))
    }

    /// The newest event that matches, kept or not; 0 if there was none.
    pub(super) fn last_offset(&self, filter: &TopicFilter) -> Offset {
        let last = matching(&self.by_name, filter).map(|(_, numbers)| numbers.last_offset);
        last.max().unwrap_or(0)
    }

    /// How many events are kept that match.
    pub(super) fn events(&self, filter: &TopicFilter) -> u64 {
        matching(&self.by_name, filter).map(|(_, numbers)| numbers.events).sum()
    }

    /// The last offset that retention took from one topic.
    pub(super) fn trimmed(&self, topic: &str) -> Offset {
        let known = self.by_name.get(topic).map(|numbers| numbers.trimmed_through);
        let known = known.or_else(|| self.forgotten.get(topic).copied());
        known.unwrap_or(self.forgotten_through)
    }

    /// The last offset above `after` that retention took from the filter, 0 if there is none; None if that takes many
    /// looks.
    pub(super) fn lost(&self, filter: &TopicFilter, after: Offset) -> Option<Offset> {
        Some(self.losses.newest(filter, after)?.max(self.forgotten_through))
    }

    /// The last offset that retention took from the filter, however long it takes to find it.
    pub(super) fn trimmed_through(&self, filter: &TopicFilter) -> Offset {
        self.losses.through(filter).max(self.forgotten_through)
    }
}

impl Numbers {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ').map(str::parse);
        let mut number = || parts.next()?.ok();
        Some(Self {
            events: number()?,
            bytes: number()?,
            last_offset: number()?,
            last_received: number()?,
            trimmed_through: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_topics_were_forgotten_in_one_script() {
        let many = |numbers: &'static str| {
            (0..25_000).map(move |n| (format!("t.{n}"), numbers.to_owned()))
        };
        let own = (0..3).map(|n| (format!("hub.x{n}"), "0 0 1 1 1".to_owned()));
        let empty = RedisTopics::new(0, 0, many("0 0 1 1 1").chain(own));
        let forgotten: Vec<_> = empty.empty(&[], 3).collect();
        let own = forgotten.iter().filter(|topic| topic.is_reserved()).count();
        assert_eq!((own, forgotten.len()), (3, 10_003));
        let remembered = RedisTopics::new(0, 0, many("0 0 1 1 1 f"));
        assert_eq!(remembered.too_many_forgotten(10_000, 25_000).len(), 10_000);
        assert_eq!(remembered.too_many_forgotten(0, 24_999).len(), 2500);
    }
}
