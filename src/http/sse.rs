//! `GET /sse/real-time`: server-sent events for those who cannot hold a WebSocket.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, header};
use tokio::time::Sleep;

use super::{
    AppState, Problem,
    answering::EndWhen,
    handshake::{self, Handshake},
    server, websocket,
};
use crate::{
    auth::CredentialId,
    hub::{Bell, Cursor, Form, Hub, Item, Subscription},
    session::{Connection, ConnectionKind, Order},
    telemetry::Telemetry,
};

/// From now it is never, and later might be more than an `Instant` can say.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Starts the stream; everything that can be refused is refused before.
pub(super) async fn stream(State(state): State<AppState>, request: Request) -> Response {
    match open(&state, request).await {
        Ok(stream) => {
            let ended = EndWhen::new(stream.ended());
            let mut response = Response::new(Body::from_stream(stream));
            response.extensions_mut().insert(ended);
            let headers = response.headers_mut();
            for (name, value) in [
                (header::CONTENT_TYPE, "text/event-stream"),
                (header::CACHE_CONTROL, "no-store"),
                (header::HeaderName::from_static("x-accel-buffering"), "no"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            response
        }
        Err(problem) => problem.into_response(),
    }
}

async fn open(state: &AppState, request: Request) -> Result<Events, Problem> {
    let (parts, _) = request.into_parts();
    let handshake = Handshake::read(&parts, state.settings.query_token)?;
    if !handshake::is_allowed_origin(&parts, &state.settings.http.allowed_origins) {
        return Err(Problem::foreign_origin());
    }
    let last_event_id = parts.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last_event_id = last_event_id.filter(|id| !id.is_empty());
    let now = state.now();
    let subscription = handshake
        .query
        .subscription(Some(Form::Sse), last_event_id, &state.terms.limits, now)
        .map_err(Problem::bad_request)?;
    let principal = websocket::identify(state, &handshake).await.map_err(Problem::from)?;
    let principal = principal.ok_or_else(Problem::unauthorized)?;
    let refused = |pattern: &&crate::topic::TopicPattern| !principal.may_subscribe(pattern);
    if let Some(pattern) = subscription.filter.patterns().iter().find(refused) {
        return Err(Problem::forbidden(&[format!("subscribe {pattern}")]));
    }
    let from = parts.extensions.get::<server::Connection>();
    let from = from.ok_or_else(|| Problem::bad_request("no connection"))?;
    let peer = from.client;
    let bell = Arc::new(Bell::default());
    let connection = state.connections.enter(ConnectionKind::Sse, peer, bell.clone(), now.wall);
    if !connection.identify(principal.clone(), None) {
        return Err(Problem::too_many_connections());
    }
    if principal.credential != CredentialId::Anonymous {
        from.seat.know();
    }
    let owner = Some(state.terms.owner(&principal));
    let subscription = Subscription { owner, ..subscription };
    let (cursor, start) = state.hub.subscribe(subscription, bell.clone()).await?;
    connection.set_lags([("sse".into(), cursor.lag())].into());
    let left = principal.expires.map(|expires| expires.saturating_sub(now.wall));
    let heartbeat = state.terms.config.ping.0;
    let ends = left.map(|left| now.instant + Duration::from_millis(left).min(CENTURY));
    let first = ends.map_or(heartbeat, |ends| heartbeat.min(ends - now.instant));
    Ok(Events {
        hub: state.hub.clone(),
        cursor,
        connection: Arc::new(connection),
        bell,
        telemetry: state.terms.telemetry.clone(),
        ends,
        begun: false,
        truncated: start.replay_truncated,
        ending: Arc::default(),
        heartbeat,
        timer: Box::pin(tokio::time::sleep(first)),
    })
}

/// The body of the stream.
struct Events {
    hub: Hub,
    cursor: Cursor,
    connection: Arc<Connection>,
    bell: Arc<Bell>,
    telemetry: Telemetry,
    /// When the credentials run out.
    ends: Option<Instant>,
    begun: bool,
    /// Whether fewer events are replayed than were asked for.
    truncated: bool,
    /// Whether it was told to end: its last words are being said.
    ending: Arc<AtomicBool>,
    heartbeat: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Events {
    /// Resolves when the stream has to end, which it does by itself while it is read.
    fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let (connection, bell) = (Arc::clone(&self.connection), Arc::clone(&self.bell));
        let (ends, ending) = (self.ends, Arc::clone(&self.ending));
        async move {
            let told = poll_fn(|cx| {
                // Whoever reads nothing is not asked by the bell any more: it would ring once and then wake nobody.
                bell.listen(cx.waker());
                let is_ending = connection.is_told() || ending.load(Ordering::Relaxed);
                if is_ending { Poll::Ready(()) } else { Poll::Pending }
            });
            let expired = async {
                match ends {
                    Some(ends) => tokio::time::sleep_until(ends.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = told => {}
                () = expired => {}
            }
        }
    }
}

impl Stream for Events {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.bell.listen(cx.waker());
        let now = Instant::now();
        if this.ends.is_some_and(|ends| ends <= now) {
            return Poll::Ready(None);
        }
        if !this.begun {
            this.begun = true;
            // Says at once that the stream stands, and where it begins; but who lost this stream before it heard
            // what lies before that would never hear it.
            let mut begins = match this.cursor.is_owing() {
                true => ":\n\n".to_owned(),
                false => format!("id: {}\n\n", this.cursor.position()),
            };
            if this.truncated {
                begins.push_str("event: hub.replay_truncated\ndata: {}\n\n");
            }
            return Poll::Ready(Some(Ok(begins.into())));
        }
        match this.connection.order() {
            Some(Order::Revoked) => return Poll::Ready(None),
            Some(Order::Reconnect { after_ms }) => {
                // The delay is sent, and the next poll ends the stream.
                this.ends = Some(now);
                this.ending.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(format!("retry: {after_ms}\n\n").into())));
            }
            None => {}
        }
        let head = this.hub.head();
        while let Poll::Ready(item) = this.cursor.poll_next(cx) {
            match item {
                Item::Frame(frame) => {
                    this.telemetry.deliveries.inc_by(frame.events as u64);
                    this.telemetry.frames.inc();
                    return Poll::Ready(Some(Ok(frame.bytes)));
                }
                Item::Live(_) => {}
                Item::Gap(gap) => {
                    this.telemetry.gap(gap.reason.name());
                    let (from, to, reason) = (gap.from, gap.to, gap.reason.name());
                    let text = format!(
                        "id: {to}\nevent: hub.gap\ndata: {{\"from\":\"{from}\",\"to\":\"{to}\",\"reason\":\"{reason}\"}}\n\n"
                    );
                    return Poll::Ready(Some(Ok(text.into())));
                }
                Item::Failed(error) => {
                    tracing::error!(%error, "a subscriber's history cannot be read");
                    return Poll::Ready(None);
                }
            }
        }
        if this.timer.as_mut().poll(cx).is_ready() {
            let mut next = now + this.heartbeat;
            if let Some(ends) = this.ends {
                next = next.min(ends);
            }
            this.timer.as_mut().reset(next.into());
            // An id without data moves Last-Event-ID and fires nothing.
            if this.cursor.settle(head.offset) {
                return Poll::Ready(Some(Ok(format!("id: {head}\n\n").into())));
            }
            return Poll::Ready(Some(Ok(Bytes::from_static(b":\n\n"))));
        }
        Poll::Pending
    }
}
