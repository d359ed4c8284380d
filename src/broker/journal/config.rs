//! What can be set about the journal, and how long it keeps what.

use serde::Deserialize;

use crate::{bytesize::ByteSize, time::Span, topic::TopicPattern};

/// The `[journal]` section of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What a stored event survives.
    pub sync: Sync,
    /// How long events are kept whose topic has no rule of its own.
    pub max_age: Span,
    /// The most stored (compressed) event bytes in all; the oldest go first.
    pub max_bytes: ByteSize,
    /// Rules for some topics; a topic goes by the first that matches it.
    pub retention: Vec<RetentionRule>,
    /// How long a repeated (topic, source, id) is recognised.
    pub dedupe_window: Span,
    /// The most ids remembered within that window; the oldest are forgotten first.
    pub dedupe_ids: usize,
    /// The most keys of one topic in `latest`; those unchanged for longest are dropped.
    pub latest_keys: usize,
    /// The most topics in the log; a batch that needs more is refused.
    pub max_topics: usize,
    /// Decoded recent events kept in memory, in bytes.
    pub recent_bytes: ByteSize,
    /// The most bytes of events waiting to be stored.
    pub queue_bytes: ByteSize,
    /// How long a publish waits for room in that queue before it is refused.
    pub queue_timeout: Span,
    /// How often retention, merging and the caps are looked after.
    pub upkeep_interval: Span,
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
    #[serde(default)]
    pub max_age: Option<Span>,
    /// The most bytes of outward JSON kept for each of these topics; the oldest events go first.
    #[serde(default)]
    pub max_bytes: Option<ByteSize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sync: Sync::Full,
            max_age: Span::seconds(24 * 3600),
            max_bytes: ByteSize::gib(1),
            retention: Vec::new(),
            dedupe_window: Span::seconds(120),
            dedupe_ids: 1_000_000,
            latest_keys: 10_000,
            max_topics: 1_000_000,
            recent_bytes: ByteSize::mib(16),
            queue_bytes: ByteSize::mib(64),
            queue_timeout: Span::seconds(2),
            upkeep_interval: Span::seconds(1),
        }
    }
}
