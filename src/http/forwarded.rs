//! Where a request comes from if there are proxies in between: what the trusted ones say.
//!
//! Each proxy appends the address that it was asked from. So the list is read from its end while the address read so
//! far is that of a trusted proxy. Earlier entries may have been made up by the client.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;
use serde::Deserialize;

/// A network of addresses: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is of this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        let address = text.parse::<IpAddr>().map(IpNet::from).ok();
        address.or_else(|| text.parse().ok()).map(Self).ok_or(NetworkError(text))
    }
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no network: write an address and its bits, such as 10.0.0.0/8 or fd00::/8, or one address"
)]
pub struct NetworkError(String);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client behind a connection from `peer`; the port is 0 if a proxy did not say it.
///
/// `Forwarded` (RFC 7239) and `X-Forwarded-For` are equal. A proxy that sets one of them passes the other on as the
/// client sent it. If the two differ, neither is believed, and the request counts as the proxy's own.
pub(super) fn client(peer: SocketAddr, headers: &HeaderMap, trusted: &[Network]) -> SocketAddr {
    let is_trusted = |hop: SocketAddr| trusted.iter().any(|network| network.contains(hop.ip()));
    if !is_trusted(peer) {
        return peer;
    }
    let named = |name: HeaderName, hops: fn(&str) -> Option<Vec<Option<SocketAddr>>>| {
        headers.contains_key(&name).then(|| walk(peer, headers, &name, hops, is_trusted))
    };
    match (named(header::FORWARDED, forwarded), named(X_FORWARDED_FOR, x_forwarded_for)) {
        (Some(one), Some(other)) if one.ip() != other.ip() => peer,
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

/// The first hop from the end that is no trusted proxy, or the last that could be read.
fn walk(
    peer: SocketAddr,
    headers: &HeaderMap,
    name: &HeaderName,
    hops: fn(&str) -> Option<Vec<Option<SocketAddr>>>,
    is_trusted: impl Fn(SocketAddr) -> bool,
) -> SocketAddr {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    let mut nearest = peer;
    for line in lines.into_iter().rev() {
        let Some(hops) = line.to_str().ok().and_then(hops) else { return nearest };
        for hop in hops.into_iter().rev() {
            let Some(hop) = hop else { return nearest };
            nearest = hop;
            if !is_trusted(hop) {
                return nearest;
            }
        }
    }
    nearest
}

fn x_forwarded_for(line: &str) -> Option<Vec<Option<SocketAddr>>> {
    Some(line.split(',').map(|hop| node(hop.trim())).collect())
}

/// The `for` of each element; nothing for a line that breaks the grammar, for then it cannot be told where what the
/// client sent ends.
fn forwarded(line: &str) -> Option<Vec<Option<SocketAddr>>> {
    let elements = split(line, ',')?;
    let hops = elements.into_iter().map(|element| {
        let pairs = split(element, ';')?;
        let mut named = pairs.into_iter().filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
        });
        let value = named.next()?;
        node(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
    });
    Some(hops.collect())
}

/// Splits at what stands outside quotes; nothing where a quote is not closed.
fn split(text: &str, at: char) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (index, char) in text.char_indices() {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if char == at && !is_quoted => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!is_quoted).then_some(parts)
}

/// An address, with or without a port, IPv6 with or without brackets.
fn node(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().map(|address| (address, 0));
    let with_port = || text.parse().map(|node: SocketAddr| (node.ip(), node.port()));
    let (address, port) = address.or_else(|_| with_port()).ok()?;
    Some((address.to_canonical(), port).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let network = |text: &str| Network::try_from(text.to_owned()).unwrap();
        let trusted = [network("10.0.0.0/8"), network("fd00::/8")];
        let peer = SocketAddr::new(peer.parse().unwrap(), 9);
        client(peer, &headers, &trusted).ip().to_string()
    }

    #[test]
    fn the_list_is_read_from_its_end_through_trusted_proxies() {
        let x = |value| [("x-forwarded-for", value)];
        assert_eq!(told("192.0.2.1", &x("1.1.1.1")), "192.0.2.1", "who is not trusted says it");
        assert_eq!(told("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(told("::ffff:10.0.0.1", &x("1.1.1.1")), "1.1.1.1");
        assert_eq!(told("10.0.0.1", &x("9.9.9.9, 1.1.1.1:80, 10.0.0.2")), "1.1.1.1");
        assert_eq!(told("10.0.0.1", &x("10.0.0.3,10.0.0.2")), "10.0.0.3", "all are trusted");
        assert_eq!(told("10.0.0.1", &x("1.1.1.1, unknown, 10.0.0.2")), "10.0.0.2");
        assert_eq!(told("fd00::1", &x("2001:db8::7")), "2001:db8::7");
        assert_eq!(told("fd00::1", &x("[2001:db8::7]:443")), "2001:db8::7");
        let lines = [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-for", "1.1.1.1, 10.0.0.2")];
        assert_eq!(told("10.0.0.1", &lines), "1.1.1.1");
    }

    #[test]
    fn forwarded_counts_like_x_forwarded_for_and_where_they_differ_nobody_is_believed() {
        let f = |value| [("forwarded", value)];
        assert_eq!(
            told("10.0.0.1", &f("for=9.9.9.9, For=1.1.1.1;proto=http;by=10.0.0.1")),
            "1.1.1.1"
        );
        let six = "proto=https;for=\"[2001:db8:cafe::17]:4711\"";
        assert_eq!(told("10.0.0.1", &f(six)), "2001:db8:cafe::17");
        for bad in
            ["for=_hidden", "for=unknown", "proto=http", "for=\"1.1.1.1", "", "for=1.1.1.1, "]
        {
            assert_eq!(told("10.0.0.1", &f(bad)), "10.0.0.1", "{bad:?}");
        }
        // A quote the client opened cannot swallow what the proxy added.
        let quoted = "for=\"9.9.9.9, for=\"[2001:db8::1]\"";
        assert_eq!(told("10.0.0.1", &f(quoted)), "10.0.0.1");
        assert_eq!(told("10.0.0.1", &f("for=9.9.9.9;x=\", for=1.1.1.1")), "10.0.0.1");
        assert_eq!(told("10.0.0.1", &f("for=\"9.9.9.9,\", for=1.1.1.1")), "1.1.1.1");
        assert_eq!(told("10.0.0.1", &f("for=9.9.9.9, for=1.1.1.1;by=\"_a,b;c\"")), "1.1.1.1");
        let both = |forwarded, x| [("forwarded", forwarded), ("x-forwarded-for", x)];
        assert_eq!(told("10.0.0.1", &both("for=1.1.1.1", "1.1.1.1")), "1.1.1.1");
        assert_eq!(told("10.0.0.1", &both("for=9.9.9.9", "1.1.1.1")), "10.0.0.1");
    }

    #[test]
    fn a_network_is_an_address_with_or_without_bits() {
        let network = |text: &str| Network::try_from(text.to_owned());
        assert!(network("127.0.0.1").unwrap().contains([127, 0, 0, 1].into()));
        assert!(!network("127.0.0.1").unwrap().contains([127, 0, 0, 2].into()));
        assert!(network("fd00::/8").unwrap().contains("fd12::1".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "hub.example", "10.0.0"] {
            assert!(network(bad).is_err(), "{bad:?}");
        }
    }
}
