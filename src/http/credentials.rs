//! Which credentials a request shows, from every place they may stand in.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, HeaderName, Method, header, request::Parts, uri::Authority};
use secrecy::{ExposeSecret, SecretString};

use super::{AppState, Problem, query, server};
use crate::{
    access::Credential, auth::Principal, protocol::BEARER_SUBPROTOCOL, topic::TopicPattern,
};

/// The cookie that holds a browser's session.
pub const SESSION_COOKIE: &str = "pulsehub_session";

/// The same where it is marked `Secure`: a browser takes it from this very host over TLS alone.
pub const SECURE_SESSION_COOKIE: &str = "__Host-pulsehub_session";

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The caller: an extractor that refuses requests without valid credentials.
#[derive(Debug, Clone)]
pub struct Caller(pub Arc<Principal>);

/// Why no credential can be taken from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Two explicit ones that are not the same.
    #[error("two different credentials were sent")]
    Differ,
    /// One that cannot be read.
    #[error("{0}")]
    Malformed(&'static str),
    /// A session that another site's page shows.
    #[error("what a browser sends by itself counts only for requests of this hub's own pages")]
    CrossOrigin,
}

/// Refuses a reader who lacks a grant for some of `patterns`, naming each.
pub(super) fn check_readable(
    principal: &Principal,
    patterns: &[TopicPattern],
) -> Result<(), Problem> {
    let missing = patterns.iter().filter(|pattern| !principal.may_subscribe(pattern));
    let missing: Vec<_> = missing.map(|pattern| format!("subscribe {pattern}")).collect();
    if missing.is_empty() { Ok(()) } else { Err(Problem::forbidden(&missing)) }
}

/// Who makes a request of a program that comes with a key which everybody knows, unless it was given another one:
/// `auth.open_keys` says what may be done with it.
pub struct ProgramCaller(pub Arc<Principal>);

impl FromRequestParts<AppState> for ProgramCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let open = match agree(of_headers(parts)?)? {
            Some(Credential::Token(key)) => state.access.open_key(key.expose_secret()),
            _ => None,
        };
        match open {
            Some(principal) => Ok(Self(principal)),
            None => Caller::from_request_parts(parts, state).await.map(|Caller(it)| Self(it)),
        }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        match collect(parts)? {
            Some(credential) => {
                let principal = state.access.authenticate(&credential).await?;
                if let Some(from) = parts.extensions.get::<server::ClientConnection>() {
                    from.slot.know();
                }
                Ok(Self(principal))
            }
            None => state.access.anonymous().map(Self).ok_or_else(Problem::unauthorized),
        }
    }
}

impl From<CredentialsError> for Problem {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::Differ => Self::credentials_differ(),
            CredentialsError::Malformed(reason) => Self::bad_credentials(reason),
            CredentialsError::CrossOrigin => Self::cross_origin(error.to_string()),
        }
    }
}

/// The credential of an ordinary request: a header's, else the session's.
pub fn collect(parts: &Parts) -> Result<Option<Credential>, CredentialsError> {
    if let Some(credential) = agree(of_headers(parts)?)? {
        return Ok(Some(credential));
    }
    match session(&parts.headers) {
        Some(_) if !is_same_origin(parts) => Err(CredentialsError::CrossOrigin),
        session => Ok(session.map(Credential::Session)),
    }
}

/// The credential of a socket's upgrade or of a stream, which browsers cannot give headers: also
/// `?ticket=`, a subprotocol, and, where `query_token` allows it, `?token=`.
///
/// A session does not count for a page of another origin, which may still show a token in `connect`.
pub fn collect_upgrade(
    parts: &Parts,
    query_token: bool,
) -> Result<Option<Credential>, CredentialsError> {
    let mut explicit = of_headers(parts)?;
    explicit.extend(of_subprotocols(&parts.headers)?.map(Credential::Token));
    for (name, value) in query::pairs(parts) {
        match &*name {
            "ticket" => explicit.push(Credential::ticket(&value)),
            "token" if query_token => explicit.push(Credential::Token(value.into())),
            "token" => {
                let message = "tokens in the address are not taken here: use a header, a subprotocol or a ticket";
                return Err(CredentialsError::Malformed(message));
            }
            _ => {}
        }
    }
    if let Some(credential) = agree(explicit)? {
        return Ok(Some(credential));
    }
    let session = session(&parts.headers).filter(|_| is_same_origin(parts));
    Ok(session.map(Credential::Session))
}

/// The session in a request, not yet checked for its origin.
pub(super) fn session(headers: &HeaderMap) -> Option<SecretString> {
    let named = |wanted: &str| {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find(|(name, value)| *name == wanted && !value.is_empty())
            .map(|(_, value)| value.into())
    };
    // A neighbour under the same domain can set the other, but not this one.
    named(SECURE_SESSION_COOKIE).or_else(|| named(SESSION_COOKIE))
}

/// The one explicit credential, in however many places it stands.
fn agree(explicit: Vec<Credential>) -> Result<Option<Credential>, CredentialsError> {
    if explicit.windows(2).any(|pair| secret(&pair[0]) != secret(&pair[1])) {
        return Err(CredentialsError::Differ);
    }
    Ok(explicit.into_iter().next())
}

fn secret(credential: &Credential) -> &str {
    let (Credential::Token(secret)
    | Credential::Ticket(secret)
    | Credential::StreamTicket(secret)
    | Credential::Session(secret)) = credential;
    secret.expose_secret()
}

fn of_headers(parts: &Parts) -> Result<Vec<Credential>, CredentialsError> {
    let (headers, mut found) = (&parts.headers, Vec::new());
    for value in headers.get_all(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        match text.split_once(' ') {
            Some((scheme, token))
                if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() =>
            {
                found.push(Credential::Token(token.trim().into()));
            }
            Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => {
                // A browser that was given them once sends them by itself, for other sites' pages too.
                if is_of_another_origin(parts) {
                    return Err(CredentialsError::CrossOrigin);
                }
                found.push(Credential::Token(password(pair)?));
            }
            _ => {
                let message = "`Authorization` must be `Bearer` and a token or an API key, or `Basic` with it as the password";
                return Err(CredentialsError::Malformed(message));
            }
        }
    }
    for value in headers.get_all(API_KEY) {
        match value.to_str().map(str::trim) {
            Ok(key) if !key.is_empty() => found.push(Credential::Token(key.into())),
            _ => {
                return Err(CredentialsError::Malformed(
                    "`X-API-Key` must be an API key or a token",
                ));
            }
        }
    }
    Ok(found)
}

/// The password of a user of any name (RFC 7617): for programs that have fields for the two and no other.
fn password(pair: &str) -> Result<SecretString, CredentialsError> {
    let pair = STANDARD.decode(pair.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = pair.map(SecretString::from);
    let password = pair.as_ref().and_then(|pair| pair.expose_secret().split_once(':'));
    match password {
        Some((_, password)) if !password.is_empty() => Ok(password.into()),
        _ => Err(CredentialsError::Malformed(
            "`Authorization: Basic` must be a name and, as the password, an API key or a token",
        )),
    }
}

fn of_subprotocols(headers: &HeaderMap) -> Result<Option<SecretString>, CredentialsError> {
    let offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|protocols| protocols.split(','));
    let Some(encoded) =
        offered.filter_map(|name| name.trim().strip_prefix(BEARER_SUBPROTOCOL)).next()
    else {
        return Ok(None);
    };
    let token =
        URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let message = "the bearer subprotocol must be the token in base64url without padding";
    token.map(|token| Some(token.into())).ok_or(CredentialsError::Malformed(message))
}

/// Whether a page of this hub sent the request, or no page at all.
///
/// Browsers name a page's origin in every request that changes something and in every upgrade; where
/// a proxy in front rewrites `Host`, `Sec-Fetch-Site` still tells.
pub(super) fn is_same_origin(parts: &Parts) -> bool {
    let is_reading = parts.method == Method::GET || parts.method == Method::HEAD;
    let names_origin = parts.headers.contains_key(header::ORIGIN);
    !is_of_another_origin(parts)
        && (names_origin || site(parts) == Some(b"same-origin") || is_reading)
}

/// Whether a page of somebody else's sent the request.
fn is_of_another_origin(parts: &Parts) -> bool {
    match parts.headers.get(header::ORIGIN) {
        Some(origin) => {
            let is_ours =
                |origin| site(parts) == Some(b"same-origin") || is_this_host(origin, parts);
            !origin.to_str().is_ok_and(is_ours)
        }
        None => matches!(site(parts), Some(b"cross-site" | b"same-site")),
    }
}

fn site(parts: &Parts) -> Option<&[u8]> {
    parts.headers.get("sec-fetch-site").map(|site| site.as_bytes())
}

fn is_this_host(origin: &str, parts: &Parts) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let own_port = if scheme == "https" { 443 } else { 80 };
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 has the authority in the request line's place.
    let host = host.or_else(|| parts.uri.authority().map(Authority::as_str));
    let named = |text: &str| {
        let authority: Authority = text.parse().ok()?;
        Some((authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(own_port)))
    };
    let (theirs, ours) = (named(authority), host.and_then(named));
    theirs.is_some() && theirs == ours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn shown(
        result: Result<Option<Credential>, CredentialsError>,
    ) -> Result<String, CredentialsError> {
        result.map(|credential| match credential {
            None => "none".to_owned(),
            Some(Credential::Token(token)) => format!("token {}", token.expose_secret()),
            Some(Credential::Ticket(ticket)) => format!("ticket {}", ticket.expose_secret()),
            Some(Credential::StreamTicket(ticket)) => format!("stream {}", ticket.expose_secret()),
            Some(Credential::Session(session)) => format!("session {}", session.expose_secret()),
        })
    }

    fn request(method: &str, headers: &[(&str, &str)]) -> Result<String, CredentialsError> {
        shown(collect(&parts(method, "/x?ticket=t&token=u", headers)))
    }

    #[test]
    fn explicit_credentials_beat_the_cookie_and_must_agree() {
        let cookie = ("cookie", "a=b; pulsehub_session=s");
        assert_eq!(request("GET", &[]), Ok("none".into()));
        assert_eq!(request("GET", &[cookie]), Ok("session s".into()));
        assert_eq!(request("GET", &[cookie, ("x-api-key", "k")]), Ok("token k".into()));
        assert_eq!(request("GET", &[("authorization", "bearer k")]), Ok("token k".into()));
        let both = [("authorization", "Bearer k"), ("x-api-key", "k")];
        assert_eq!(request("GET", &both), Ok("token k".into()));
        // `id:k:1`
        assert_eq!(request("GET", &[("authorization", "Basic aWQ6azox")]), Ok("token k:1".into()));
        let differ = [("authorization", "Bearer k"), ("x-api-key", "l")];
        assert_eq!(request("GET", &differ), Err(CredentialsError::Differ));
        // Without base64, without a password, or nothing.
        for bad in [
            ("authorization", "Basic k"),
            ("authorization", "Basic aWQ6"),
            ("authorization", "Bearer "),
            ("x-api-key", ""),
        ] {
            assert!(
                matches!(request("GET", &[bad]), Err(CredentialsError::Malformed(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn another_sites_page_had_a_browser_send_the_password_it_knew() {
        let foreign = [
            ("authorization", "Basic aWQ6azox"),
            ("host", "hub.example"),
            ("origin", "https://evil.example"),
        ];
        assert_eq!(request("POST", &foreign), Err(CredentialsError::CrossOrigin));
    }

    #[test]
    fn a_session_counts_for_the_hubs_own_pages_only() {
        let with = |method, more: &[(&str, &str)]| {
            let mut headers = vec![("cookie", "pulsehub_session=s"), ("host", "hub.example:8443")];
            headers.extend_from_slice(more);
            request(method, &headers)
        };
        let same = ("origin", "https://Hub.example:8443");
        let foreign = ("origin", "https://evil.example");
        assert!(with("GET", &[]).is_ok());
        assert!(with("GET", &[("sec-fetch-site", "none")]).is_ok());
        let both = [("cookie", "pulsehub_session=planted; __Host-pulsehub_session=own")];
        assert_eq!(request("GET", &both), Ok("session own".into()));
        assert!(with("GET", &[same]).is_ok() && with("POST", &[same]).is_ok());
        assert!(with("POST", &[("sec-fetch-site", "same-origin")]).is_ok());
        for (method, headers) in [
            ("GET", &[foreign][..]),
            ("POST", &[foreign]),
            ("GET", &[("sec-fetch-site", "cross-site")]),
            ("GET", &[("sec-fetch-site", "same-site")]),
            ("POST", &[("origin", "null")]),
            ("POST", &[("origin", "https://hub.example")]),
            ("POST", &[("sec-fetch-site", "same-site")]),
            ("POST", &[]),
            ("DELETE", &[]),
        ] {
            assert_eq!(with(method, headers), Err(CredentialsError::CrossOrigin), "{headers:?}");
        }
        let usual_port = [("host", "hub.example:443"), ("origin", "https://hub.example")];
        let headers = [&usual_port[..], &[("cookie", "pulsehub_session=s")]].concat();
        assert!(request("POST", &headers).is_ok());
    }

    #[test]
    fn a_socket_may_show_a_ticket_a_subprotocol_or_where_allowed_a_token() {
        let upgrade = |uri: &str, headers: &[(&str, &str)], query_token| {
            shown(collect_upgrade(&parts("GET", uri, headers), query_token))
        };
        assert_eq!(upgrade("/ws?ticket=a%2Db", &[], false), Ok("ticket a-b".into()));
        assert_eq!(upgrade("/sse?ticket=phs_a", &[], false), Ok("stream phs_a".into()));
        let refused = upgrade("/ws?token=t", &[], false);
        assert!(matches!(refused, Err(CredentialsError::Malformed(_))), "{refused:?}");
        assert_eq!(upgrade("/ws?token=t", &[], true), Ok("token t".into()));
        let protocols = ("sec-websocket-protocol", "hub.v1, base64url.bearer.dG9r");
        assert_eq!(upgrade("/ws", &[protocols], false), Ok("token tok".into()));
        assert_eq!(upgrade("/ws?ticket=x", &[protocols], false), Err(CredentialsError::Differ));
        let cookie = [("cookie", "pulsehub_session=s"), ("host", "hub"), ("origin", "http://hub")];
        assert_eq!(upgrade("/ws", &cookie, false), Ok("session s".into()));
        let foreign = [cookie[0], cookie[1], ("origin", "http://hub:5173")];
        assert_eq!(upgrade("/ws", &foreign, false), Ok("none".into()));
        let bad = ("sec-websocket-protocol", "base64url.bearer.@");
        assert!(matches!(upgrade("/ws", &[bad], false), Err(CredentialsError::Malformed(_))));
    }
}
