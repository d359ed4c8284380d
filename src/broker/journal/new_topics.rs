//! The topics that a group of batches brings, numbered before the file holds them.

use std::collections::HashMap;

use super::{config::RetentionRules, topics::TopicId};
use crate::topic::Topic;

/// New topics by name and by number; each question costs one look, however many there are.
#[derive(Debug)]
pub(super) struct NewTopics {
    first: TopicId,
    by_name: HashMap<Topic, TopicId>,
    /// In the order of their numbers, each with its retention rule.
    in_order: Vec<(Topic, usize)>,
    /// How many of them count towards the limit.
    counted: usize,
}

/// What was there before a batch.
pub(super) struct Mark {
    length: usize,
    counted: usize,
}

impl NewTopics {
    /// None yet; the first will have this number.
    pub(super) fn new(first: TopicId) -> Self {
        Self { first, by_name: HashMap::new(), in_order: Vec::new(), counted: 0 }
    }

    pub(super) fn id(&self, topic: &str) -> Option<TopicId> {
        self.by_name.get(topic).copied()
    }

    /// Which retention rule one of them has.
    pub(super) fn rule(&self, id: TopicId) -> Option<usize> {
        let at = usize::try_from(id.checked_sub(self.first)?).ok()?;
        self.in_order.get(at).map(|(_, rule)| *rule)
    }

    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// The hub's own topics are not counted: what they are about has limits of its own.
    pub(super) fn add(&mut self, topic: &Topic, rules: &RetentionRules) {
        self.counted += usize::from(!topic.is_reserved());
        let id = self.first + self.in_order.len() as TopicId;
        self.by_name.insert(topic.clone(), id);
        self.in_order.push((topic.clone(), rules.of(topic.as_str())));
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { length: self.in_order.len(), counted: self.counted }
    }

    /// Drops those that came after the mark.
    pub(super) fn back_to(&mut self, mark: &Mark) {
        for (topic, _) in self.in_order.drain(mark.length..) {
            self.by_name.remove(&topic);
        }
        self.counted = mark.counted;
    }

    /// Each with its number, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        (self.first..).zip(self.in_order.iter().map(|(topic, _)| topic))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::config::RetentionLimits, *};

    #[test]
    fn new_topics_are_numbered_in_order_and_those_of_a_refused_batch_leave_nothing() {
        let rules =
            RetentionRules(vec![RetentionLimits { filter: None, max_age: 1, max_bytes: None }]);
        let mut new = NewTopics::new(7);
        let topic = |n: usize| Topic::parse(&format!("t.{n}")).unwrap();
        (0..100).for_each(|n| new.add(&topic(n), &rules));
        let mark = new.mark();
        (100..200).for_each(|n| new.add(&topic(n), &rules));
        new.back_to(&mark);
        assert_eq!((new.counted(), new.iter().count()), (100, 100));
        assert!((100..200).all(|n| new.id(topic(n).as_str()).is_none()));
        new.add(&topic(150), &rules);
        for ((id, name), wanted) in new.iter().zip(7..) {
            assert_eq!((id, new.id(name.as_str()), new.rule(id)), (wanted, Some(wanted), Some(0)));
        }
        assert_eq!((new.iter().count(), new.rule(6), new.rule(108)), (101, None, None));
    }
}
