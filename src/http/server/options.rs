//! How the server treats its connections: times, bounds, and who is a proxy.

use std::{net::IpAddr, sync::Arc, time::Duration};

use crate::http::Network;

/// How the server treats its connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at a time, including sockets; a further one is answered 503.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_per_address: usize,
    /// Header lines of a request; one with more is answered 431.
    pub max_headers: usize,
    /// Proxies that are believed.
    pub trusted_proxies: Arc<[Network]>,
    /// Whether their connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Time for a request's headers to arrive, and for the first request of a connection.
    pub header_timeout: Duration,
    /// Time for the next request of a connection.
    pub idle_timeout: Duration,
    /// Time for a peer to take the next piece of an answer.
    pub write_timeout: Duration,
    /// Time for requests under way to end once the server stops.
    pub drain: Duration,
}

impl Options {
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }
}
