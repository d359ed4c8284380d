//! Which topics a filter may match, found by what its patterns begin with.

use std::{collections::BTreeMap, ops::Bound};

use crate::topic::{Topic, TopicFilter};

/// The topics behind `after` that `filter` may match, in order: those it names, and those that begin as one of its
/// patterns does. Whoever looks at them asks the filter itself.
pub(super) fn candidates<'a, V>(
    topics: &'a BTreeMap<Topic, V>,
    filter: &'a TopicFilter,
    after: &'a str,
) -> impl Iterator<Item = (&'a Topic, &'a V)> {
    beginnings(filter).into_iter().flat_map(move |(begin, is_whole)| {
        behind(topics, begin, after)
            .take_while(move |(topic, _)| !is_whole || topic.as_str() == begin)
    })
}

/// The same, of those that do match.
pub(super) fn matching<'a, V>(
    topics: &'a BTreeMap<Topic, V>,
    filter: &'a TopicFilter,
) -> impl Iterator<Item = (&'a Topic, &'a V)> {
    candidates(topics, filter, "").filter(|(topic, _)| filter.matches(topic.as_str()))
}

/// The topics behind `after` that begin with `prefix`, in order.
pub(super) fn behind<'a, V>(
    topics: &'a BTreeMap<Topic, V>,
    prefix: &'a str,
    after: &str,
) -> impl Iterator<Item = (&'a Topic, &'a V)> + use<'a, V> {
    let start = match after < prefix {
        true => Bound::Included(prefix),
        false => Bound::Excluded(after),
    };
    let found = topics.range::<str, _>((start, Bound::Unbounded));
    found.take_while(move |(topic, _)| topic.as_str().starts_with(prefix))
}

/// What the patterns begin with, in order and apart from each other; and whether that is a whole topic.
fn beginnings(filter: &TopicFilter) -> Vec<(&str, bool)> {
    let patterns = filter.patterns().iter();
    let mut all: Vec<_> =
        patterns.map(|pattern| (pattern.beginning(), pattern.as_literal().is_some())).collect();
    all.sort_unstable();
    let mut apart: Vec<(&str, bool)> = Vec::new();
    for (begin, is_whole) in all {
        let is_within = |(last, is_whole): &(&str, bool)| !is_whole && begin.starts_with(*last);
        if !apart.last().is_some_and(is_within) {
            apart.push((begin, is_whole));
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicPattern;

    fn filter(patterns: &[&str]) -> TopicFilter {
        TopicFilter::new(patterns.iter().map(|text| TopicPattern::parse(text).unwrap()))
    }

    #[test]
    fn a_pattern_looked_at_every_topic_there_is() {
        let topics: BTreeMap<Topic, usize> = (0..10_000)
            .map(|n| (Topic::parse(&format!("t{}.{n}.x", n / 100)).unwrap(), n))
            .chain([(Topic::parse("t7").unwrap(), 10_000), (Topic::parse("t70").unwrap(), 10_001)])
            .collect();
        let counts = |patterns: &[&str]| {
            let filter = filter(patterns);
            (candidates(&topics, &filter, "").count(), matching(&topics, &filter).count())
        };
        assert_eq!(counts(&["t7.*.x"]), (100, 100));
        assert_eq!(counts(&["t7.*.x", "t7.**", "t7.700.x", "t7"]), (101, 101));
        assert_eq!(counts(&["t7.*", "t8.800.x", "t8.1.x"]), (101, 1));
        assert_eq!(counts(&["t7", "t70"]), (2, 2));
        assert_eq!(counts(&["**"]), (10_002, 10_002));
    }

    #[test]
    fn candidates_go_on_behind_where_they_stopped() {
        let names = ["a", "a.b", "a.c", "ab", "b.a", "b.b"];
        let topics: BTreeMap<Topic, ()> =
            names.iter().map(|name| (Topic::parse(name).unwrap(), ())).collect();
        let filter = filter(&["b.*", "a.*", "a"]);
        let behind = |after: &str| -> Vec<String> {
            candidates(&topics, &filter, after).map(|(topic, ())| topic.to_string()).collect()
        };
        assert_eq!(behind(""), ["a", "a.b", "a.c", "b.a", "b.b"]);
        assert_eq!(behind("a"), ["a.b", "a.c", "b.a", "b.b"]);
        assert_eq!(behind("a.c"), ["b.a", "b.b"]);
        assert!(behind("b.b").is_empty());
    }
}
