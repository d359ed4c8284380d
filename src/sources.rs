//! What the hub fetches from others and publishes.

mod config;
mod flext;

pub use config::{
    DaemonAddress, DaemonAddressError, LEAST_INTERVAL, SourceConfig, SourceKind, SourceName,
    SourceNameError,
};
pub use flext::{Flext, proto as flext_proto};

use crate::topic::{Topic, TopicError};

/// Where a source publishes, and nobody else.
pub fn topics(source: &SourceConfig) -> Result<Vec<Topic>, TopicError> {
    match source.kind {
        SourceKind::FlextGrpc => Ok(flext::own_topics(source)?.collect()),
    }
}
