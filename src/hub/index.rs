//! From a topic to the slots whose filters match it.
//!
//! A tree of tokens: a lookup visits only the branches that begin like the topic. Their number grows with the matches
//! and not with the subscriptions. Patterns that begin like the topic but do not match it are limited by the places for
//! their [`MAX_STARS`](crate::topic::MAX_STARS) stars.

use std::collections::HashMap;

use crate::topic::{PatternToken, TopicFilter};

/// The slots registered under each pattern.
#[derive(Debug, Default)]
pub(super) struct Index {
    root: TrieNode,
}

#[derive(Debug, Default)]
struct TrieNode {
    literal: HashMap<Box<str>, TrieNode>,
    one: Option<Box<TrieNode>>,
    /// Slots of patterns that end here.
    here: Vec<usize>,
    /// Slots of patterns that continue with `**`.
    rest: Vec<usize>,
}

impl Index {
    /// Registers `slot` under every pattern of `filter`.
    pub(super) fn insert(&mut self, filter: &TopicFilter, slot: usize) {
        for pattern in filter.patterns() {
            let mut node = &mut self.root;
            let mut rest = false;
            for token in pattern.tokens() {
                match token {
                    PatternToken::Literal(text) => {
                        node = node.literal.entry(text.into()).or_default();
                    }
                    PatternToken::One => node = node.one.get_or_insert_default(),
                    PatternToken::Rest => rest = true,
                }
            }
            if rest { node.rest.push(slot) } else { node.here.push(slot) }
        }
    }

    /// Takes `slot` out again; `filter` is the one it was inserted with.
    pub(super) fn remove(&mut self, filter: &TopicFilter, slot: usize) {
        for pattern in filter.patterns() {
            let tokens: Vec<_> = pattern.tokens().collect();
            self.root.remove(&tokens, slot);
        }
    }

    /// Appends the slots that match `topic` to `found`, each once; says how many branches it looked into.
    pub(super) fn lookup(&self, topic: &str, found: &mut Vec<usize>) -> usize {
        let start = found.len();
        let tokens: Vec<&str> = topic.split('.').collect();
        let is_hub = tokens.first() == Some(&"hub");
        let visited = self.root.lookup(&tokens, !is_hub, found);
        found[start..].sort_unstable();
        let mut kept = start;
        for at in start..found.len() {
            if at == start || found[at] != found[kept - 1] {
                found[kept] = found[at];
                kept += 1;
            }
        }
        found.truncate(kept);
        visited
    }
}

impl TrieNode {
    /// `wild` is false for the first token of the hub's own topics, which no wildcard reaches.
    fn lookup(&self, tokens: &[&str], wild: bool, found: &mut Vec<usize>) -> usize {
        let Some((first, others)) = tokens.split_first() else {
            found.extend_from_slice(&self.here);
            return 1;
        };
        let mut visited = 1;
        if wild {
            found.extend_from_slice(&self.rest);
            if let Some(one) = &self.one {
                visited += one.lookup(others, true, found);
            }
        }
        if let Some(next) = self.literal.get(*first) {
            visited += next.lookup(others, true, found);
        }
        visited
    }

    fn remove(&mut self, tokens: &[PatternToken<'_>], slot: usize) {
        let drop_one = |slots: &mut Vec<usize>| {
            if let Some(at) = slots.iter().position(|held| *held == slot) {
                slots.swap_remove(at);
            }
        };
        match tokens.split_first() {
            None => drop_one(&mut self.here),
            Some((PatternToken::Rest, _)) => drop_one(&mut self.rest),
            Some((PatternToken::One, others)) => {
                if let Some(one) = &mut self.one {
                    one.remove(others, slot);
                    if one.is_empty() {
                        self.one = None;
                    }
                }
            }
            Some((PatternToken::Literal(text), others)) => {
                if let Some(next) = self.literal.get_mut(*text) {
                    next.remove(others, slot);
                    if next.is_empty() {
                        self.literal.remove(*text);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.literal.is_empty()
            && self.one.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicPattern;
    use proptest::prelude::*;

    fn filter(patterns: &[String]) -> TopicFilter {
        TopicFilter::new(patterns.iter().map(|text| TopicPattern::parse(text).unwrap()))
    }

    #[test]
    fn a_topic_was_looked_for_in_every_branch_of_patterns_that_do_not_match_it() {
        // As hostile as is allowed: one literal and a star at every level, and an end that does not match.
        let mut index = Index::default();
        for places in 0_u32..1 << 15 {
            let token = |at: u32| if places >> at & 1 == 1 { "*." } else { "a." };
            let pattern: String = (0..15).map(token).chain(["z"]).collect();
            let filter = filter(&[pattern]);
            if filter.too_wild().is_none() {
                index.insert(&filter, 0);
            }
        }
        let mut found = Vec::new();
        let visited = index.lookup(&["a"; 16].join("."), &mut found);
        assert!(found.is_empty());
        assert!(visited < 3000, "{visited}");
    }

    proptest! {
        #[test]
        fn finds_exactly_the_filters_that_match_and_forgets_the_removed(
            filters in proptest::collection::vec(
                proptest::collection::vec("((a|b|hub|\\*)\\.){0,2}(a|b|\\*|\\*\\*)", 1..4), 1..8),
            removed in proptest::collection::vec(any::<bool>(), 8),
            topic in "((a|b|hub)\\.){0,2}(a|b)",
        ) {
            let filters: Vec<_> = filters.iter().map(|patterns| filter(patterns)).collect();
            let mut index = Index::default();
            for (slot, filter) in filters.iter().enumerate() {
                index.insert(filter, slot);
            }
            let gone = |slot: usize| removed[slot];
            for (slot, filter) in filters.iter().enumerate().filter(|(slot, _)| gone(*slot)) {
                index.remove(filter, slot);
            }
            let mut found = vec![99];
            index.lookup(&topic, &mut found);
            let expected: Vec<usize> = std::iter::once(99)
                .chain((0..filters.len()).filter(|slot| !gone(*slot) && filters[*slot].matches(&topic)))
                .collect();
            prop_assert_eq!(found, expected);
            for (slot, filter) in filters.iter().enumerate().filter(|(slot, _)| !gone(*slot)) {
                index.remove(filter, slot);
            }
            prop_assert!(index.root.is_empty());
        }
    }
}
