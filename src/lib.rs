//! pulsehub: publish over HTTP, stream over an authenticated WebSocket, replay, resume.
//!
//! docs/architecture.md tells the ideas and walks through the code.

pub mod broker;
pub mod bytesize;
pub mod event;
pub mod ingest;
pub mod position;
pub mod protocol;
pub mod telemetry;
pub mod time;
pub mod topic;
