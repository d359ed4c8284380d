//! The hub's settings.

use serde::Deserialize;

use crate::bytesize::ByteSize;

/// The `[hub]` section of the configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Ready-made frames kept for each View.
    pub tail_bytes: ByteSize,
    /// History read at a time for one cursor.
    pub chunk_bytes: ByteSize,
    /// The most keys of one View in mode `latest`.
    pub latest_keys: usize,
    /// Frames a second in mode `latest` for who asks for no rate.
    pub max_hz: f64,
}

/// The most frames a second that can be asked for.
pub const HIGHEST_HZ: f64 = 60.0;
