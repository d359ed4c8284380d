//! Ports for programs that have to be told theirs.

use std::net::TcpListener;

/// Below what systems give to outgoing connections (`net.ipv4.ip_local_port_range`): a port among those may be some
/// client's by the time that its server starts, or starts again.
const PORTS: std::ops::Range<u32> = 10_000..30_000;

/// A port on which nobody listens, another each time.
pub(crate) fn free_port() -> u16 {
    loop {
        let chance = getrandom::u32().unwrap() % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + chance).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
