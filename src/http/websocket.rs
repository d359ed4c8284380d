//! `GET /ws/real-time`: the upgrade. A browser cannot see a refused upgrade, so the hub refuses clients with a close
//! code on an open socket.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    AppState, Problem,
    credentials::CredentialsError,
    handshake::{self, Handshake, Opening, SocketRefusal},
    pulse::Tapped,
    server,
    socket::Socket,
    stall::Impatient,
};
use crate::{
    access::Credential,
    auth::{AuthError, Principal},
    dialect::Dialect,
    hub::Subscription,
    protocol::{CloseCode, SUBPROTOCOL},
};

/// How to ask for simple mode.
const TOPICS: &str = "/ws/real-time?topics=voicehive.*";

/// The principal of the request, or the anonymous one if there is one.
pub(super) async fn identify(
    state: &AppState,
    handshake: &Handshake,
) -> Result<Option<Arc<Principal>>, AuthError> {
    match &handshake.credential {
        Some(credential) => state.access.authenticate(credential).await.map(Some),
        None => Ok(state.access.anonymous()),
    }
}

/// Opens a socket that asks for what it wants.
pub(super) async fn upgrade(State(state): State<AppState>, request: Request) -> Response {
    upgrade_to(state, request, None).await
}

/// Answers the upgrade and leaves the socket to a task of its own. With a subscription it is a
/// socket for just that, in simple mode.
pub(super) async fn upgrade_to(
    state: AppState,
    request: Request,
    fixed: Option<Subscription>,
) -> Response {
    let (mut parts, _) = request.into_parts();
    let Some(key) = websocket_key(&parts.headers) else {
        return Problem::upgrade_required().into_response();
    };
    let (Some(on_upgrade), Some(connection)) = (
        parts.extensions.remove::<OnUpgrade>(),
        parts.extensions.get::<server::ClientConnection>().cloned(),
    ) else {
        return Problem::upgrade_required().into_response();
    };
    let handshake = Handshake::read(&parts, state.settings.query_token);
    // Also when something else is refused: browsers fail an upgrade that answers none of what they offered,
    // and then the page never sees the close code.
    let speaks = handshake::offers_messages(&parts.headers);
    let dialect = if speaks { Dialect::HubV1 } else { Dialect::Simple };
    let session = open(&state, &parts, handshake, fixed).await;
    state.tasks.clone().spawn(async move {
        match on_upgrade.await {
            Ok(upgraded) => match take_over(upgraded) {
                Some(stream) => Socket::start(state, stream, connection, session, dialect),
                None => tracing::error!("a socket came over something that is no TCP stream"),
            },
            Err(error) => {
                tracing::debug!(%error, client = %connection.client, "the upgrade broke off");
            }
        }
    });
    switching(&key, speaks)
}

/// The bare stream under a finished upgrade, and what was read of it with the request: a copy, so
/// that hyper's buffer goes.
fn take_over(upgraded: Upgraded) -> Option<(TcpStream, Vec<u8>)> {
    let plain = downcast::<TokioIo<Impatient<Tapped<TcpStream>>>>(upgraded).ok()?;
    Some((plain.io.into_inner().into_inner().into_inner(), plain.read_buf.to_vec()))
}

async fn open(
    state: &AppState,
    parts: &Parts,
    handshake: Result<Handshake, CredentialsError>,
    fixed: Option<Subscription>,
) -> Result<Opening, SocketRefusal> {
    let handshake = handshake.map_err(|error| {
        let code = match error {
            CredentialsError::CrossOrigin => CloseCode::Forbidden,
            CredentialsError::Differ | CredentialsError::Malformed(_) => CloseCode::BadMessage,
        };
        (code, error.to_string())
    })?;
    if !handshake::is_allowed_origin(parts, &state.settings.http.allowed_origins) {
        let reason = "pages of this origin are not in `http.allowed_origins`";
        return Err((CloseCode::Forbidden, reason.into()));
    }
    if handshake.offers_protocols && !handshake.speaks_messages {
        let reason = format!("none of the subprotocols offered is {SUBPROTOCOL}");
        return Err((CloseCode::UnsupportedProtocol, reason));
    }
    if matches!(handshake.credential, Some(Credential::StreamTicket(_))) {
        let reason =
            "this ticket is for streams: a socket's is one that was asked for without topics";
        return Err((CloseCode::Unauthorized, reason.into()));
    }
    let only = only(state, &handshake, fixed)?;
    let principal = identify(state, &handshake).await;
    let principal = principal.map_err(|error| (error.close_code(), error.to_string()))?;
    Ok(match only {
        None => Opening::Messages(principal, handshake.token()),
        Some(only) => Opening::Only(principal, Box::new(only)),
    })
}

/// The one subscription of a socket in simple mode; None if the client subscribes by messages.
fn only(
    state: &AppState,
    handshake: &Handshake,
    fixed: Option<Subscription>,
) -> Result<Option<Subscription>, SocketRefusal> {
    if fixed.is_some() {
        if handshake.offers_protocols {
            let reason = "this path is for sockets without a subprotocol";
            return Err((CloseCode::UnsupportedProtocol, reason.into()));
        }
        return Ok(fixed);
    }
    let wrong = |reason| (CloseCode::BadMessage, reason);
    let asked = handshake.query.as_ref().map_err(|reason| wrong(reason.clone()))?;
    if handshake.speaks_messages {
        return Ok(None);
    }
    if !asked.has_topics() {
        let reason = format!("offer the subprotocol {SUBPROTOCOL}, or name topics: {TOPICS}");
        return Err((CloseCode::UnsupportedProtocol, reason));
    }
    let (limits, now) = (&state.terms.limits, state.now());
    asked.subscription(Dialect::Simple, None, limits, now).map(Some).map_err(wrong)
}

/// The key of a good upgrade request (RFC 6455 section 4.2.1).
fn websocket_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let holds = |name: header::HeaderName, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let good = holds(header::CONNECTION, "upgrade")
        && holds(header::UPGRADE, "websocket")
        && holds(header::SEC_WEBSOCKET_VERSION, "13");
    headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| good).cloned()
}

fn switching(key: &HeaderValue, speaks_messages: bool) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if speaks_messages {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}
