//! A judge over what was published and what was seen: it names each broken promise.
//!
//! It knows nothing of how the hub works, only what publishers were answered and what
//! subscribers got, so that it can judge sockets, streams and exports alike.

use std::collections::{BTreeMap, BTreeSet};

use pulsehub::{position::Offset, topic::TopicFilter};

/// All that is known of one run.
#[derive(Default)]
pub(crate) struct Evidence {
    pub(crate) sent: Vec<Sent>,
    pub(crate) seen: Vec<Seen>,
    /// The offsets that the log still holds at the end.
    pub(crate) kept: BTreeSet<Offset>,
    /// Whether retention took some of the others; if not, they were lost.
    pub(crate) has_retention: bool,
}

/// An event that was sent, and what the publisher learned; an event sent twice stands here twice.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Stored(Offset),
    /// The connection broke before the answer: it may be stored or not.
    Unknown,
    /// The hub said that it did not take it.
    Refused,
}

/// What one subscription got, in order, over all its connections.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) filter: TopicFilter,
    /// It was promised everything behind this.
    pub(crate) after: Offset,
    /// It had got everything up to here when it was stopped.
    pub(crate) through: Offset,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone)]
pub(crate) enum Step {
    Event { offset: Offset, id: String },
    Gap { from: Offset, to: Offset, reason: String },
}

/// The offsets of all events among these.
pub(crate) fn offsets(steps: &[Step]) -> BTreeSet<Offset> {
    let offset = |step: &Step| match step {
        Step::Event { offset, .. } => Some(*offset),
        Step::Gap { .. } => None,
    };
    steps.iter().filter_map(offset).collect()
}

/// A broken promise. `by` names the subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was stored and matched, and lies in no gap.
    Lost {
        by: String,
        offset: Offset,
        id: String,
    },
    /// It came after a later one, or before the subscription began.
    Swapped {
        by: String,
        offset: Offset,
        after: Offset,
    },
    Repeated {
        by: String,
        offset: Offset,
    },
    /// It was lost after it had been seen, and no gap said so afterwards.
    Untold {
        by: String,
        offset: Offset,
        id: String,
    },
    /// It came to a subscription that it does not match.
    Unasked {
        by: String,
        offset: Offset,
    },
    /// Nobody published it, or it was refused and never sent again.
    Unpublished {
        by: String,
        id: String,
    },
    /// Everything in the gap's range that matches is still there.
    NeedlessGap {
        by: String,
        from: Offset,
        to: Offset,
        reason: String,
    },
    /// One offset names two events.
    SharedOffset {
        offset: Offset,
        ids: Vec<String>,
    },
    /// One event was stored twice.
    Doubled {
        id: String,
        offsets: Vec<Offset>,
    },
}

impl Evidence {
    /// Every broken promise; none if all were kept.
    pub(crate) fn judge(&self) -> Vec<Fault> {
        let known = self.known();
        let mut faults = known.contradictions(&self.kept);
        for seen in &self.seen {
            self.judge_one(seen, &known, &mut faults);
        }
        faults
    }

    /// What answers and sightings say together: an event of unknown outcome that somebody saw is stored.
    fn known(&self) -> Known<'_> {
        let mut known = Known::default();
        for sent in &self.sent {
            if sent.answer != Answer::Refused {
                known.topics.insert(&sent.id, &sent.topic);
            }
            if let Answer::Stored(offset) = sent.answer {
                known.insert(offset, &sent.id);
            }
        }
        for step in self.seen.iter().flat_map(|seen| &seen.steps) {
            if let Step::Event { offset, id } = step {
                known.insert(*offset, id);
            }
        }
        known
    }

    fn judge_one(&self, seen: &Seen, known: &Known<'_>, faults: &mut Vec<Fault>) {
        let by = || seen.name.clone();
        let mut latest = seen.after;
        let mut got = BTreeSet::new();
        let mut gaps = Vec::new();
        for step in &seen.steps {
            match step {
                Step::Event { offset, id } => {
                    let offset = *offset;
                    match known.topics.get(&**id) {
                        None => faults.push(Fault::Unpublished { by: by(), id: id.clone() }),
                        Some(topic) if !seen.filter.matches(topic) => {
                            faults.push(Fault::Unasked { by: by(), offset });
                        }
                        Some(_) => {}
                    }
                    if !got.insert(offset) {
                        faults.push(Fault::Repeated { by: by(), offset });
                    } else if offset <= latest {
                        faults.push(Fault::Swapped { by: by(), offset, after: latest });
                    }
                    latest = latest.max(offset);
                }
                Step::Gap { from, to, reason } => {
                    let is_lost = |(offset, id): (Offset, &str)| {
                        !self.kept.contains(&offset) && known.matches(id, &seen.filter)
                    };
                    // What was lost with its epoch was lost to those as well who had seen it.
                    let any = |(offset, _): (Offset, &str)| !self.kept.contains(&offset);
                    let is_due = if reason == "epoch" {
                        known.events(1, *to).any(any)
                    } else {
                        known.events(*from, *to).any(is_lost)
                    };
                    if !is_due {
                        let (from, to, reason) = (*from, *to, reason.clone());
                        faults.push(Fault::NeedlessGap { by: by(), from, to, reason });
                    }
                    gaps.push(*from..=*to);
                    latest = latest.max(*to);
                }
            }
        }
        let told = seen.steps.iter().rposition(|step| matches!(step, Step::Gap { .. }));
        for step in seen.steps.iter().skip(told.unwrap_or(0)) {
            if let Step::Event { offset, id } = step
                && !self.has_retention
                && !self.kept.contains(offset)
            {
                let (offset, id) = (*offset, id.clone());
                faults.push(Fault::Untold { by: by(), offset, id });
            }
        }
        for (offset, id) in known.events(seen.after + 1, seen.through) {
            if known.matches(id, &seen.filter)
                && !got.contains(&offset)
                && !gaps.iter().any(|gap| gap.contains(&offset))
            {
                faults.push(Fault::Lost { by: by(), offset, id: id.to_owned() });
            }
        }
    }
}

/// Which event has which offset, and which topic.
#[derive(Default)]
struct Known<'a> {
    ids: BTreeMap<Offset, BTreeSet<&'a str>>,
    offsets: BTreeMap<&'a str, BTreeSet<Offset>>,
    topics: BTreeMap<&'a str, &'a str>,
}

impl<'a> Known<'a> {
    fn insert(&mut self, offset: Offset, id: &'a str) {
        self.ids.entry(offset).or_default().insert(id);
        self.offsets.entry(id).or_default().insert(offset);
    }

    fn events(&self, from: Offset, to: Offset) -> impl Iterator<Item = (Offset, &'a str)> {
        let range = if from <= to { from..=to } else { 0..=0 }; // no event has offset 0
        self.ids.range(range).flat_map(|(offset, ids)| ids.iter().map(|id| (*offset, *id)))
    }

    fn matches(&self, id: &str, filter: &TopicFilter) -> bool {
        self.topics.get(id).is_some_and(|topic| filter.matches(topic))
    }

    fn contradictions(&self, kept: &BTreeSet<Offset>) -> Vec<Fault> {
        let shared = self.ids.iter().filter(|(_, ids)| ids.len() > 1).map(|(offset, ids)| {
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            Fault::SharedOffset { offset: *offset, ids }
        });
        // What was lost may be sent again and stored again.
        let is_twice = |offsets: &BTreeSet<Offset>| offsets.intersection(kept).count() > 1;
        let doubled = self.offsets.iter().filter(|(_, offsets)| is_twice(offsets));
        let doubled = doubled.map(|(id, offsets)| {
            let offsets = offsets.iter().copied().collect();
            Fault::Doubled { id: (*id).to_owned(), offsets }
        });
        shared.chain(doubled).collect()
    }
}

mod tests {
    use super::*;
    use crate::support::filter;

    /// Events 1 to 6, the odd ones of topic `a`, the even ones of `b`; all stored, kept and seen.
    fn good() -> Evidence {
        let id = |offset: Offset| format!("e{offset}");
        let topic = |offset: Offset| if offset % 2 == 1 { "a" } else { "b" };
        let sent = |offset| Sent {
            id: id(offset),
            topic: topic(offset).into(),
            answer: Answer::Stored(offset),
        };
        let event = |offset| Step::Event { offset, id: id(offset) };
        let seen = |name: &str, after, offsets: &[Offset]| Seen {
            name: name.into(),
            filter: filter(if name == "all" { &["**"] } else { &["a"] }),
            after,
            through: 6,
            steps: offsets.iter().copied().map(event).collect(),
        };
        Evidence {
            sent: (1..=6).map(sent).collect(),
            seen: vec![seen("all", 0, &[1, 2, 3, 4, 5, 6]), seen("late", 2, &[3, 5])],
            kept: (1..=6).collect(),
            has_retention: false,
        }
    }

    fn late() -> String {
        "late".into()
    }

    #[test]
    fn a_good_record_has_no_fault() {
        assert_eq!(good().judge(), []);
    }

    #[test]
    fn an_unknown_outcome_may_be_stored_or_not() {
        let mut evidence = good();
        evidence.sent[3].answer = Answer::Unknown; // it was seen
        let never = Sent { id: "never".into(), topic: "a".into(), answer: Answer::Unknown };
        evidence.sent.push(never);
        assert_eq!(evidence.judge(), []);
        evidence.sent[4].answer = Answer::Unknown;
        evidence.seen[1].steps.pop(); // one saw it, so the other has lost it
        let lost = Fault::Lost { by: late(), offset: 5, id: "e5".into() };
        assert_eq!(evidence.judge(), [lost]);
    }

    #[test]
    fn a_loss_is_found_unless_it_lies_in_a_gap() {
        let mut evidence = good();
        evidence.seen[1].steps.remove(0);
        let lost = Fault::Lost { by: late(), offset: 3, id: "e3".into() };
        assert_eq!(evidence.judge(), [lost]);
        (evidence.has_retention, _) = (true, evidence.kept.remove(&3));
        evidence.seen[1].steps.insert(0, gap(3, 4));
        assert_eq!(evidence.judge(), []);
    }

    #[test]
    fn a_stored_event_that_nobody_saw_is_lost_to_all() {
        let mut evidence = good();
        let sent = Sent { id: "e7".into(), topic: "a".into(), answer: Answer::Stored(7) };
        evidence.sent.push(sent);
        evidence.seen.iter_mut().for_each(|seen| seen.through = 7);
        let lost = |by: &str| Fault::Lost { by: by.into(), offset: 7, id: "e7".into() };
        assert_eq!(evidence.judge(), [lost("all"), lost("late")]);
    }

    #[test]
    fn a_swap_is_found() {
        let mut evidence = good();
        evidence.seen[1].steps.swap(0, 1);
        assert_eq!(evidence.judge(), [Fault::Swapped { by: late(), offset: 3, after: 5 }]);
    }

    #[test]
    fn an_event_from_before_the_start_is_found() {
        let mut evidence = good();
        evidence.seen[1].steps.insert(0, Step::Event { offset: 1, id: "e1".into() });
        assert_eq!(evidence.judge(), [Fault::Swapped { by: late(), offset: 1, after: 2 }]);
    }

    #[test]
    fn a_repeat_is_found() {
        let mut evidence = good();
        let again = evidence.seen[1].steps[0].clone();
        evidence.seen[1].steps.push(again);
        assert_eq!(evidence.judge(), [Fault::Repeated { by: late(), offset: 3 }]);
    }

    #[test]
    fn an_offset_given_twice_is_found() {
        let mut evidence = good();
        evidence.sent[3].answer = Answer::Stored(3);
        evidence.seen[0].steps.remove(3);
        let shared = Fault::SharedOffset { offset: 3, ids: vec!["e3".into(), "e4".into()] };
        assert_eq!(evidence.judge(), [shared]);
    }

    #[test]
    fn an_event_stored_twice_is_found() {
        let mut evidence = good();
        let again = Sent { answer: Answer::Stored(9), ..evidence.sent[0].clone() };
        evidence.sent.push(again);
        evidence.kept.insert(9);
        let doubled = Fault::Doubled { id: "e1".into(), offsets: vec![1, 9] };
        assert_eq!(evidence.judge(), [doubled]);
    }

    #[test]
    fn a_needless_gap_is_found() {
        let mut evidence = good();
        (evidence.has_retention, _) = (true, evidence.kept.remove(&4)); // gone, but not to this one
        evidence.seen[1].steps.insert(1, gap(4, 4));
        let reason = "retention".to_owned();
        let needless = Fault::NeedlessGap { by: late(), from: 4, to: 4, reason };
        assert_eq!(evidence.judge(), [needless]);
    }

    #[test]
    fn what_is_stored_again_after_it_was_lost_is_not_doubled_if_its_readers_were_told() {
        let mut evidence = good();
        let again = Sent { answer: Answer::Stored(9), ..evidence.sent[0].clone() };
        evidence.sent.push(again);
        evidence.kept.remove(&1);
        evidence.kept.insert(9);
        let untold = Fault::Untold { by: "all".into(), offset: 1, id: "e1".into() };
        assert_eq!(evidence.judge(), [untold]);
        evidence.seen[0].steps.push(Step::Gap { from: 1, to: 8, reason: "epoch".into() });
        evidence.seen[0].steps.push(Step::Event { offset: 9, id: "e1".into() });
        assert_eq!(evidence.judge(), []);
    }

    #[test]
    fn a_gap_of_an_epoch_is_due_only_after_a_loss() {
        let mut evidence = good();
        let gap = || Step::Gap { from: 7, to: 1000, reason: "epoch".into() };
        evidence.seen[0].steps.push(gap());
        let reason = "epoch".to_owned();
        let needless = Fault::NeedlessGap { by: "all".into(), from: 7, to: 1000, reason };
        assert_eq!(evidence.judge(), [needless]);
        evidence.kept.remove(&6); // it was seen and is lost: its readers hear of it
        assert_eq!(evidence.judge(), []);
    }

    #[test]
    fn what_nobody_published_or_asked_for_is_found() {
        let mut evidence = good();
        evidence.sent[5].answer = Answer::Refused;
        evidence.seen[1].steps.insert(1, Step::Event { offset: 4, id: "e4".into() });
        let unpublished = Fault::Unpublished { by: "all".into(), id: "e6".into() };
        assert_eq!(evidence.judge(), [unpublished, Fault::Unasked { by: late(), offset: 4 }]);
    }

    fn gap(from: Offset, to: Offset) -> Step {
        Step::Gap { from, to, reason: "retention".into() }
    }
}
