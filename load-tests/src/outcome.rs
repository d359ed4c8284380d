//! What came out of a scenario.

use crate::{result::Row, scenario::Scenario, server::Kind};

/// A scenario that was run.
pub(crate) struct Outcome {
    pub(crate) scenario: Scenario,
    pub(crate) rows: Vec<Row>,
    /// Servers that were left out, and why.
    pub(crate) absent: Vec<(Kind, String)>,
    /// What went wrong on the hub, on two nodes of it or on the floor: events lost, doubled, out of order, or a server that broke down.
    pub(crate) failures: Vec<String>,
}
