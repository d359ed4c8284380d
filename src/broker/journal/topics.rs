//! What the journal knows of each topic, in memory: the file's aggregates, kept up to date.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::config::RetentionRules;
use crate::{
    broker::{
        TopicInfo,
        candidates::{behind, candidates},
        losses::TopicLosses,
    },
    position::Offset,
    topic::{Topic, TopicFilter},
};

/// A topic's row number in the file.
pub(super) type TopicId = i64;

/// Topics looked at at a time: no longer is the writer kept waiting.
pub(super) const PIECE: usize = 500;
/// Topics looked at for what may as well be found in another way.
const LOOKS: usize = 2000;

/// All topics, by name and number.
#[derive(Debug, Default)]
pub(super) struct JournalTopics {
    by_name: HashMap<Topic, TopicId>,
    /// The same in order, for those who page through them; the writer asks the other.
    in_order: BTreeMap<Topic, TopicId>,
    by_id: HashMap<TopicId, TopicState>,
    next_id: TopicId,
    /// How many of them are the hub's own.
    reserved: usize,
    /// What they and forgotten ones lost.
    losses: TopicLosses,
    /// Topics that make room for others, with their row in the file and what they had lost: they must
    /// not make a gap for others that lost nothing.
    forgotten: HashMap<Topic, (TopicId, Offset)>,
    /// Of those that are not remembered even so, the last loss.
    forgotten_through: Offset,
}

/// One topic.
#[derive(Debug, Clone)]
pub(super) struct TopicState {
    pub(super) info: TopicInfo,
    /// Which retention rule it has.
    pub(super) rule: usize,
}

/// How much of a topic is in a block, or was added or taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) last_offset: Offset,
    pub(super) last_received: u64,
}

impl JournalTopics {
    pub(super) fn id(&self, topic: &str) -> Option<TopicId> {
        // A topic's text hashes like the topic: both are the hash of a str.
        self.by_name.get(topic).copied()
    }

    pub(super) fn get(&self, id: TopicId) -> Option<&TopicState> {
        self.by_id.get(&id)
    }

    /// Which retention rule a topic has.
    pub(super) fn rule_of(&self, id: TopicId) -> usize {
        self.get(id).map_or(0, |state| state.rule)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicId, &TopicState)> {
        self.by_id.iter().map(|(id, state)| (*id, state))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many of them are the hub's own.
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    pub(super) fn next_id(&self) -> TopicId {
        self.next_id
    }

    pub(super) fn forgotten_through(&self) -> Offset {
        self.forgotten_through
    }

    pub(super) fn set_forgotten_through(&mut self, offset: Offset) {
        self.forgotten_through = offset;
    }

    pub(super) fn insert(
        &mut self,
        id: TopicId,
        topic: Topic,
        trimmed: Offset,
        rules: &RetentionRules,
    ) {
        let rule = rules.of(topic.as_str());
        let trimmed = trimmed.max(self.lost_when_forgotten(&topic));
        self.forgotten.remove(&topic);
        self.reserved += usize::from(topic.is_reserved());
        self.by_name.insert(topic.clone(), id);
        self.in_order.insert(topic.clone(), id);
        self.next_id = self.next_id.max(id + 1);
        self.losses.raise(&topic, trimmed);
        let info = TopicInfo {
            topic,
            events: 0,
            bytes: 0,
            last_offset: 0,
            last_received: 0,
            trimmed_through: trimmed,
            max_age: rules.max_age(rule),
        };
        self.by_id.insert(id, TopicState { info, rule });
    }

    pub(super) fn add(&mut self, id: TopicId, amount: Amount) {
        if let Some(TopicState { info, .. }) = self.by_id.get_mut(&id) {
            info.events += amount.events;
            info.bytes += amount.bytes;
            if amount.last_offset > info.last_offset {
                info.last_offset = amount.last_offset;
                info.last_received = amount.last_received;
            }
        }
    }

    /// Records are about to be trimmed, the last of them at `amount.last_offset`.
    ///
    /// Raised before the commit that removes them: a reader that no longer finds them must
    /// already see that they are gone.
    pub(super) fn raise_trimmed(&mut self, id: TopicId, through: Offset) {
        if let Some(TopicState { info, .. }) = self.by_id.get_mut(&id) {
            info.trimmed_through = info.trimmed_through.max(through);
            self.losses.raise(&info.topic, through);
        }
    }

    pub(super) fn subtract(&mut self, id: TopicId, amount: Amount) {
        if let Some(TopicState { info, .. }) = self.by_id.get_mut(&id) {
            info.events = info.events.saturating_sub(amount.events);
            info.bytes = info.bytes.saturating_sub(amount.bytes);
        }
    }

    pub(super) fn forget(&mut self, id: TopicId) {
        if let Some(state) = self.by_id.remove(&id) {
            self.by_name.remove(&state.info.topic);
            self.in_order.remove(&state.info.topic);
            self.reserved -= usize::from(state.info.topic.is_reserved());
            let lost = state.info.trimmed_through;
            self.forgotten.insert(state.info.topic, (id, lost));
        }
    }

    /// What a topic had lost when it was forgotten.
    pub(super) fn lost_when_forgotten(&self, topic: &Topic) -> Offset {
        self.forgotten.get(topic).map_or(0, |(_, lost)| *lost)
    }

    /// Which of the forgotten topics, and of those about to be, are too many to be remembered: those
    /// that lost something longest ago, a tenth more than needed.
    pub(super) fn too_many_forgotten(
        &self,
        more: impl ExactSizeIterator<Item = (TopicId, Offset)>,
        most: usize,
    ) -> Vec<(TopicId, Offset)> {
        if self.forgotten.len() + more.len() <= most {
            return Vec::new();
        }
        let mut all: Vec<_> = self.forgotten.values().copied().chain(more).collect();
        let surplus = all.len() - most + most / 10;
        all.sort_unstable_by_key(|(_, lost)| *lost);
        all.truncate(surplus);
        all
    }

    /// Forgets what forgotten topics had lost, too.
    pub(super) fn drop_forgotten(&mut self, ids: &HashSet<TopicId>) {
        for (topic, _) in self.forgotten.extract_if(|_, (id, _)| ids.contains(id)) {
            self.losses.forget(&topic);
        }
    }

    /// Those that begin with `prefix` and lie behind `after`, in order, at most `most`.
    pub(super) fn page(&self, prefix: &str, after: &str, most: usize) -> Vec<Topic> {
        let found = behind(&self.in_order, prefix, after);
        found.take(most).map(|(topic, _)| topic.clone()).collect()
    }

    /// What is known of some of them.
    pub(super) fn infos(&self, topics: &[Topic]) -> Vec<TopicInfo> {
        let ids = topics.iter().filter_map(|topic| self.id(topic.as_str()));
        ids.filter_map(|id| Some(self.get(id)?.info.clone())).collect()
    }

    /// The last offset above `after` that was lost to the filter, 0 if there is none; None if that takes many looks,
    /// which are taken in pieces.
    pub(super) fn lost(&self, filter: &TopicFilter, after: Offset) -> Option<Offset> {
        let own = match self.losses.highest() > after {
            true => self.losses.newest(filter, after)?,
            false => 0,
        };
        Some(own.max(self.forgotten_through))
    }

    /// A piece of them: for the next topics behind `behind`, and where to go on.
    pub(super) fn lost_piece(&self, filter: &TopicFilter, behind: &str) -> (Offset, Option<Topic>) {
        let (lost, next) = self.losses.piece(filter, behind, PIECE);
        (lost.max(self.forgotten_through), next)
    }

    /// The newest event's offset of all topics that match; None if there are many to look at.
    pub(super) fn last_offset(&self, filter: &TopicFilter) -> Option<Offset> {
        let (mut last, mut looks) = (0, 0);
        for (topic, id) in candidates(&self.in_order, filter, "") {
            looks += 1;
            if looks > LOOKS {
                return None;
            }
            if filter.matches(topic.as_str()) {
                last = last.max(self.get(*id).map_or(0, |state| state.info.last_offset));
            }
        }
        Some(last)
    }

    /// The topics that match; None if they are more than `most`, or if there are many to look at.
    pub(super) fn matching(&self, filter: &TopicFilter, most: usize) -> Option<Vec<TopicId>> {
        let mut found = Vec::new();
        for (looks, (topic, id)) in candidates(&self.in_order, filter, "").enumerate() {
            let matches = filter.matches(topic.as_str());
            if looks == LOOKS || matches && found.len() == most {
                return None;
            }
            if matches {
                found.push(*id);
            }
        }
        Some(found)
    }

    /// Those that match and may have a newest value above `after`, in pieces: of the next topics behind `behind`, and
    /// where to go on.
    pub(super) fn latest_piece(
        &self,
        filter: &TopicFilter,
        behind: &str,
        after: Offset,
    ) -> (Vec<(TopicId, Topic)>, Option<Topic>) {
        let piece: Vec<_> = candidates(&self.in_order, filter, behind).take(PIECE).collect();
        let next = piece.get(PIECE - 1).map(|(topic, _)| (*topic).clone());
        let found = piece.into_iter().filter(|(topic, id)| {
            // Of one without events it is not known, for the newest values outlive them.
            let last = self.get(**id).map_or(0, |state| state.info.last_offset);
            (last == 0 || last > after) && filter.matches(topic.as_str())
        });
        (found.map(|(topic, id)| (*id, topic.clone())).collect(), next)
    }
}
