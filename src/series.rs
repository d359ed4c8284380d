//! Numbers over time, made of events.

pub mod derive;
