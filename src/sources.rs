//! What the hub publishes by itself: its own numbers, and the proof that publishing works.

mod readiness;
mod vitals;

pub use readiness::{Readiness, State, listen};
pub use vitals::{Vitals, node_name};
