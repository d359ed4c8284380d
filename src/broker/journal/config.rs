//! What can be set about the journal, and how long it keeps what.

use serde::Deserialize;

use crate::{
    bounds,
    bytesize::ByteSize,
    time::{Millis, Span},
    topic::{TopicFilter, TopicPattern},
};

/// The `[journal]` section of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    /// What a stored event survives.
    pub sync: Sync,
    /// How long events are kept whose topic has no rule of its own.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::SECOND }>")]
    pub max_age: Span,
    /// The most stored (compressed) event bytes in all; the oldest go first.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { 1 << 20 }>")]
    pub max_bytes: ByteSize,
    /// Kept free on the disk, in bytes, so that old events can be deleted when it is full.
    pub reserve: ByteSize,
    /// Rules for some topics; a topic goes by the first that matches it.
    #[serde(default)]
    pub retention: Vec<RetentionRule>,
    /// How long a repeated (publisher, topic, source, id) is recognised.
    pub dedupe_window: Span,
    /// The most ids remembered within that window; the oldest are forgotten first.
    pub dedupe_ids: usize,
    /// The most keys of one topic in `latest`; those unchanged for longest are dropped.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub latest_keys: usize,
    /// The most topics in the log; a batch that needs more is refused.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub max_topics: usize,
    /// Decoded recent events kept in memory, in bytes.
    pub recent_bytes: ByteSize,
    /// The most bytes of events waiting to be stored.
    pub queue_bytes: ByteSize,
    /// How long a publish waits for room in that queue before it is refused.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::MOMENT }>")]
    pub queue_timeout: Span,
}

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// When the disk has it: it survives a power loss.
    Full,
    /// When the kernel has it: it survives the end of the process, not a power loss.
    Normal,
}

/// How long some topics are kept; may be shorter or longer than `max_age` for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// The topics it is for.
    pub topics: Vec<TopicPattern>,
    /// How long their events are kept; without it, as long as all others.
    pub max_age: Option<Span>,
    /// The most bytes of outward JSON kept for each of these topics; the oldest events go first.
    pub max_bytes: Option<ByteSize>,
}

/// The retention rules in the order they are tried; the last is the global one.
#[derive(Debug)]
pub(in crate::broker) struct RetentionRules(pub(in crate::broker) Vec<RetentionLimits>);

#[derive(Debug)]
pub(in crate::broker) struct RetentionLimits {
    pub(in crate::broker) filter: Option<TopicFilter>,
    pub(in crate::broker) max_age: Millis,
    pub(in crate::broker) max_bytes: Option<u64>,
}

impl RetentionRules {
    pub(in crate::broker) fn new(config: &JournalConfig) -> Self {
        let global = config.max_age.millis();
        let mut rules: Vec<RetentionLimits> = config
            .retention
            .iter()
            .map(|rule| RetentionLimits {
                filter: Some(TopicFilter::new(rule.topics.iter().cloned())),
                max_age: rule.max_age.map_or(global, Span::millis),
                max_bytes: rule.max_bytes.map(|bytes| bytes.0),
            })
            .collect();
        rules.push(RetentionLimits { filter: None, max_age: global, max_bytes: None });
        Self(rules)
    }

    /// The number of the rule for `topic`.
    pub(in crate::broker) fn of(&self, topic: &str) -> usize {
        let matches = |rule: &RetentionLimits| {
            rule.filter.as_ref().is_none_or(|filter| filter.matches(topic))
        };
        self.0.iter().position(matches).unwrap_or(self.0.len() - 1)
    }

    pub(in crate::broker) fn max_age(&self, rule: usize) -> Millis {
        self.0.get(rule).map_or(Millis::MAX, |rule| rule.max_age)
    }

    /// Changes whenever a rule does, so that a file knows whether it was kept under these.
    pub(in crate::broker) fn fingerprint(&self) -> String {
        format!("{:?}", self.0)
    }
}
