//! Every message of the socket, its error codes and close codes; docs/protocol.md in types.

mod client;
mod close;
mod error;
mod losses;
mod server;
pub mod wire;

pub use client::{
    ClientMessage, Connect, MessageError, MessageId, Mode, Publish, Replay, Subscribe,
};
pub use close::CloseCode;
pub use error::ErrorCode;
pub use losses::Losses;
pub use server::{ConnectionLimits, GapReason, ServerMessage, SubscribedStart};

/// The subprotocol this hub speaks.
pub const SUBPROTOCOL: &str = "hub.v1";
/// Before a base64url-encoded token, offered beside [`SUBPROTOCOL`] by browsers, which cannot set headers.
pub const BEARER_SUBPROTOCOL: &str = "base64url.bearer.";
