//! What is shown of a FLEXT daemon, each kind of thing on a topic of its own.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    event::METRICS,
    sources::SourceConfig,
    topic::{Topic, TopicError},
};

/// A kind of thing that is shown, each on a topic of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum FlextTopic {
    Stats,
    Health,
    Executions,
    Source,
}

impl FlextTopic {
    pub(super) const ALL: [Self; 4] = [Self::Stats, Self::Health, Self::Executions, Self::Source];

    /// The last word of its topic.
    pub(super) fn name(self) -> &'static str {
        match self {
            FlextTopic::Stats => "stats",
            FlextTopic::Health => "health",
            FlextTopic::Executions => "executions",
            FlextTopic::Source => "source",
        }
    }

    /// The `type` of its events.
    pub(super) fn kind(self) -> &'static str {
        match self {
            FlextTopic::Stats => METRICS,
            FlextTopic::Health => "flext.health",
            FlextTopic::Executions => "flext.execution",
            FlextTopic::Source => "flext.source",
        }
    }
}

/// Where each of them is published.
pub(super) fn topics(config: &SourceConfig) -> Result<BTreeMap<FlextTopic, Topic>, TopicError> {
    FlextTopic::ALL.into_iter().map(|what| Ok((what, config.topic_of(what.name())?))).collect()
}

/// Where the source of `config` publishes.
pub(in crate::sources) fn own_topics(
    config: &SourceConfig,
) -> Result<impl Iterator<Item = Topic> + use<>, TopicError> {
    Ok(topics(config)?.into_values())
}

/// When a daemon looked at its health is no change of it.
pub(super) fn is_same(what: FlextTopic, one: &Value, other: &Value) -> bool {
    if what != FlextTopic::Health {
        return one == other;
    }
    let without = |value: &Value| {
        let mut value = value.clone();
        value.as_object_mut().map(|object| object.remove("timestamp"));
        value
    };
    without(one) == without(other)
}
