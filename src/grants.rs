//! Which topics somebody may read and write.

use serde::{Deserialize, Serialize};

use crate::topic::TopicPattern;

/// Patterns to subscribe and to publish to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Patterns to subscribe to.
    pub subscribe: Vec<TopicPattern>,
    /// Patterns to publish to.
    pub publish: Vec<TopicPattern>,
}
