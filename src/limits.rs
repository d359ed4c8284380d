//! What one request, one connection and one principal may ask for.

use serde::Deserialize;

use crate::bytesize::ByteSize;

/// The `[limits]` section of the configuration; each is counted in
/// [`Limit`](crate::telemetry::Limit) when it is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's body, decompressed.
    pub body: ByteSize,
    /// Bytes of a request's body where little is needed.
    pub small_body: ByteSize,
    /// Bytes of all bodies that are being read or worked on.
    pub bodies: ByteSize,
    /// Bytes of all bodies of who has shown no credentials yet.
    pub stranger_bodies: ByteSize,
    /// Bytes of all answers that are not taken yet.
    pub answers: ByteSize,
    /// Bytes of one event.
    pub event: ByteSize,
    /// Events of one batch.
    pub batch: usize,
    /// Bytes of one message from a client on a socket.
    pub frame: ByteSize,
    /// Subscriptions of one connection.
    pub subscriptions: usize,
    /// Patterns of one subscription.
    pub patterns: usize,
    /// Events of one replay, and of one page of history.
    pub replay: usize,
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address.
    pub connections_per_address: usize,
    /// Sockets of one principal.
    pub connections_per_principal: usize,
    /// Different subscriptions of one principal, all connections together.
    pub views_per_principal: usize,
    /// Questions about series of one principal under way at a time.
    pub questions: usize,
    /// Messages a second from one client.
    pub messages_per_second: u32,
    /// Header lines of a request.
    pub headers: usize,
}
