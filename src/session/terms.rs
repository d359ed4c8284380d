//! What all sessions go by.

use serde::Deserialize;

use crate::{
    admission::Admission, auth::Principal, bounds, connections::Connections, hub::Owner,
    limits::Limits, telemetry::Telemetry, time::Span,
};

/// The `[socket]` section of the configuration.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketConfig {
    /// Time for the first message.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::MOMENT }>")]
    pub connect_timeout: Span,
    /// Time between pings.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::SECOND }>")]
    pub ping: Span,
    /// Time for the answer to a ping.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::MOMENT }>")]
    pub pong_timeout: Span,
    /// Time for a write.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::MOMENT }>")]
    pub write_timeout: Span,
}

/// What all sessions have in common.
#[derive(Clone)]
pub struct Terms {
    /// Times.
    pub config: SocketConfig,
    /// Limits.
    pub limits: Limits,
    /// Where limits and refusals are counted.
    pub telemetry: Telemetry,
    /// Who may publish what.
    pub admission: Admission,
    /// All of them.
    pub connections: Connections,
}

impl Terms {
    /// Whose a subscription of `principal` is, and how many different ones they may have.
    pub fn owner(&self, principal: &Principal) -> Owner {
        Owner { identity: principal.identity().clone(), most: self.limits.views_per_principal }
    }
}
