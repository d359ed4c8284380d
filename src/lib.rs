//! pulsehub: publish over HTTP, stream over an authenticated WebSocket, replay, resume.
//!
//! docs/architecture.md tells the ideas and walks through the code.

pub mod access;
pub mod admission;
pub mod app;
pub mod auth;
pub mod backoff;
pub mod broker;
pub mod bytesize;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connections;
pub mod demo;
pub mod descriptors;
pub mod dialect;
pub mod drain;
pub mod duty;
pub mod event;
pub mod follow;
pub mod grants;
pub mod http;
pub mod hub;
pub mod id;
pub mod ingest;
pub mod instances;
pub mod json;
pub mod lease;
pub mod limits;
pub mod logging;
pub mod position;
pub mod projections;
pub mod protocol;
pub mod redis;
pub mod series;
pub mod session;
pub mod sources;
pub mod sqlite;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod time;
pub mod topic;
pub mod turns;
pub mod vitals;
pub mod wording;
