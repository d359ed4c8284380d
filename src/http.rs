//! The HTTP side.

mod config;
mod error;
pub mod server;

pub use config::{Config, Origin, SocketConfig};
