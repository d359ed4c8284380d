//! `GET /ws/real-time`: the upgrade. A browser cannot see a refused upgrade, so that refusals of
//! the client are said by a close code on an open socket.

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::task::TaskTracker;

use super::{
    Origin,
    error::Problem,
    handshake::{self, Handshake, Refusal},
    server,
    socket::{Opening, Socket},
};
use crate::{
    access::Access,
    auth::{AuthError, Principal},
    broker::Broker,
    hub::Hub,
    protocol::{CloseCode, SUBPROTOCOL},
    session::{Connections, Now, Talk, Terms},
    time::Clock,
};

/// What sockets and streams need.
#[derive(Clone)]
pub struct Sockets {
    /// The writers' side of the log.
    pub broker: Broker,
    /// The readers' side.
    pub hub: Hub,
    /// Who may come in.
    pub access: Access,
    /// Who is there.
    pub connections: Connections,
    /// Times, limits, counters.
    pub terms: Arc<Terms>,
    /// Pages of other origins that may use the hub.
    pub allowed_origins: Arc<[Origin]>,
    /// Whether `?token=` is taken.
    pub query_token: bool,
    /// The time.
    pub clock: Clock,
    /// Owns the sockets' tasks.
    pub tasks: TaskTracker,
}

/// The reader's buffer: what clients send is short.
const READ_BUFFER: usize = 1024;

impl Sockets {
    /// The moment it is.
    pub fn now(&self) -> Now {
        Now { instant: Instant::now(), wall: self.clock.now(), head: self.hub.head() }
    }

    /// Who asks, if they said; the anonymous principal if there is one.
    pub async fn identify(
        &self,
        handshake: &Handshake,
    ) -> Result<Option<Arc<Principal>>, AuthError> {
        match &handshake.credential {
            Some(credential) => self.access.authenticate(credential).await.map(Some),
            None => Ok(self.access.anonymous()),
        }
    }
}

/// Answers the upgrade and leaves the socket to a task of its own.
pub async fn upgrade(State(sockets): State<Sockets>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let Some(key) = websocket_key(&parts.headers) else {
        return Problem::upgrade_required().into_response();
    };
    let (Some(on_upgrade), Some(connection)) = (
        parts.extensions.remove::<OnUpgrade>(),
        parts.extensions.get::<server::Connection>().cloned(),
    ) else {
        return Problem::upgrade_required().into_response();
    };
    let handshake = Handshake::read(&parts, sockets.query_token);
    let speaks = matches!(&handshake, Ok(Handshake { speaks_messages: true, .. }));
    let session = open(&sockets, &parts, handshake).await;
    let tasks = sockets.tasks.clone();
    tasks.spawn(async move {
        let upgraded = match on_upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(%error, peer = %connection.peer, "the upgrade broke off");
                return;
            }
        };
        let Ok(plain) = downcast::<TokioIo<TcpStream>>(upgraded) else {
            tracing::error!("a socket came over something that is no TCP stream");
            return;
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(READ_BUFFER)
            .max_message_size(Some(sockets.terms.limits.frame.as_usize()))
            .max_frame_size(Some(sockets.terms.limits.frame.as_usize()));
        // What came with the request is copied, so that its buffer goes.
        let read = plain.read_buf.to_vec();
        let stream = plain.io.into_inner();
        let stream =
            WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
        Socket::run(sockets, stream, connection, session).await;
    });
    switching(&key, speaks)
}

async fn open(
    sockets: &Sockets,
    parts: &Parts,
    handshake: Result<Handshake, Refusal>,
) -> Result<Opening, Refusal> {
    let handshake = handshake?;
    if !handshake::is_allowed_origin(parts, &sockets.allowed_origins) {
        let reason = "pages of this origin are not in `http.allowed_origins`";
        return Err((CloseCode::Forbidden, reason.into()));
    }
    if handshake.offers_protocols && !handshake.speaks_messages {
        let reason = format!("none of the subprotocols offered is {SUBPROTOCOL}");
        return Err((CloseCode::UnsupportedProtocol, reason));
    }
    let talk = if !handshake.offers_protocols && handshake.query.has_topics() {
        let (limits, now) = (&sockets.terms.limits, sockets.now());
        let subscription = handshake
            .query
            .subscription(None, None, limits, now)
            .map_err(|reason| (CloseCode::BadMessage, reason))?;
        Talk::Simple(Box::new(subscription))
    } else {
        Talk::Messages
    };
    let principal = sockets.identify(&handshake).await.map_err(|error| {
        let code = match error {
            AuthError::Expired => CloseCode::Expired,
            AuthError::Unavailable(_) => CloseCode::Overloaded,
            _ => CloseCode::Unauthorized,
        };
        (code, error.to_string())
    })?;
    Ok((talk, principal, handshake.token()))
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
