//! The HTTP side.

mod config;
pub mod server;

pub use config::{Config, Origin, SocketConfig};
