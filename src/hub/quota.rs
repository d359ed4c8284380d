//! How many views one principal listens to: views cost the hub memory and work, and one must not make many.

use std::{collections::HashMap, sync::Arc};

/// Whose subscription it is, and how many views they may listen to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The principal's identity.
    pub identity: Arc<str>,
    /// The most different views they may listen to at a time.
    pub most: usize,
}

/// The views each principal listens to, each with how many of their subscriptions share it.
#[derive(Debug, Default)]
pub(super) struct Quotas(HashMap<Arc<str>, HashMap<usize, usize>>);

impl Quotas {
    /// Whether `owner` may listen to one more view, or to this one if they do already.
    pub(super) fn has_room(&self, owner: &Owner, slot: Option<usize>) -> bool {
        let held = self.0.get(&owner.identity);
        held.is_none_or(|held| {
            held.len() < owner.most || slot.is_some_and(|slot| held.contains_key(&slot))
        }) && owner.most > 0
    }

    pub(super) fn enter(&mut self, owner: &Owner, slot: usize) {
        *self.0.entry(owner.identity.clone()).or_default().entry(slot).or_default() += 1;
    }

    pub(super) fn leave(&mut self, identity: &str, slot: usize) {
        let Some(held) = self.0.get_mut(identity) else { return };
        if let Some(count) = held.get_mut(&slot) {
            *count -= 1;
            if *count == 0 {
                held.remove(&slot);
            }
        }
        if held.is_empty() {
            self.0.remove(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_counts_once_and_what_is_left_makes_room() {
        let ada = Owner { identity: "ada".into(), most: 2 };
        let mut quotas = Quotas::default();
        [7, 7, 8].into_iter().for_each(|slot| quotas.enter(&ada, slot));
        let room = |quotas: &Quotas, slot| quotas.has_room(&ada, slot);
        assert_eq!([Some(7), Some(9), None].map(|slot| room(&quotas, slot)), [true, false, false]);
        let bob = Owner { identity: "bob".into(), most: 2 };
        assert!(quotas.has_room(&bob, Some(9)));
        quotas.leave("ada", 7);
        assert!(!room(&quotas, None));
        quotas.leave("ada", 7);
        assert!(room(&quotas, None));
        quotas.leave("ada", 8);
        assert!(quotas.0.is_empty());
    }
}
