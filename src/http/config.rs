//! What can be set about requests and sockets.

use http::HeaderValue;
use serde::Deserialize;

use super::Network;
use crate::{bounds, time::Span};

/// The `[http]` section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Web pages of other origins that may use the hub.
    pub allowed_origins: Vec<Origin>,
    /// Names the hub may be called by, beside the loopback ones.
    pub allowed_hosts: Vec<String>,
    /// Proxies that are believed when they say whose request it is.
    pub trusted_proxies: Vec<Network>,
    /// Whether their connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Time for a request's headers to arrive.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::MOMENT }>")]
    pub header_timeout: Span,
    /// Time for the next request on a connection.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::MOMENT }>")]
    pub idle_timeout: Span,
    /// Time for a request's body to arrive.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::MOMENT }>")]
    pub body_timeout: Span,
    /// Time for the next piece of an answer to be taken.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::MOMENT }>")]
    pub write_timeout: Span,
    /// Time for everything under way to end when the hub stops.
    pub drain: Span,
    /// Whether `/metrics` is open to everybody, on whatever address.
    pub public_metrics: bool,
    /// Whether the session cookie is marked `Secure`.
    pub secure_cookie: bool,
}

/// A web origin (RFC 6454) as browsers send it: scheme, host, and the port if it is not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(HeaderValue);

impl Origin {
    /// The value of the `Origin` header that names it.
    pub fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        let text = text.to_ascii_lowercase();
        let rest = text.strip_prefix("https://").map(|rest| (rest, ":443"));
        let rest = rest.or_else(|| text.strip_prefix("http://").map(|rest| (rest, ":80")));
        match rest {
            Some((authority, own_port))
                if authority.parse::<http::uri::Authority>().is_ok()
                    && !authority.contains(['@', '*'])
                    && !authority.ends_with(own_port) =>
            {
                HeaderValue::try_from(&text).map(Self).map_err(|_| OriginError(text))
            }
            _ => Err(OriginError(text)),
        }
    }
}

/// A text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no origin: write https://host or https://host:port as browsers do, without a path, wildcard or usual port"
)]
pub struct OriginError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send() {
        let origin = |text: &str| Origin::try_from(text.to_owned());
        assert_eq!(origin("HTTPS://Dash.example").unwrap().header(), "https://dash.example");
        assert!(origin("http://localhost:5173").is_ok());
        assert!(origin("http://[::1]:5173").is_ok());
        for bad in [
            "*",
            "dash.example",
            "https://",
            "https://a/",
            "https://*.a",
            "https://a:443",
            "ws://a",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
