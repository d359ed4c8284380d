//! What the hub publishes by itself: its own numbers and its machine's, the proof that publishing
//! works, and what it fetches from others.

mod config;
mod flext;
mod host;
mod readiness;
mod vitals;

pub use config::{
    Address, AddressError, Config, HostConfig, Kind, LEAST_INTERVAL, Name, NameError,
};
pub use flext::{Flext, proto as flext_proto};
pub use host::Host;
pub use readiness::{Readiness, State, listen};
pub use vitals::{Vitals, node_name};

use crate::topic::{Topic, TopicError};

/// Where the hub's own numbers go.
const OWN_NUMBERS: &str = "hub.metrics";
/// The `type` of an event whose numbers become series.
const METRICS: &str = "metrics";

/// Where a source publishes, and nobody else.
pub fn topics(source: &Config) -> Result<Vec<Topic>, TopicError> {
    match source.kind {
        Kind::FlextGrpc => Ok(flext::own_topics(source)?.collect()),
    }
}
