//! Which events are meant, and where in an event something stands: the `where` and the `field` of the configuration.

mod condition;
mod field;

use serde_json::Value;

pub use self::{
    condition::{Comparison, Condition, FieldTest, Literal},
    field::{Attribute, Field, FieldError},
};

/// A number as it is compared and counted: a boolean is 0 or 1, a text is none.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(so) => Some(if *so { 1.0 } else { 0.0 }),
        value => value.as_f64().filter(|number| number.is_finite()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use serde_json::value::RawValue;

    use crate::{
        event::{Block, BlockBuilder, Event, PublisherName},
        topic::Topic,
    };

    /// An event with these data.
    pub(crate) fn block(data: &str) -> Arc<Block> {
        let mut builder = BlockBuilder::default();
        let event = Event {
            topic: Topic::parse("a.calls").unwrap(),
            id: "i1".into(),
            id_is_ours: false,
            publisher: PublisherName::hub(),
            source: "s".into(),
            kind: Some("call.ended".into()),
            time: "2026-11-20T12:00:00Z".into(),
            key: Some("line \"7\"".into()),
            data: RawValue::from_string(data.to_owned()).unwrap(),
        };
        builder.push(7, 1000, &event);
        builder.finish()
    }
}
