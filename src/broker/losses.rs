//! What retention took from each topic, forgotten ones among them.

use std::collections::{BTreeMap, BTreeSet};

use super::candidates::candidates;
use crate::{
    position::Offset,
    topic::{Topic, TopicFilter},
};

/// The topics that lost something, by name and by their last loss.
#[derive(Debug, Default)]
pub(super) struct TopicLosses {
    by_topic: BTreeMap<Topic, Offset>,
    by_offset: BTreeSet<(Offset, Topic)>,
}

/// Topics that [`TopicLosses::newest`] looks at.
const NEWEST: usize = 2000;

impl TopicLosses {
    /// A topic has lost what it had up to `through`.
    pub(super) fn raise(&mut self, topic: &Topic, through: Offset) {
        let before = self.of(topic.as_str());
        if through > before {
            self.by_offset.remove(&(before, topic.clone()));
            self.by_offset.insert((through, topic.clone()));
            self.by_topic.insert(topic.clone(), through);
        }
    }

    /// Nobody remembers what a topic had lost.
    pub(super) fn forget(&mut self, topic: &Topic) {
        if let Some(lost) = self.by_topic.remove(topic) {
            self.by_offset.remove(&(lost, topic.clone()));
        }
    }

    /// The last offset that a topic lost; 0 if it lost nothing.
    pub(super) fn of(&self, topic: &str) -> Offset {
        self.by_topic.get(topic).copied().unwrap_or(0)
    }

    /// The last offset that any topic lost.
    pub(super) fn highest(&self) -> Offset {
        self.by_offset.last().map_or(0, |(lost, _)| *lost)
    }

    /// The last offset above `after` that the filter lost, 0 if there is none: by what was lost last, which decides for
    /// most filters after a few looks. None if it does not after many.
    pub(super) fn newest(&self, filter: &TopicFilter, after: Offset) -> Option<Offset> {
        if filter.is_literal() {
            let topics = filter.patterns().iter().map(|pattern| self.of(pattern.as_str()));
            return Some(topics.max().filter(|lost| *lost > after).unwrap_or(0));
        }
        for (looks, (lost, topic)) in self.by_offset.iter().rev().enumerate() {
            if *lost <= after {
                return Some(0);
            }
            if looks == NEWEST {
                return None;
            }
            if filter.matches(topic.as_str()) {
                return Some(*lost);
            }
        }
        Some(0)
    }

    /// The same by name, for the next `most` topics behind `behind`; and if there may be more, where to go on.
    pub(super) fn piece(
        &self,
        filter: &TopicFilter,
        behind: &str,
        most: usize,
    ) -> (Offset, Option<Topic>) {
        let (mut highest, mut looks) = (0, 0);
        for (topic, lost) in candidates(&self.by_topic, filter, behind) {
            looks += 1;
            if *lost > highest && filter.matches(topic.as_str()) {
                highest = *lost;
            }
            if looks == most {
                return (highest, Some(topic.clone()));
            }
        }
        (highest, None)
    }

    /// The last offset that the filter lost, however long it takes.
    pub(super) fn through(&self, filter: &TopicFilter) -> Offset {
        self.newest(filter, 0).unwrap_or_else(|| self.piece(filter, "", usize::MAX).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicPattern;

    #[test]
    fn what_a_filter_lost_is_found_without_a_look_at_every_topic() {
        let topic = |text: &str| Topic::parse(text).unwrap();
        let filter = |text: &str| TopicFilter::new([TopicPattern::parse(text).unwrap()]);
        let mut losses = TopicLosses::default();
        for n in 1..=10_000 {
            losses.raise(&topic(&format!("t.{n}")), n);
        }
        losses.raise(&topic("rare.a"), 5);
        losses.raise(&topic("rare.a"), 4);
        losses.raise(&topic("t.7"), 10_001);
        assert_eq!(losses.highest(), 10_001);
        assert_eq!(losses.newest(&filter("t.*"), 0), Some(10_001));
        assert_eq!(losses.newest(&filter("rare.a"), 0), Some(5));
        assert_eq!(losses.newest(&filter("rare.a"), 5), Some(0));
        assert_eq!(losses.newest(&filter("rare.*"), 9_000), Some(0));
        // Too much was lost since by others: the names decide, and of those only what begins so.
        assert_eq!(losses.newest(&filter("rare.*"), 0), None);
        assert_eq!(losses.piece(&filter("rare.*"), "", 2), (5, None));
        assert_eq!(losses.piece(&filter("**"), "", 2), (5, Some(topic("t.1"))));
        assert_eq!(losses.through(&filter("rare.*")), 5);

        losses.forget(&topic("t.7"));
        assert_eq!((losses.highest(), losses.of("t.7")), (10_000, 0));
    }
}
