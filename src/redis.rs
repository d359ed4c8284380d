//! Connections to Redis: where it is, how long an answer may take, and what a failure means.

mod address;
mod check;
mod link;

use serde::Deserialize;

pub use self::{
    address::{RedisAddressError, Server},
    check::{RedisOpenError, ask_version, check, is_behind, refuse_version, set_version},
    link::{Link, RanOn, RedisFailure, backoff},
};
use crate::{bounds, time::Span};

/// The `[cluster]` section of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// What the names of all keys begin with.
    pub prefix: String,
    /// How long Redis may take for an answer, or for taking a connection.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::MOMENT }>")]
    pub timeout: Span,
    /// How many replicas have an event, or what was taken back, before that is answered.
    pub replicas: u32,
}

/// The names of keys; all have one hash tag, so that they are in one slot.
#[derive(Debug, Clone)]
pub struct Keys(String);

impl Keys {
    /// Keys that begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self(format!("{{{prefix}}}:"))
    }

    /// The key called `name`.
    pub fn of(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }
}
