//! The HTTP side.

mod config;
mod error;
mod handshake;
pub mod server;
mod socket;
mod sse;
pub mod websocket;

pub use config::{Config, Origin};
