//! The topics that a group of batches brings, numbered before the file holds them.

use std::collections::HashMap;

use super::{config::Rules, topics::TopicId};
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
    #[cfg(test)]
    looks: std::cell::Cell<usize>,
}

/// What was there before a batch.
pub(super) struct Mark {
    length: usize,
    counted: usize,
}

impl NewTopics {
    /// None yet; the first will have this number.
    pub(super) fn new(first: TopicId) -> Self {
        Self {
            first,
            by_name: HashMap::new(),
            in_order: Vec::new(),
            counted: 0,
            #[cfg(test)]
            looks: std::cell::Cell::default(),
        }
    }

    pub(super) fn id(&self, topic: &str) -> Option<TopicId> {
        self.by_name.get(topic).copied()
    }

    /// Which retention rule one of them has.
    pub(super) fn rule(&self, id: TopicId) -> Option<usize> {
        self.look();
        let at = usize::try_from(id.checked_sub(self.first)?).ok()?;
        self.in_order.get(at).map(|(_, rule)| *rule)
    }

    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// The hub's own topics are not counted: what they are about has limits of its own.
    pub(super) fn add(&mut self, topic: &Topic, rules: &Rules) {
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
            #[cfg(test)]
            self.looks.set(self.looks.get() + 1);
            self.by_name.remove(&topic);
        }
        self.counted = mark.counted;
    }

    /// Each with its number, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        (self.first..).zip(self.in_order.iter().map(|(topic, _)| topic))
    }

    #[cfg(test)]
    fn look(&self) {
        self.looks.set(self.looks.get() + 1);
    }

    #[cfg(not(test))]
    fn look(&self) {}
}

#[cfg(test)]
mod tests {
    use super::{super::config::Rule, *};

    #[test]
    fn a_batch_of_new_topics_is_looked_at_once_for_each() {
        let rules = Rules(vec![Rule { filter: None, max_age: 1, max_bytes: None }]);
        let mut new = NewTopics::new(7);
        let topic = |n: usize| Topic::parse(&format!("t.{n}")).unwrap();
        (0..10_000).for_each(|n| new.add(&topic(n), &rules));
        for (id, name) in new.iter() {
            assert_eq!(new.id(name.as_str()), Some(id));
            assert!(new.rule(id).is_some());
        }
        assert_eq!((new.rule(6), new.rule(10_007)), (None, None));
        assert!(new.looks.get() <= 10_002, "{} looks", new.looks.get());

        // A refused batch costs its own topics, not those before it.
        let before = new.looks.get();
        for _ in 0..1000 {
            let mark = new.mark();
            new.add(&topic(20_000), &rules);
            new.back_to(&mark);
        }
        assert!(new.looks.get() - before <= 1000, "{} looks", new.looks.get());
        assert_eq!((new.counted(), new.iter().count()), (10_000, 10_000));
    }
}
