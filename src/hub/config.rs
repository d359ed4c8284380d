//! What can be set about the hub.

use serde::{Deserialize, Deserializer, de};

use crate::{bounds, bytesize::ByteSize};

/// The highest `max_hz` a subscription may ask for.
pub const HIGHEST_HZ: f64 = 60.0;

fn pace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let hz = f64::deserialize(deserializer)?;
    if (0.01..=HIGHEST_HZ).contains(&hz) {
        return Ok(hz);
    }
    Err(de::Error::custom(format!("must be from 0.01 to {HIGHEST_HZ}")))
}

/// How much the hub keeps ready; the `[hub]` section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubConfig {
    /// Ready-made frames and newest values of all views together; older ones are read from the log again.
    pub tail_bytes: ByteSize,
    /// One frame of history, and so what a slow reader holds of it.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1024>")]
    pub chunk_bytes: ByteSize,
    /// History looked through for the last `n` events, beside what is in memory.
    pub replay_bytes: ByteSize,
    /// Values one view in mode `latest` keeps ready.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub latest_keys: usize,
    /// Their bytes.
    pub latest_bytes: ByteSize,
    /// Frames a second in mode `latest` for a subscription that does not say.
    #[serde(deserialize_with = "pace")]
    pub max_hz: f64,
}
