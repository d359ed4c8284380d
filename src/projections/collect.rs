//! What projections keep of newest events: the newest one, a list, one for each key, or how many
//! keys there are of which the newest event is so. Bounded, and made of the log alone.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use super::{ProjectionBounds, take::Take};
use crate::{
    event::Record,
    position::Offset,
    select::{Condition, Field},
    telemetry::Limit,
    time::{Millis, parse_rfc3339},
    topic::TopicFilter,
};

/// What is to be kept of which events.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CollectRule {
    pub(super) filter: TopicFilter,
    /// Only events that are so.
    pub(super) condition: Condition,
    pub(super) keep: KeepPolicy,
    /// For [`KeepPolicy::PerKey`]: those with the greatest value of this, instead of the newest.
    pub(super) sort_by: Option<Field>,
    pub(super) take: Take,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepPolicy {
    /// The newest event.
    Newest,
    /// So many of the newest, the newest first.
    List(usize),
    /// Of so many (topic, key) the newest, the newest first, or as the rule sorts them.
    PerKey(usize),
    /// How many (topic, key) there are whose newest event is so.
    Present,
}

/// What is kept at present.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The newest first.
    items: VecDeque<KeptItem>,
    /// For [`KeepPolicy::Present`]: those whose newest event is so, and when that came.
    present: HashMap<Arc<[u8]>, Offset>,
    /// The same by when it came, for the oldest.
    present_order: BTreeMap<Offset, Arc<[u8]>>,
    /// Up to here everything has been looked at.
    through: Offset,
}

#[derive(Debug)]
struct KeptItem {
    /// For [`KeepPolicy::PerKey`].
    id: Box<[u8]>,
    /// What the rule sorts by.
    rank: Rank,
    received: Millis,
    value: Value,
    /// The length of its JSON.
    bytes: usize,
}

/// What items are sorted by. What is missing is less than anything.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Rank {
    Missing,
    Number(f64),
    Time(Millis),
    Text(Box<str>),
}

/// What the newest event of a topic and key is found by.
fn id(record: Record<'_>) -> Box<[u8]> {
    // Neither a topic nor a JSON string has a space before its first quote.
    [record.topic().as_bytes(), b" ", record.key().unwrap_or_default()].concat().into()
}

impl CollectRule {
    /// Takes in an event that came after all before it; `data` is its payload. Gives the limit for
    /// which something was forgotten.
    pub(super) fn take_in(
        &self,
        kept: &mut Kept,
        record: Record<'_>,
        data: &Value,
        bounds: ProjectionBounds,
    ) -> Option<Limit> {
        if record.offset() <= kept.through || !self.filter.matches(record.topic()) {
            return None;
        }
        kept.through = record.offset();
        let is_so = !record.is_removal() && self.condition.holds(record, data) == Some(true);
        match self.keep {
            KeepPolicy::Present => {
                return kept.set_present(id(record), record.offset(), is_so, bounds.keys);
            }
            KeepPolicy::PerKey(_) => {
                let id = id(record);
                kept.items.retain(|item| item.id != id);
            }
            KeepPolicy::Newest | KeepPolicy::List(_) => {}
        }
        if !is_so {
            return None;
        }
        let value = self.take.take(record, data);
        let id =
            if matches!(self.keep, KeepPolicy::PerKey(_)) { id(record) } else { Box::default() };
        let bytes = value.to_string().len();
        let rank = self.sort_by.as_ref().map(|field| Rank::read(field, record, data));
        let place = rank.as_ref().map_or(0, |rank| kept.place(rank, &id));
        let rank = rank.unwrap_or(Rank::Missing);
        kept.items.insert(place, KeptItem { id, rank, received: record.received(), value, bytes });
        kept.items.truncate(self.keep.limit());
        kept.fit(bounds.event)
    }

    /// What is kept as JSON.
    pub(super) fn value(&self, kept: &Kept) -> Value {
        match self.keep {
            KeepPolicy::Newest => {
                let newest = kept.items.front().map(|item| item.value.clone());
                newest.unwrap_or_else(|| self.take.nothing())
            }
            KeepPolicy::List(_) | KeepPolicy::PerKey(_) => {
                kept.items.iter().map(|item| item.value.clone()).collect()
            }
            KeepPolicy::Present => kept.present.len().into(),
        }
    }
}

impl KeepPolicy {
    fn limit(self) -> usize {
        match self {
            KeepPolicy::Newest => 1,
            KeepPolicy::List(limit) | KeepPolicy::PerKey(limit) => limit,
            KeepPolicy::Present => 0,
        }
    }
}

impl Kept {
    /// How many keys are present.
    pub(super) fn present(&self) -> usize {
        self.present.len()
    }

    /// When each was received and what was taken of it, the newest first.
    pub(super) fn received(&self) -> impl Iterator<Item = (Millis, &Value)> {
        self.items.iter().map(|item| (item.received, &item.value))
    }

    /// Everything up to `offset` has been looked at, also what did not match.
    pub(super) fn pass(&mut self, offset: Offset) {
        self.through = self.through.max(offset);
    }

    /// Where an item belongs among those that are sorted, the greatest first. Equals go by their id, so that all nodes
    /// keep the same, and an item does not move because something came for it.
    fn place(&self, rank: &Rank, id: &[u8]) -> usize {
        self.items.partition_point(|item| (&item.rank, &*item.id) > (rank, id))
    }

    /// Forgets the last items until the others have at most so many bytes; the first stays.
    fn fit(&mut self, most: usize) -> Option<Limit> {
        let before = self.items.len();
        let mut bytes: usize = self.items.iter().map(|item| item.bytes).sum();
        while bytes > most && self.items.len() > 1 {
            bytes -= self.items.pop_back().map_or(0, |item| item.bytes);
        }
        (self.items.len() < before).then_some(Limit::Event)
    }

    fn set_present(
        &mut self,
        id: Box<[u8]>,
        offset: Offset,
        is_so: bool,
        most: usize,
    ) -> Option<Limit> {
        if let Some(before) = self.present.remove(&*id) {
            self.present_order.remove(&before);
        }
        if !is_so {
            return None;
        }
        let id: Arc<[u8]> = id.into();
        self.present_order.insert(offset, id.clone());
        self.present.insert(id, offset);
        if self.present.len() <= most {
            return None;
        }
        let (_, oldest) = self.present_order.pop_first()?;
        self.present.remove(&oldest);
        Some(Limit::LatestKeys)
    }
}

impl Rank {
    fn read(field: &Field, record: Record<'_>, data: &Value) -> Self {
        match field.read(record, data).as_deref() {
            Some(Value::Number(number)) => number.as_f64().map_or(Self::Missing, Self::Number),
            Some(Value::String(text)) => {
                parse_rfc3339(text).map_or_else(|_| Self::Text(text.as_str().into()), Self::Time)
            }
            _ => Self::Missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Block, BlockBuilder, Event, payload},
        topic::{Topic, TopicPattern},
    };
    use serde_json::{json, value::RawValue};

    fn block(offset: Offset, topic: &str, key: Option<&str>, data: &str) -> Arc<Block> {
        let mut builder = BlockBuilder::default();
        let event = Event {
            topic: Topic::parse(topic).unwrap(),
            id: format!("i{offset}").into(),
            id_is_ours: false,
            publisher: crate::event::PublisherName::hub(),
            source: "s".into(),
            kind: None,
            time: "2026-11-20T12:00:00Z".into(),
            key: key.map(Into::into),
            data: RawValue::from_string(data.to_owned()).unwrap(),
        };
        builder.push(offset, offset * 10, &event);
        builder.finish()
    }

    fn rule(keep: KeepPolicy, condition: &str, take: &str) -> CollectRule {
        let take = toml::from_str::<toml::Table>(&format!("take = {take}")).unwrap();
        CollectRule {
            filter: TopicFilter::new([TopicPattern::parse("a.*").unwrap()]),
            condition: toml::from_str(condition).unwrap(),
            keep,
            sort_by: None,
            take: take["take"].clone().try_into().unwrap(),
        }
    }

    /// The events of (topic, key, data), with offsets from 1.
    fn after(rule: &CollectRule, events: &[(&str, Option<&str>, &str)], keys: usize) -> Kept {
        let mut kept = Kept::default();
        for (at, (topic, key, data)) in events.iter().enumerate() {
            let block = block(at as Offset + 1, topic, *key, data);
            let record = block.record(0).unwrap();
            rule.take_in(
                &mut kept,
                record,
                &payload(record),
                ProjectionBounds { keys, event: 100 },
            );
        }
        kept
    }

    #[test]
    fn lists_hold_the_newest_first_and_no_more_than_asked_for() {
        let list = rule(KeepPolicy::List(2), "n = { above = 1 }", "{ id = \"@id\", n = \"n\" }");
        let events = [
            ("a.x", None, "{\"n\":2}"),
            ("a.y", None, "{\"n\":3}"),
            ("b.y", None, "{\"n\":9}"),
            ("a.y", None, "{\"n\":1}"),
            ("a.x", None, "{\"m\":1}"),
            ("a.x", None, "{\"n\":4}"),
        ];
        let kept = after(&list, &events, 0);
        assert_eq!(list.value(&kept), json!([{"id": "i6", "n": 4}, {"id": "i2", "n": 3}]));
        assert_eq!(kept.received().map(|(at, _)| at).collect::<Vec<_>>(), [60, 20]);
    }

    #[test]
    fn a_list_has_no_more_bytes_than_an_event_may_have() {
        let list = rule(KeepPolicy::List(9), "", "\"n\"");
        let (long, longer) = ("x".repeat(58), "y".repeat(200));
        let data = [&long, "b", &longer, &long, "d"].map(|text| json!({"n": text}).to_string());
        let events: Vec<_> = data.iter().map(|data| ("a.x", None, data.as_str())).collect();
        assert_eq!(list.value(&after(&list, &events[..2], 0)), json!(["b", long]));
        assert_eq!(list.value(&after(&list, &events[..3], 0)), json!([longer]), "the newest stays");
        assert_eq!(list.value(&after(&list, &events, 0)), json!(["d", long]));
    }

    #[test]
    fn one_of_each_key_is_the_newest_and_moves_to_the_front() {
        let list = rule(KeepPolicy::PerKey(2), "", "\"n\"");
        let mut events = vec![
            ("a.x", Some("1"), "{\"n\":1}"),
            ("a.x", Some("2"), "{\"n\":2}"),
            ("a.x", Some("1"), "{\"n\":3}"),
        ];
        assert_eq!(list.value(&after(&list, &events, 0)), json!([3, 2]));
        events.push(("a.y", Some("1"), "{\"n\":4}"));
        assert_eq!(list.value(&after(&list, &events, 0)), json!([4, 3]));
        events.push(("a.y", Some("1"), "null"));
        assert_eq!(list.value(&after(&list, &events, 0)), json!([3]));
    }

    #[test]
    fn a_sorted_list_keeps_the_greatest_and_what_comes_for_others_hides_none_of_them() {
        let sort_by = Some("at".parse().unwrap());
        let list = CollectRule { sort_by, ..rule(KeepPolicy::PerKey(2), "", "\"n\"") };
        let at = |time: &str, n: u32| json!({"at": time, "n": n}).to_string();
        let (old, new) = ("2026-11-21T15:00:00Z", "2026-11-21T16:00:00.5Z");
        let data = [at(new, 1), at(old, 2), at(old, 3), at("2026-11-21T15:59:59+01:30", 4)];
        let mut events = vec![
            ("a.x", Some("new"), data[0].as_str()),
            ("a.x", Some("b"), &data[1]),
            ("a.x", Some("a"), &data[2]),
        ];
        assert_eq!(list.value(&after(&list, &events, 0)), json!([1, 2]), "equals go by their id");
        // One that started before it runs on.
        events.push(("a.x", Some("a"), &data[2]));
        events.push(("a.x", Some("old"), &data[3]));
        assert_eq!(list.value(&after(&list, &events, 0)), json!([1, 2]));
        events.push(("a.x", Some("new"), "{\"n\":5,\"at\":null}"));
        assert_eq!(list.value(&after(&list, &events, 0)), json!([2, 5]), "without one it is last");
        events.push(("a.x", Some("b"), "null"));
        assert_eq!(list.value(&after(&list, &events, 0)), json!([5]));
    }

    #[test]
    fn the_newest_is_null_or_an_object_of_nulls_while_there_is_none() {
        let whole = rule(KeepPolicy::Newest, "", "\"n.m\"");
        assert_eq!(whole.value(&Kept::default()), json!(null));
        let object = rule(KeepPolicy::Newest, "", "{ n = [\"n\", \"m\"], o = \"o\" }");
        assert_eq!(object.value(&Kept::default()), json!({"n": null, "o": null}));
        let kept = after(&object, &[("a.x", None, "{\"m\":1}")], 0);
        assert_eq!(object.value(&kept), json!({"n": 1, "o": null}));
    }

    #[test]
    fn present_are_the_keys_whose_newest_event_is_so() {
        let open = rule(KeepPolicy::Present, "open = true", "\"n\"");
        let mut events = vec![
            ("a.x", Some("1"), "{\"open\":true}"),
            ("a.x", Some("2"), "{\"open\":true}"),
            ("a.y", Some("1"), "{\"open\":true}"),
        ];
        assert_eq!(after(&open, &events, 9).present(), 3);
        assert_eq!(after(&open, &events, 2).present(), 2, "the oldest is forgotten");
        events.push(("a.x", Some("1"), "{\"open\":false}"));
        events.push(("a.x", Some("2"), "null"));
        assert_eq!(after(&open, &events, 9).present(), 1);
        events.push(("a.y", Some("1"), "{}"));
        assert_eq!(after(&open, &events, 9).present(), 0);
    }

    #[test]
    fn what_comes_twice_counts_once() {
        let list = rule(KeepPolicy::List(5), "", "\"n\"");
        let mut kept = Kept::default();
        let block = block(3, "a.x", None, "{\"n\":1}");
        let record = block.record(0).unwrap();
        for _ in 0..2 {
            list.take_in(
                &mut kept,
                record,
                &payload(record),
                ProjectionBounds { keys: 0, event: 100 },
            );
        }
        assert_eq!(list.value(&kept), json!([1]));
        kept.pass(9);
        assert_eq!(kept.through, 9);
    }
}
