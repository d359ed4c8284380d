//! How many views one principal listens to: views cost the hub memory and work, and one must not make many.

use std::{collections::HashMap, sync::Arc};

use crate::topic::TopicFilter;

/// Whose subscription it is, and how many views they may listen to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The principal's identity.
    pub identity: Arc<str>,
    /// The most different views they may listen to at a time.
    pub most: usize,
}

/// Tokens of its patterns for which a view counts as one: each may be a branch of the index, of some hundred bytes.
const TOKENS: usize = 32;

/// The views each principal listens to.
#[derive(Debug, Default)]
pub(super) struct Quotas(HashMap<Arc<str>, Holding>);

#[derive(Debug, Default)]
struct Holding {
    /// Most have one.
    views: Vec<HeldView>,
    /// What all count as.
    sum: usize,
}

/// One view.
#[derive(Debug)]
struct HeldView {
    slot: usize,
    /// How many of their subscriptions share it.
    subscriptions: usize,
    /// What it counts as.
    weight: usize,
}

/// What a view of `filter` counts as.
fn weight(filter: &TopicFilter) -> usize {
    let tokens: usize = filter.patterns().iter().map(|pattern| pattern.tokens().count()).sum();
    tokens.div_ceil(TOKENS).max(1)
}

impl Holding {
    fn place(&self, slot: usize) -> Option<usize> {
        self.views.iter().position(|view| view.slot == slot)
    }
}

impl Quotas {
    /// Whether `owner` may listen to a view of `filter`, or to this one if they do already.
    pub(super) fn has_room(
        &self,
        owner: &Owner,
        filter: &TopicFilter,
        slot: Option<usize>,
    ) -> bool {
        let held = self.0.get(&owner.identity);
        let known = held.zip(slot).is_some_and(|(held, slot)| held.place(slot).is_some());
        known || held.map_or(0, |held| held.sum) + weight(filter) <= owner.most
    }

    pub(super) fn enter(&mut self, owner: &Owner, filter: &TopicFilter, slot: usize) {
        let held = self.0.entry(owner.identity.clone()).or_default();
        match held.place(slot) {
            Some(place) => held.views[place].subscriptions += 1,
            None => {
                let weight = weight(filter);
                held.sum += weight;
                held.views.reserve_exact(1);
                held.views.push(HeldView { slot, subscriptions: 1, weight });
            }
        }
    }

    pub(super) fn leave(&mut self, identity: &str, slot: usize) {
        let Some(held) = self.0.get_mut(identity) else { return };
        if let Some(place) = held.place(slot) {
            let view = &mut held.views[place];
            view.subscriptions -= 1;
            if view.subscriptions == 0 {
                held.sum -= view.weight;
                held.views.swap_remove(place);
                held.views.shrink_to(2 * held.views.len());
            }
        }
        if held.views.is_empty() {
            self.0.remove(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicPattern;

    fn filter(patterns: impl IntoIterator<Item = String>) -> TopicFilter {
        TopicFilter::new(patterns.into_iter().map(|text| TopicPattern::parse(&text).unwrap()))
    }

    #[test]
    fn subscriptions_of_many_long_patterns_counted_as_little_as_any() {
        let ada = Owner { identity: "ada".into(), most: 20 };
        let mut quotas = Quotas::default();
        let long = filter((0..32).map(|n| format!("a{n}.{}", ["x"; 15].join("."))));
        let short = filter(["a.b".to_owned()]);
        quotas.enter(&ada, &long, 7);
        assert!(!quotas.has_room(&ada, &long, None));
        assert!(quotas.has_room(&ada, &long, Some(7)), "they have it already");
        for slot in 8..12 {
            assert!(quotas.has_room(&ada, &short, None));
            quotas.enter(&ada, &short, slot);
        }
        assert!(!quotas.has_room(&ada, &short, None));
        quotas.leave("ada", 7);
        assert!(quotas.has_room(&ada, &long, None));
    }

    #[test]
    fn what_is_shared_counts_once_and_what_is_left_makes_room() {
        let ada = Owner { identity: "ada".into(), most: 2 };
        let mut quotas = Quotas::default();
        let short = filter(["a.b".to_owned()]);
        [7, 7, 8].into_iter().for_each(|slot| quotas.enter(&ada, &short, slot));
        let room = |quotas: &Quotas, slot| quotas.has_room(&ada, &short, slot);
        assert_eq!([Some(7), Some(9), None].map(|slot| room(&quotas, slot)), [true, false, false]);
        let bob = Owner { identity: "bob".into(), most: 2 };
        assert!(quotas.has_room(&bob, &short, Some(9)));
        quotas.leave("ada", 7);
        assert!(!room(&quotas, None));
        quotas.leave("ada", 7);
        assert!(room(&quotas, None));
        quotas.leave("ada", 8);
        assert!(quotas.0.is_empty());
    }
}
