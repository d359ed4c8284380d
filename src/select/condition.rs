//! Which events are meant: a `where` of the configuration.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{
    field::{Field, FieldError},
    number,
};
use crate::event::Record;

/// What must hold of an event, all of it; nothing holds of every event.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Condition(Vec<(Field, FieldTest)>);

/// What must hold of one field.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldTest {
    /// It is this.
    Is(Literal),
    /// It compares so.
    Compares(Comparison),
}

/// Comparisons, all of which must hold. Only numbers are above or below anything.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// It is not this.
    pub not: Option<Literal>,
    /// It is one of these.
    #[serde(rename = "in")]
    pub one_of: Option<Vec<Literal>>,
    /// It is more than this.
    pub above: Option<f64>,
    /// It is this or more.
    pub at_least: Option<f64>,
    /// It is less than this.
    pub below: Option<f64>,
    /// It is this or less.
    pub at_most: Option<f64>,
}

/// A value as the configuration has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// A text.
    Text(Box<str>),
    /// A number.
    Number(f64),
    /// True or false.
    Bool(bool),
}

impl Condition {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it holds of an event; None if the event lacks a field it asks for, so that nobody
    /// can tell. `data` is the event's payload.
    pub fn holds(&self, record: Record<'_>, data: &Value) -> Option<bool> {
        let mut holds = true;
        for (field, test) in &self.0 {
            holds &= test.holds(&*field.read(record, data)?);
        }
        Some(holds)
    }
}

impl FieldTest {
    fn holds(&self, value: &Value) -> bool {
        match self {
            FieldTest::Is(literal) => literal.is(value),
            FieldTest::Compares(comparison) => comparison.holds(value),
        }
    }
}

impl Comparison {
    fn holds(&self, value: &Value) -> bool {
        let is_numeric = |test: Option<f64>, compares: fn(&f64, &f64) -> bool| {
            test.is_none_or(|bound| number(value).is_some_and(|number| compares(&number, &bound)))
        };
        self.not.as_ref().is_none_or(|literal| !literal.is(value))
            && self.one_of.as_ref().is_none_or(|all| all.iter().any(|literal| literal.is(value)))
            && is_numeric(self.above, f64::gt)
            && is_numeric(self.at_least, f64::ge)
            && is_numeric(self.below, f64::lt)
            && is_numeric(self.at_most, f64::le)
    }
}

impl Literal {
    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Literal::Text(text), Value::String(value)) => **text == **value,
            (Literal::Bool(so), Value::Bool(value)) => so == value,
            (Literal::Number(number), Value::Number(value)) => value.as_f64() == Some(*number),
            _ => false,
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tests = BTreeMap::<String, FieldTest>::deserialize(deserializer)?;
        let parsed = tests.into_iter().map(|(field, test)| Ok((field.parse()?, test)));
        parsed.collect::<Result<_, FieldError>>().map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(FieldTestVisitor { takes_tables: false })? {
            FieldTest::Is(literal) => Ok(literal),
            FieldTest::Compares(_) => Err(de::Error::custom(EXPECTED)),
        }
    }
}

impl<'de> Deserialize<'de> for FieldTest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldTestVisitor { takes_tables: true })
    }
}

const EXPECTED: &str = "a text, a number, true or false";

/// Tells literals and comparisons apart by their kind of value, so that a mistake in either is told
/// as such.
struct FieldTestVisitor {
    takes_tables: bool,
}

impl<'de> de::Visitor<'de> for FieldTestVisitor {
    type Value = FieldTest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)?;
        if self.takes_tables {
            f.write_str(", or a comparison such as { above = 600 }")?;
        }
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<FieldTest, E> {
        Ok(FieldTest::Is(Literal::Text(text.into())))
    }

    fn visit_bool<E: de::Error>(self, so: bool) -> Result<FieldTest, E> {
        Ok(FieldTest::Is(Literal::Bool(so)))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<FieldTest, E> {
        self.visit_f64(number as f64)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<FieldTest, E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<FieldTest, E> {
        if number.is_finite() {
            return Ok(FieldTest::Is(Literal::Number(number)));
        }
        Err(E::invalid_value(de::Unexpected::Float(number), &self))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<FieldTest, A::Error> {
        if !self.takes_tables {
            return Err(de::Error::invalid_type(de::Unexpected::Map, &self));
        }
        let comparison = Comparison::deserialize(de::value::MapAccessDeserializer::new(map))?;
        if comparison == Comparison::default() {
            return Err(de::Error::custom(
                "compare with not, in, above, at_least, below or at_most",
            ));
        }
        Ok(FieldTest::Compares(comparison))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::block, *};
    use serde_json::json;

    fn parse(text: &str) -> Result<Condition, toml::de::Error> {
        toml::from_str(text)
    }

    fn holds(text: &str, data: &Value) -> Option<bool> {
        let block = block(&data.to_string());
        parse(text).unwrap().holds(block.record(0).unwrap(), data)
    }

    #[test]
    fn all_of_it_must_hold() {
        let data = json!({"status": "error", "duration": 700, "deep": {"on": true}, "text": "9"});
        for (text, wanted) in [
            ("", Some(true)),
            ("status = \"error\"", Some(true)),
            ("status = \"success\"", Some(false)),
            ("status = \"error\"\nduration = 700.0", Some(true)),
            ("status = \"error\"\nduration = 1", Some(false)),
            ("\"deep.on\" = true", Some(true)),
            ("\"@type\" = \"call.ended\"", Some(true)),
            ("duration = { above = 600 }", Some(true)),
            ("duration = { above = 700 }", Some(false)),
            ("duration = { at_least = 700, below = 701 }", Some(true)),
            ("duration = { at_most = 699.9 }", Some(false)),
            ("status = { in = [\"error\", \"failed\"] }", Some(true)),
            ("status = { not = \"error\" }", Some(false)),
            ("status = { above = 1 }", Some(false)),
            ("text = { above = 1 }", Some(false)),
            ("text = 9", Some(false)),
            ("missing = 1", None),
            ("missing = { not = 1 }", None),
        ] {
            assert_eq!(holds(text, &data), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_what_would_be() {
        for (text, message) in [
            ("status = { is = 1 }", "unknown field `is`"),
            ("status = {}", "compare with"),
            ("status = [1]", "or a comparison such as"),
            ("status = { in = [{}] }", "a text, a number"),
            ("status = nan", "or a comparison"),
            ("\"@when\" = 1", "@topic"),
            ("\"\" = 1", "a path within"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
