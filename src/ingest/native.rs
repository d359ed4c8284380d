//! The hub's own format: one event object, an array of them, or one to a line (NDJSON), which its second line tells.
//!
//! A good batch is read in one pass that borrows from the body. Only when that fails is the body
//! read a second time, event by event, to tell everything that is wrong with it.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed as _, IgnoredAny, Visitor},
};
use serde_json::value::RawValue;

use super::{
    BadItem, Defaults, Fault, Refusal,
    parts::{AtMost, attribute_of, kind_of, malformed, not_utf8, text_of},
};
use crate::{
    admission::{BatchLimits, BatchTooLong},
    event::{Event, compact},
    json::Object,
    time::{has_rfc3339_shape, parse_rfc3339, rfc3339},
    topic::Topic,
};

/// How the events stand in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// One object, an array of objects, or one object to a line: the first byte and the second line tell.
    Json,
    /// One object to a line; blank lines are passed over.
    Lines,
}

/// Reads a whole batch, or says everything that keeps it from being taken.
///
/// Topics of the hub itself are read like others; whether the caller may publish there is asked later.
pub fn read(
    body: &[u8],
    format: BodyFormat,
    defaults: &Defaults<'_>,
    limits: &BatchLimits,
) -> Result<Vec<Event>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|error| not_utf8(body, error.valid_up_to()))?;
    let context = Context { defaults, limits, now: rfc3339(defaults.now) };
    match split::<Object<EventText<'_>>>(text, format, limits) {
        Ok(items) => {
            let events = items.into_iter().map(|Object(item)| context.event(item, Vec::new()));
            if let Ok(events) = events.collect() {
                return Ok(events);
            }
        }
        Err(Refusal::Malformed { .. }) => {} // or only a field of the wrong type
        Err(refusal) => return Err(refusal),
    }
    context.examine(split(text, format, limits)?)
}

/// The batch's items; `Malformed` also if one of them is no `T`.
fn split<'a, T: Deserialize<'a>>(
    text: &'a str,
    format: BodyFormat,
    limits: &BatchLimits,
) -> Result<Vec<T>, Refusal> {
    let content = text.trim_start_matches(is_space);
    let items = match format {
        BodyFormat::Lines => lines(text, limits.batch)?,
        BodyFormat::Json if content.starts_with('[') => {
            let mut reader = serde_json::Deserializer::from_str(text);
            let items = AtMost::new(limits.batch).deserialize(&mut reader);
            let items = items.and_then(|items| reader.end().map(|()| items));
            let items = items.map_err(|error| malformed(0, &error))?;
            items.ok_or(BatchTooLong { limit: limits.batch })?
        }
        BodyFormat::Json if content.is_empty() => Vec::new(),
        BodyFormat::Json if has_more_lines(content) => lines(text, limits.batch)?,
        BodyFormat::Json => vec![serde_json::from_str(text).map_err(|error| malformed(0, &error))?],
    };
    if items.is_empty() { Err(Refusal::Empty) } else { Ok(items) }
}

/// Whether the first line is a whole value, and another line begins another.
fn has_more_lines(content: &str) -> bool {
    let Some((first, rest)) = content.split_once('\n') else { return false };
    rest.trim_start_matches(is_space).starts_with('{')
        && serde_json::from_str::<IgnoredAny>(first).is_ok()
}

fn lines<'a, T: Deserialize<'a>>(text: &'a str, limit: usize) -> Result<Vec<T>, Refusal> {
    let mut items = Vec::new();
    for (above, line) in text.split('\n').enumerate() {
        if line.trim_matches(is_space).is_empty() {
            continue;
        }
        if items.len() == limit {
            return Err(BatchTooLong { limit }.into());
        }
        items.push(serde_json::from_str(line).map_err(|error| malformed(above, &error))?);
    }
    Ok(items)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// An event as it came, nothing looked at but the types.
#[derive(Deserialize)]
struct EventText<'a> {
    #[serde(borrow, default)]
    topic: OptionalText<'a>,
    #[serde(borrow, default)]
    id: OptionalText<'a>,
    #[serde(borrow, default)]
    source: OptionalText<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: OptionalText<'a>,
    #[serde(borrow, default)]
    time: OptionalText<'a>,
    #[serde(borrow, default)]
    key: OptionalText<'a>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// The same with nothing looked at at all.
#[derive(Deserialize)]
struct RawFields<'a> {
    #[serde(borrow)]
    topic: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A string that is absent or null, borrowed where it has no escapes. (`Option<Cow<str>>` would
/// always copy.)
#[derive(Default)]
struct OptionalText<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for OptionalText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = OptionalText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(
                self,
                text: &'de str,
            ) -> Result<OptionalText<'de>, E> {
                Ok(OptionalText(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OptionalText<'de>, E> {
                Ok(OptionalText(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_unit<E: de::Error>(self) -> Result<OptionalText<'de>, E> {
                Ok(OptionalText(None))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

struct Context<'a> {
    defaults: &'a Defaults<'a>,
    limits: &'a BatchLimits,
    now: String,
}

/// What is wrong with one event, and the field it is about.
type Faults = Vec<FieldFault>;
type FieldFault = (Option<&'static str>, Fault);

impl Context<'_> {
    /// The close look at a batch that the quick pass stumbled over.
    fn examine(&self, items: Vec<&RawValue>) -> Result<Vec<Event>, Refusal> {
        let (mut events, mut bad) = (Vec::new(), Vec::new());
        for (index, item) in items.into_iter().enumerate() {
            match incoming(item).and_then(|(item, faults)| self.event(item, faults)) {
                Ok(event) => events.push(event),
                Err(faults) => {
                    let item = |(field, fault)| BadItem { index, field, fault };
                    bad.extend(faults.into_iter().map(item));
                }
            }
        }
        if bad.is_empty() { Ok(events) } else { Err(Refusal::Items(bad)) }
    }

    /// The event, or what is wrong with it beside the `faults` known already.
    fn event(&self, incoming: EventText<'_>, mut faults: Faults) -> Result<Event, Faults> {
        let topic = match incoming.topic.0 {
            Some(text) => Topic::parse(&text).map_err(|error| (Some("topic"), error.into())),
            None => Err((Some("topic"), Fault::NoTopic)),
        };
        // A topic of the wrong type is told already.
        let told = faults.iter().any(|(field, _)| *field == Some("topic"));
        let topic = if told { None } else { kept(topic, &mut faults) };
        let id = kept(attribute("id", incoming.id), &mut faults).flatten();
        let source = kept(attribute("source", incoming.source), &mut faults).flatten();
        let kind = kept(attribute("type", incoming.kind), &mut faults).flatten();
        let key = kept(attribute("key", incoming.key), &mut faults).flatten();
        let time = kept(time(incoming.time), &mut faults).flatten();
        let data = incoming.data.unwrap_or(RawValue::NULL);
        let data = kept(compact(data).map_err(|error| (Some("data"), error.into())), &mut faults);
        let (Some(topic), Some(data), true) = (topic, data, faults.is_empty()) else {
            return Err(faults);
        };
        let event = Event {
            topic,
            id_is_ours: id.is_none(),
            id: id.unwrap_or_else(self.defaults.new_id),
            publisher: self.defaults.publisher.clone(),
            source: source.unwrap_or_else(|| self.defaults.source.into()),
            kind,
            time: time.unwrap_or_else(|| self.now.as_str().into()),
            key,
            data,
        };
        match self.limits.check(&event) {
            Ok(()) => Ok(event),
            Err(error) => Err(vec![(None, error.into())]),
        }
    }
}

fn kept<T>(result: Result<T, FieldFault>, faults: &mut Faults) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn attribute(field: &'static str, text: OptionalText<'_>) -> Result<Option<Box<str>>, FieldFault> {
    text.0.map(attribute_of).transpose().map_err(|fault| (Some(field), fault))
}

fn time(text: OptionalText<'_>) -> Result<Option<Box<str>>, FieldFault> {
    match text.0 {
        None => Ok(None),
        Some(text) if has_rfc3339_shape(&text) && parse_rfc3339(&text).is_ok() => {
            Ok(Some(text.into()))
        }
        Some(_) => Err((Some("time"), Fault::BadTime)),
    }
}

/// One item's fields, each with its type checked by itself.
fn incoming<'a>(item: &'a RawValue) -> Result<(EventText<'a>, Faults), Faults> {
    let kind = kind_of(item);
    if kind != "an object" {
        return Err(vec![(None, Fault::NotAnObject(kind))]);
    }
    // The item is valid JSON and an object: all that is left is a field that appears twice.
    let Object(fields): Object<RawFields<'_>> =
        serde_json::from_str(item.get()).map_err(|_| vec![(None, Fault::Repeated)])?;
    let mut faults = Vec::new();
    let mut text = |field: &'static str, raw: Option<&'a RawValue>| match raw {
        None => OptionalText(None),
        Some(raw) => {
            OptionalText(text_of(raw).map_err(|fault| faults.push((Some(field), fault))).ok())
        }
    };
    let incoming = EventText {
        topic: text("topic", fields.topic),
        id: text("id", fields.id),
        source: text("source", fields.source),
        kind: text("type", fields.kind),
        time: text("time", fields.time),
        key: text("key", fields.key),
        data: fields.data,
    };
    Ok((incoming, faults))
}

#[cfg(test)]
mod tests;
