//! Topics as the configuration names them.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::topic::{TopicFilter, TopicPattern};

/// Names of topics as the configuration has them: one pattern or several.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConfiguredTopics(pub(super) TopicFilter);

impl<'de> Deserialize<'de> for ConfiguredTopics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TopicsVisitor)
    }
}

struct TopicsVisitor;

impl<'de> de::Visitor<'de> for TopicsVisitor {
    type Value = ConfiguredTopics;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a topic pattern, or a list of at least one")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ConfiguredTopics, E> {
        let pattern = TopicPattern::parse(text).map_err(E::custom)?;
        Ok(ConfiguredTopics(TopicFilter::new([pattern])))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<ConfiguredTopics, A::Error> {
        let mut patterns: Vec<TopicPattern> = Vec::new();
        while let Some(pattern) = items.next_element()? {
            patterns.push(pattern);
        }
        if patterns.is_empty() {
            return Err(de::Error::invalid_length(0, &self));
        }
        Ok(ConfiguredTopics(TopicFilter::new(patterns)))
    }
}
