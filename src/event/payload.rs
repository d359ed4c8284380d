//! An event's payload as a value.

use std::collections::BTreeMap;

use serde_json::{Value, value::RawValue};

use super::Record;
use crate::json::MemberName;

/// The payload of an event. A number that is too large for any program is null, as is a text that is no Unicode,
/// and everything beside it is there.
pub fn payload(record: Record<'_>) -> Value {
    // What the log holds is JSON, and not deeper than can be read.
    serde_json::from_slice(record.data())
        .or_else(|_| serde_json::from_slice(record.data()).map(leniently))
        .unwrap_or_default()
}

fn leniently(raw: &RawValue) -> Value {
    let text = raw.get();
    let read = match text.as_bytes().first() {
        Some(b'{') => {
            serde_json::from_str::<BTreeMap<MemberName<'_>, &RawValue>>(text).map(|members| {
                let members = members.into_iter();
                members.map(|(name, value)| (name.0.into_owned(), leniently(value))).collect()
            })
        }
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text)
            .map(|items| items.into_iter().map(leniently).collect()),
        _ => serde_json::from_str(text),
    };
    read.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{BlockBuilder, Event, PublisherName},
        topic::Topic,
    };
    use serde_json::json;

    #[test]
    fn one_number_too_large_does_not_cost_the_others() {
        let data = r#"{"\ud800":1,"a":[1,1e999,{"b":"x"}],"c":-1e999,"d":"\ud800","e":2}"#;
        let event = Event {
            topic: Topic::parse("a").unwrap(),
            id: "i".into(),
            id_is_ours: false,
            publisher: PublisherName::hub(),
            source: "s".into(),
            kind: None,
            time: "2026-11-20T12:00:00Z".into(),
            key: None,
            data: RawValue::from_string(data.to_owned()).unwrap(),
        };
        let mut builder = BlockBuilder::default();
        builder.push(1, 0, &event);
        let read = payload(builder.finish().record(0).unwrap());
        assert_eq!(read["a"], json!([1, null, {"b": "x"}]));
        assert_eq!((&read["c"], &read["e"]), (&json!(null), &json!(2)));
    }
}
