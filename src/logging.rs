//! What the hub says about itself, on standard error.

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The `[log]` section of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggingConfig {
    /// How much to say.
    pub level: Level,
    /// For whom.
    pub format: LogFormat,
}

/// For whom a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// People.
    Text,
    /// Machines: one JSON object to a line.
    Json,
}

/// How much to say: a level, or levels by module, in the syntax of `tracing_subscriber::EnvFilter`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Level(String);

impl TryFrom<String> for Level {
    type Error = LevelError;

    fn try_from(text: String) -> Result<Self, LevelError> {
        // The library takes any single word for a module's name, and "verbose" would mean silence.
        let known = ["off", "error", "warn", "info", "debug", "trace"];
        let is_known = |part: &str| match part.rsplit_once('=') {
            Some((_, level)) => known.contains(&level),
            None => known.contains(&part),
        };
        if text.split(',').all(is_known) && EnvFilter::try_new(&text).is_ok() {
            Ok(Self(text))
        } else {
            Err(LevelError(text))
        }
    }
}

/// A text that is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no level: write error, warn, info, debug or trace, or such as info,pulsehub::http=debug"
)]
pub struct LevelError(String);

/// Starts writing the log. Nothing happens if the process has one already, as under test.
pub fn start(config: &LoggingConfig) {
    // `Level` is checked where it is made.
    let filter = EnvFilter::try_new(&config.level.0).unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let mut lines = fmt::layer().with_writer(std::io::stderr);
    if !std::io::stderr().is_terminal() {
        lines.set_ansi(false); // in a file colours are noise; at a terminal NO_COLOR has its say
    }
    let _ = match config.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
}

/// The innermost reason of a failure, which is the one that helps.
pub fn cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_of_the_known_words() {
        for good in ["info", "warn,pulsehub::http=debug", "off"] {
            assert!(Level::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "verbose", "info,", "pulsehub=loud", "INFO=x"] {
            assert!(Level::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
