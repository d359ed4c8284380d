//! What one request, one connection and one principal may ask for.

use serde::Deserialize;

use crate::{bounds, bytesize::ByteSize};

/// A batch goes to Redis as one script, with at most eleven arguments an event, and Redis takes 1,048,576.
const LARGEST_BATCH: u64 = 50_000;

/// A batch in Redis is one block, of which 64 MiB can be read back: a body and what the hub adds to its events.
const LARGEST_BODY: u64 = 32 << 20;

/// The `[limits]` section of the configuration; each is counted in
/// [`Limit`](crate::telemetry::Limit) when it is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's body, decompressed.
    #[serde(deserialize_with = "bounds::within::<_, _, 1, LARGEST_BODY>")]
    pub body: ByteSize,
    /// Bytes of a request's body where little is needed.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1024>")]
    pub small_body: ByteSize,
    /// Bytes of all bodies that are being read or worked on.
    pub bodies: ByteSize,
    /// Bytes of all bodies of who has shown no credentials yet.
    pub stranger_bodies: ByteSize,
    /// Bytes of all answers that are not read yet.
    pub answers: ByteSize,
    /// Bytes of one event.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1024>")]
    pub event: ByteSize,
    /// Events of one batch.
    #[serde(deserialize_with = "bounds::within::<_, _, 1, LARGEST_BATCH>")]
    pub batch: usize,
    /// Bytes of one message from a client on a socket.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1024>")]
    pub frame: ByteSize,
    /// Subscriptions of one connection.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub subscriptions: usize,
    /// Patterns of one subscription.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub patterns: usize,
    /// Events of one replay, and of one page of history.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub replay: usize,
    /// Connections in all.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub connections: usize,
    /// Connections from one address.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub connections_per_address: usize,
    /// Sockets of one principal.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub connections_per_principal: usize,
    /// Different subscriptions of one principal, all connections together.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub views_per_principal: usize,
    /// Questions about series of one principal under way at a time.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub questions: usize,
    /// Messages a second from one client.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub messages_per_second: u32,
    /// Header lines of a request.
    #[serde(deserialize_with = "bounds::within::<_, _, 16, 1000>")]
    pub headers: usize,
}
