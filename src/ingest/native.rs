//! The hub's own format: one event object, an array of them, or one to a line (NDJSON).
//!
//! A good batch is read in one pass that borrows from the body. Only when that fails is the body
//! read a second time, event by event, to tell everything that is wrong with it.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{BadItem, Bounds, Defaults, Fault, Refusal};
use crate::{
    event::{Event, MAX_ATTRIBUTE_BYTES, compact},
    time::{parse_rfc3339, rfc3339},
    topic::Topic,
};

/// How the events stand in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object, or an array of objects; the first byte tells.
    Json,
    /// One object to a line; blank lines are passed over.
    Lines,
}

/// Reads a whole batch, or says everything that keeps it from being taken.
///
/// Topics of the hub itself are read like others; whether the caller may publish there is asked later.
pub fn read(
    body: &[u8],
    format: Format,
    defaults: &Defaults<'_>,
    bounds: &Bounds,
) -> Result<Vec<Event>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|error| not_utf8(body, error.valid_up_to()))?;
    let context = Context { defaults, bounds, now: rfc3339(defaults.now) };
    match split::<Incoming<'_>>(text, format, bounds) {
        Ok(items) => {
            let events = items.into_iter().map(|item| context.event(item, Vec::new()));
            if let Ok(events) = events.collect() {
                return Ok(events);
            }
        }
        Err(Refusal::Malformed { .. }) => {} // or only a field of the wrong type
        Err(refusal) => return Err(refusal),
    }
    context.examine(split(text, format, bounds)?)
}

/// The batch's items; `Malformed` also if one of them is no `T`.
fn split<'a, T: Deserialize<'a>>(
    text: &'a str,
    format: Format,
    bounds: &Bounds,
) -> Result<Vec<T>, Refusal> {
    let content = text.trim_start_matches(is_space);
    let items = match format {
        Format::Lines => lines(text, bounds.batch)?,
        Format::Json if content.starts_with('[') => {
            let mut reader = serde_json::Deserializer::from_str(text);
            let items = AtMost(bounds.batch, PhantomData).deserialize(&mut reader);
            let items = items.and_then(|items| reader.end().map(|()| items));
            let items = items.map_err(|error| malformed(0, &error))?;
            items.ok_or(Refusal::TooMany { limit: bounds.batch })?
        }
        Format::Json if content.is_empty() => Vec::new(),
        Format::Json => vec![serde_json::from_str(text).map_err(|error| malformed(0, &error))?],
    };
    if items.is_empty() { Err(Refusal::Empty) } else { Ok(items) }
}

fn lines<'a, T: Deserialize<'a>>(text: &'a str, limit: usize) -> Result<Vec<T>, Refusal> {
    let mut items = Vec::new();
    for (above, line) in text.split('\n').enumerate() {
        if line.trim_matches(is_space).is_empty() {
            continue;
        }
        if items.len() == limit {
            return Err(Refusal::TooMany { limit });
        }
        items.push(serde_json::from_str(line).map_err(|error| malformed(above, &error))?);
    }
    Ok(items)
}

/// `above` is the number of lines before those that were read.
fn malformed(above: usize, error: &serde_json::Error) -> Refusal {
    let whole = error.to_string();
    let message = whole.split(" at line ").next().unwrap_or_default().to_owned();
    Refusal::Malformed { line: above + error.line(), column: error.column().max(1), message }
}

fn not_utf8(body: &[u8], at: usize) -> Refusal {
    let before = &body[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Refusal::Malformed {
        line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
        column: at - line_start + 1,
        message: "the bytes are not UTF-8".to_owned(),
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// An array of at most so many items, `None` if it has more: a body of a few MiB can hold
/// millions of empty objects, which would take a hundred times its size.
struct AtMost<T>(usize, PhantomData<T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for AtMost<T> {
    type Value = Option<Vec<T>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut taken = Vec::new();
        while taken.len() < self.0 {
            match items.next_element()? {
                Some(item) => taken.push(item),
                None => return Ok(Some(taken)),
            }
        }
        let mut over = false;
        while items.next_element::<IgnoredAny>()?.is_some() {
            over = true;
        }
        Ok((!over).then_some(taken))
    }
}

/// An event as it came, nothing looked at but the types.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow, default)]
    topic: Text<'a>,
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    source: Text<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    time: Text<'a>,
    #[serde(borrow, default)]
    key: Text<'a>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// The same with nothing looked at at all.
#[derive(Deserialize)]
struct Fields<'a> {
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
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Text<'de>, E> {
                Ok(Text(None))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

struct Context<'a> {
    defaults: &'a Defaults<'a>,
    bounds: &'a Bounds,
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
    fn event(&self, incoming: Incoming<'_>, mut faults: Faults) -> Result<Event, Faults> {
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
            source: source.unwrap_or_else(|| self.defaults.source.into()),
            kind,
            time: time.unwrap_or_else(|| self.now.as_str().into()),
            key,
            data,
        };
        match size(&event) {
            bytes if bytes > self.bounds.event => {
                Err(vec![(None, Fault::TooLarge { bytes, limit: self.bounds.event })])
            }
            _ => Ok(event),
        }
    }
}

fn kept<T>(result: Result<T, FieldFault>, faults: &mut Faults) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn attribute(field: &'static str, text: Text<'_>) -> Result<Option<Box<str>>, FieldFault> {
    match text.0 {
        None => Ok(None),
        Some(text) if text.is_empty() => Err((Some(field), Fault::Blank)),
        Some(text) if text.len() > MAX_ATTRIBUTE_BYTES => {
            Err((Some(field), Fault::TooLong(text.len())))
        }
        Some(text) => Ok(Some(text.into())),
    }
}

fn time(text: Text<'_>) -> Result<Option<Box<str>>, FieldFault> {
    match text.0 {
        None => Ok(None),
        Some(text) if has_rfc3339_shape(&text) && parse_rfc3339(&text).is_ok() => {
            Ok(Some(text.into()))
        }
        Some(_) => Err((Some("time"), Fault::BadTime)),
    }
}

/// RFC 3339 section 5.6. The library reads much more than that (ISO 8601's basic form, zones in
/// brackets), which most receivers would not.
fn has_rfc3339_shape(text: &str) -> bool {
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let fits = |part: &[u8], shape: &[u8]| {
        part.len() == shape.len()
            && part.iter().zip(shape).all(|(byte, want)| match want {
                b'0' => byte.is_ascii_digit(),
                want => byte.eq_ignore_ascii_case(want),
            })
    };
    let Some((date_time, rest)) = text.as_bytes().split_at_checked(19) else { return false };
    let (fraction, zone) = match rest.iter().position(|byte| !matches!(byte, b'.' | b'0'..=b'9')) {
        Some(at) => rest.split_at(at),
        None => return false,
    };
    fits(date_time, b"0000-00-00T00:00:00")
        && (fraction.is_empty() || fraction[0] == b'.' && digits(&fraction[1..]))
        && (fits(zone, b"Z") || fits(zone, b"+00:00") || fits(zone, b"-00:00"))
}

fn size(event: &Event) -> usize {
    let length = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
    event.topic.as_str().len()
        + event.id.len()
        + event.source.len()
        + length(&event.kind)
        + event.time.len()
        + length(&event.key)
        + event.data.get().len()
}

/// One item's fields, each with its type checked by itself.
fn incoming<'a>(item: &'a RawValue) -> Result<(Incoming<'a>, Faults), Faults> {
    let kind = kind_of(item);
    if kind != "an object" {
        return Err(vec![(None, Fault::NotAnObject(kind))]);
    }
    // The item is valid JSON and an object: all that is left is a field that appears twice.
    let fields: Fields<'_> =
        serde_json::from_str(item.get()).map_err(|_| vec![(None, Fault::Repeated)])?;
    let mut faults = Vec::new();
    let mut text = |field: &'static str, raw: Option<&'a RawValue>| match raw {
        None => Text(None),
        Some(raw) => serde_json::from_str(raw.get()).unwrap_or_else(|_| {
            let kind = kind_of(raw);
            let fault = if kind == "a string" { Fault::BadEscape } else { Fault::NotText(kind) };
            faults.push((Some(field), fault));
            Text(None)
        }),
    };
    let incoming = Incoming {
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

fn kind_of(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests;
