//! The accept loop: which connections get in, how long a request may take to arrive, and how connections end.

mod options;

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::IntoResponse as _};
use http::{HeaderValue, Method, Response, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{ServiceExt as _, util::BoxCloneSyncService};

pub use self::options::Options;
use super::{
    Problem,
    answering::{self, Answering, Streams},
    connection_slots::{ConnectionSlot, ConnectionSlots, NoSlot, Visit},
    forwarded,
    no_room::say_no_room,
    proxy_protocol,
    pulse::{Lapse, Pulse, Tapped},
    stall::Impatient,
    unread_body::UnreadBody,
};
use crate::{
    backoff::Backoff,
    telemetry::{Limit, Telemetry},
};

/// What answers requests.
pub type Answers = BoxCloneSyncService<Request, Response<Body>, Infallible>;

/// What a request knows of its connection; among the request's extensions.
#[derive(Clone)]
pub struct ClientConnection {
    /// Where the request comes from: the other end, or what a trusted proxy says of it; see
    /// [`trusted_proxies`](super::HttpConfig::trusted_proxies). The port is 0 where it is not known.
    pub client: SocketAddr,
    /// One of [`Options::max_connections`].
    pub(super) slot: Arc<ConnectionSlot>,
    /// A trusted proxy's request, counted by the client's address.
    pub(super) visit: Option<Arc<Visit>>,
}

/// Listens on `address`, with room for all who connect again at once after a restart: who finds the
/// queue full tries again only a second later, or three, or seven.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?; // as `TcpListener::bind` does
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `answers` until `stop`. Then it accepts no connection and waits for requests under way.
///
/// Every connection is a task of `tasks`: when this returns some may still be draining.
pub async fn serve(
    listener: TcpListener,
    answers: Answers,
    options: Options,
    telemetry: Telemetry,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let door = Door {
        slots: ConnectionSlots::new(
            options.max_connections,
            options.max_per_address,
            telemetry.clone(),
        ),
        refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        protocol: Arc::new(protocol(&options, &telemetry)),
        answers,
        options,
        telemetry,
        tasks,
        stop: stop.clone(),
    };
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff.worked();
                door.slots.calm().await; // a connection that ends is not held up by this
                door.admit(stream, peer);
            }
            // The other side gave up before it was its turn.
            Err(error) if is_of_one_connection(&error) => {}
            // Out of file descriptors or memory: others must end before anybody new gets in.
            Err(error) => {
                let pause = backoff.failed();
                tracing::warn!(%error, retry_in = ?pause, "cannot accept connections");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(pause) => {}
                }
            }
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Connections that wait to be accepted; the system allows `net.core.somaxconn`, 4096 on Linux.
const BACKLOG: u32 = 16_384;

/// Connections that are being told at the same time that there is no room.
const MAX_REFUSALS: usize = 64;

/// Bytes of a request's headers together, and of the buffer they are read into: what strangers may have held for each
/// connection, without saying who they are. The longest token has 8 KiB.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Unread bytes of one HTTP/2 stream; a connection has twice as many in all.
const STREAM_WINDOW: u32 = 128 * 1024;

/// Bytes of one HTTP/2 stream that its peer has not read.
const SEND_BUFFER: usize = 64 * 1024;

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn protocol(options: &Options, telemetry: &Telemetry) -> auto::Builder<Streams> {
    let (patience, telemetry) = (options.write_timeout, telemetry.clone());
    let mut builder = auto::Builder::new(Streams { patience, telemetry });
    builder
        .http1()
        .header_read_timeout(None) // see `Pulse`, which knows an idle connection from a slow one
        .max_headers(options.max_headers)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .max_concurrent_streams(100)
        // How much a peer may send that is not read yet, and how much is buffered for it.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        // Frames without end: streams opened only to be reset, by the peer or for an error, end the connection; so do,
        // by h2 itself, more continuations than fill the headers, and small data frames. Pings and settings are
        // answered one by one, before the next is read; see `Tapped` for how many in a turn.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        // A peer that has gone without a word is noticed.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Door {
    slots: ConnectionSlots,
    refusals: Arc<Semaphore>,
    protocol: Arc<auto::Builder<Streams>>,
    answers: Answers,
    options: Options,
    telemetry: Telemetry,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Door {
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %peer, "the connection broke before it began");
            return;
        }
        let is_proxy = self.options.trusts(peer.ip());
        match self.slots.take((!is_proxy).then_some(peer.ip())) {
            Ok(slot) => {
                let connection =
                    ClientConnection { client: peer, slot: Arc::new(slot), visit: None };
                self.tasks.spawn(converse(
                    stream,
                    connection,
                    self.answers.clone(),
                    Arc::clone(&self.protocol),
                    self.options.clone(),
                    self.telemetry.clone(),
                    self.stop.clone(),
                ));
            }
            Err(reason) => {
                // Beyond this many the connection is closed without a word.
                if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                    self.tasks.spawn(async move {
                        say_no_room(stream, reason).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    mut connection: ClientConnection,
    answers: Answers,
    protocol: Arc<auto::Builder<Streams>>,
    options: Options,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    if options.proxy_protocol && options.trusts(connection.client.ip()) {
        let header = tokio::select! {
            header = timeout(options.header_timeout, proxy_protocol::read(&mut stream)) => header,
            () = connection.slot.evicted() => return,
        };
        match header.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(client) => {
                connection.client = client.unwrap_or(connection.client);
                let is_proxy = options.trusts(connection.client.ip());
                if !is_proxy && connection.slot.belongs_to(connection.client.ip()).is_err() {
                    return say_no_room(stream, NoSlot::Address).await;
                }
            }
            Err(error) => {
                let proxy = connection.client;
                tracing::debug!(%error, %proxy, "a trusted proxy did not say whose connection it is");
                return;
            }
        }
    }
    let (peer, slot) = (connection.client, Arc::clone(&connection.slot));
    let pulse = Pulse::new(options.header_timeout, options.idle_timeout);
    let is_proxy = options.trusts(peer.ip());
    let service = service_fn({
        let (pulse, trusted) = (pulse.clone(), options.trusted_proxies.clone());
        let telemetry = telemetry.clone();
        move |request: http::Request<Incoming>| {
            let client = forwarded::client(connection.client, request.headers(), &trusted);
            let connection = ClientConnection { client, ..connection.clone() };
            let (answers, pulse, telemetry) = (answers.clone(), pulse.clone(), telemetry.clone());
            answer(answers, request, pulse, connection, is_proxy, telemetry)
        }
    });
    let answering = Answering::new(options.write_timeout, telemetry.clone());
    let stream = Impatient::new(
        Tapped::new(stream, pulse.clone()),
        options.write_timeout,
        telemetry.clone(),
    );
    let mut talk = pin!(protocol.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut is_ending = false;
    let ended = loop {
        tokio::select! {
            biased; // what has come shows whether anything is late
            ended = answering.during(talk.as_mut()) => break ended,
            () = answering.cut_off() => return,
            () = slot.evicted() => return,
            lapse = pulse.lapse() => {
                if lapse == Lapse::Headers || is_ending {
                    return;
                }
                is_ending = true;
                pulse.end();
                talk.as_mut().graceful_shutdown();
            }
            () = stop.cancelled() => {
                talk.as_mut().graceful_shutdown();
                let rest = async {
                    tokio::select! {
                        ended = answering.during(talk.as_mut()) => Some(ended),
                        () = answering.cut_off() => None,
                    }
                };
                match timeout(options.drain, rest).await {
                    Ok(Some(ended)) => break ended,
                    Ok(None) => return,
                    Err(_) => {
                        tracing::info!(%peer, "a request did not end in time and was cut off");
                        return;
                    }
                }
            }
        }
    };
    if let Err(error) = ended {
        if is_headers_too_large(&*error) {
            telemetry.hit(Limit::Headers);
        }
        // Clients break off whenever they like; that is their business.
        tracing::debug!(%peer, %error, "a connection ended with an error");
    }
}

async fn answer(
    answers: Answers,
    request: http::Request<Incoming>,
    pulse: Pulse,
    mut connection: ClientConnection,
    is_proxy: bool,
    telemetry: Telemetry,
) -> Result<Response<Body>, Infallible> {
    let (version, is_head) = (request.version(), request.method() == Method::HEAD);
    let under_way = pulse.begin(request.method(), version);
    let (parts, body) = request.into_parts();
    // An HTTP/2 stream that is not read to its end takes nothing from the others.
    let (body, rest) = match version {
        Version::HTTP_2 => (Body::new(body), None),
        _ => UnreadBody::of(body, parts.headers.contains_key(header::EXPECT), &pulse),
    };
    let mut request = Request::from_parts(parts, body);
    connection.slot.touch();
    let visit = match is_proxy {
        true => connection.slot.visit(connection.client.ip()).map(|visit| Some(Arc::new(visit))),
        false => Ok(None),
    };
    let (mut response, visit) = match visit {
        Ok(visit) => {
            connection.visit.clone_from(&visit);
            request.extensions_mut().insert(connection);
            (answers.oneshot(request).await?, visit)
        }
        Err(_) => {
            drop(request); // what it has not read of the body is read below
            let problem = Problem::too_many_from_address();
            telemetry.refused(problem.code());
            (problem.into_response(), None)
        }
    };
    if let Some(rest) = rest
        && !rest.read_on().await
    {
        pulse.leave_body();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if is_head {
        response = without_body(response);
    }
    Ok(answering::watch(response, version, (under_way, visit)))
}

/// An answer to HEAD has no body, but the length that the body would have (RFC 9110 section 9.3.2). Over HTTP/2,
/// nothing else sets it for requests that were refused before they had a route.
fn without_body(response: Response<Body>) -> Response<Body> {
    if http_body::Body::is_end_stream(response.body()) {
        return response; // the route has seen to it
    }
    let length = http_body::Body::size_hint(response.body()).exact();
    let mut response = response.map(|_| Body::empty());
    if let Some(length) = length {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    response
}

fn is_headers_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_parse_too_large)
}

#[cfg(test)]
mod tests;
