//! What the hub publishes by itself: its own numbers and its machine's, the proof that publishing
//! works, and what it fetches from others.

mod config;
mod flext;
mod host;
mod readiness;
mod vitals;

use serde::Serialize;

pub use config::{
    Address, AddressError, Config, HostConfig, Kind, LEAST_INTERVAL, Name, NameError,
};
pub use flext::{Flext, proto as flext_proto};
pub use host::Host;
pub use readiness::{Readiness, State, listen};
pub use vitals::{Vitals, node_name};

use crate::{
    event::{Event, PublisherName, new_id},
    time::{Millis, rfc3339},
    topic::{Topic, TopicError},
};

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

/// An event of the hub's own making.
fn event(
    topic: &Topic,
    source: &str,
    kind: &str,
    key: Option<&str>,
    now: Millis,
    data: &impl Serialize,
) -> Result<Event, serde_json::Error> {
    Ok(Event {
        topic: topic.clone(),
        id: new_id(),
        id_is_ours: true,
        publisher: PublisherName::hub(),
        source: source.into(),
        kind: Some(kind.into()),
        time: rfc3339(now).into(),
        key: key.map(Into::into),
        data: serde_json::value::to_raw_value(data)?,
    })
}
