//! Which names a request may call the hub by.
//!
//! A page of another site can have its own name lead to 127.0.0.1 and then read what the hub says to
//! this machine only (DNS rebinding). The browser still sends the page's name as `Host`.

use std::net::IpAddr;

use axum::extract::Request;
use http::{Version, header, uri::Authority};

use super::{AppState, Problem};

/// Refuses a request without one clear `Host`, and one by a name that is not the hub's.
pub(super) fn check(request: &Request, state: &AppState) -> Result<(), Problem> {
    match name(request) {
        Err(reason) => Err(Problem::bad_request(reason)),
        Ok(Some(name)) if !is_ours(&name, state) => Err(Problem::foreign_host(&name)),
        Ok(_) => Ok(()),
    }
}

/// The host that is asked for, without its port (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
fn name(request: &Request) -> Result<Option<String>, &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err("more than one `Host` was sent");
    }
    let wrong = "`Host` must be a name or an address, and perhaps a port";
    let host: Option<Authority> = match first {
        Some(host) => Some(host.to_str().ok().and_then(|text| text.parse().ok()).ok_or(wrong)?),
        None => None,
    };
    let plain = |authority: &Authority| authority.host().to_ascii_lowercase();
    match (host, request.uri().authority()) {
        (Some(host), _) if host.as_str().contains('@') => Err(wrong),
        (Some(host), Some(authority)) if plain(&host) != plain(authority) => {
            Err("`Host` is not the host of the request's address")
        }
        (Some(host), _) => Ok(Some(plain(&host))),
        (None, Some(authority)) => Ok(Some(plain(authority))),
        (None, None) if request.version() == Version::HTTP_10 => Ok(None),
        (None, None) => Err("no `Host` was sent"),
    }
}

/// A hub that only its own machine can reach answers to the machine's own names and to those that are
/// configured; another answers to any name unless some are configured.
fn is_ours(name: &str, state: &AppState) -> bool {
    let allowed = &state.settings.http.allowed_hosts;
    let is_listed = || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    if !state.settings.is_loopback && allowed.is_empty() {
        return true;
    }
    is_loopback(name) || is_listed()
}

/// Whether a name leads to the machine itself (RFC 6761 section 6.3).
fn is_loopback(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_are_those_of_the_machine() {
        for ours in ["localhost", "localhost.", "hub.localhost", "127.0.0.1", "127.9.9.9", "[::1]"]
        {
            assert!(is_loopback(ours), "{ours}");
        }
        for foreign in
            ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "[::2]", ""]
        {
            assert!(!is_loopback(foreign), "{foreign}");
        }
    }
}
