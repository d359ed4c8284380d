//! What can be set about projections, and the files that come with the hub.

use serde::Deserialize;

use super::configured_topics::ConfiguredTopics;
use crate::{series::derive, text::read_as_text, time::Span, topic::Topic};

/// The `[projections]` section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionsConfig {
    /// Which of the files that come with the hub are in force.
    pub shipped: Vec<String>,
    /// How often a projection is published at most, each second.
    pub max_hz: f64,
}

/// One `[[projection]]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionConfig {
    /// Where it is published; who may subscribe there may read it everywhere.
    pub topic: Topic,
    /// Where it is answered to GET.
    pub path: Option<Path>,
    /// Where a WebSocket gets it, the newest at once and then each change.
    pub socket: Option<Path>,
    /// What tells whether its values are still good.
    pub freshness: Option<FreshnessConfig>,
    /// Its JSON.
    pub shape: toml::Value,
}

/// What tells whether values are still good.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreshnessConfig {
    /// Where the values come from.
    pub(super) of: ConfiguredTopics,
    /// Where whoever fetches them tells whether that works: `{"ok":false,"error":"…"}`.
    pub(super) source: Option<ConfiguredTopics>,
    /// How long what was said counts, the values and the words about them.
    pub(super) silent_after: Span,
    /// What GET answers with while they are not good, instead of 200.
    pub(super) status: Option<u16>,
}

/// A path of a projection's own: `/` and words of `A-Z a-z 0-9 _ - . ~`, perhaps a `/` at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(String);

/// A file of derived values and projections that comes with the hub.
pub(super) struct Shipped {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

/// The files there are.
pub(super) const SHIPPED: [Shipped; 2] = [
    Shipped { name: "voicehive", text: include_str!("../../config/voicehive.toml") },
    Shipped { name: "flext", text: include_str!("../../config/flext.toml") },
];

/// What such a file holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) derive: Vec<derive::DeriveConfig>,
    #[serde(default)]
    pub(super) projection: Vec<ProjectionConfig>,
}

const LONGEST_PATH: usize = 200;

impl Path {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.~".contains(c);
        let inner = text.strip_prefix('/').ok_or(PathError)?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let is_word = |word: &str| !matches!(word, "" | "." | "..") && word.chars().all(is_plain);
        if text.len() > LONGEST_PATH || !inner.split('/').all(is_word) {
            return Err(PathError);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A text that is no path for a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a path looks like /api/shop/summary, made of A-Z a-z 0-9 _ - . ~ between its slashes")]
pub struct PathError;

read_as_text!(Path);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_plain() {
        for good in ["/a", "/api/stats/", "/api/shop/v1.2~x"] {
            assert!(good.parse::<Path>().is_ok(), "{good}");
        }
        let long = format!("/{}", "a".repeat(200));
        for bad in ["", "/", "//", "a", "/a//b", "/{app}/x", "/*x", "/a/../b", "/ä", "/a?b", &long]
        {
            assert_eq!(bad.parse::<Path>(), Err(PathError), "{bad}");
        }
    }
}
