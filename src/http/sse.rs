//! `GET /sse/real-time`: server-sent events for those who cannot hold a WebSocket.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Version, header};
use tokio::time::Sleep;

use super::{
    AppState, Problem,
    answering::EndWhen,
    conversation::{Acted, Conversation},
    handshake::{self, Handshake},
    pending::Done,
    server, websocket,
};
use crate::dialect::Dialect;

/// A response takes one frame at a time. More frames would only wait, and would still be sent after an order to end.
const BURST: usize = 1;

/// Starts the stream. Refusals come before that, as an ordinary answer.
pub(super) async fn stream(State(state): State<AppState>, request: Request) -> Response {
    let version = request.version();
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
            if version < Version::HTTP_2 {
                // Whoever waits for the end of the connection sees that the stream has ended.
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
        Err(problem) => problem.into_response(),
    }
}

pub(super) async fn open(state: &AppState, request: Request) -> Result<EventStream, Problem> {
    let (parts, _) = request.into_parts();
    let handshake = Handshake::read(&parts, state.settings.query_token)?;
    if !handshake::is_allowed_origin(&parts, &state.settings.http.allowed_origins) {
        return Err(Problem::foreign_origin());
    }
    let last_event_id = parts.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let (limits, now) = (&state.terms.limits, state.now());
    let only = handshake
        .query
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|asked| asked.subscription(Dialect::Sse, last_event_id, limits, now))
        .map_err(Problem::bad_request)?;
    let principal = websocket::identify(state, &handshake).await.map_err(Problem::from)?;
    let principal = Some(principal.ok_or_else(Problem::unauthorized)?);
    let from = parts.extensions.get::<server::ClientConnection>();
    let from = from.ok_or_else(|| Problem::bad_request("no connection"))?;
    let (mut conversation, subscription) =
        Conversation::only(state.clone(), from.client, principal, only, BURST)?;
    // Refused here, because it cannot be refused once the answer has begun.
    conversation.session().identify(None).map_err(|_| Problem::too_many_connections())?;
    if conversation.session().principal().is_some_and(|principal| principal.is_known()) {
        from.slot.know();
    }
    let form = subscription.form.clone();
    let begun = state.hub.subscribe(subscription, conversation.task_waker().clone()).await?;
    conversation.done(Done::Subscribed(None, form, Ok(begun)));
    let timer = Box::pin(tokio::time::sleep_until(conversation.next_time().into()));
    Ok(EventStream { conversation, ending: Arc::default(), timer })
}

/// The body of the stream.
pub(super) struct EventStream {
    conversation: Conversation,
    /// Whether it was ordered to end and is sending its last blocks.
    ending: Arc<AtomicBool>,
    timer: Pin<Box<Sleep>>,
}

impl EventStream {
    /// Resolves when the stream has to end. A stream that is read ends by itself; this ends one whose client reads nothing.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let (is_told, task_waker) =
            (self.conversation.connection().told(), Arc::clone(self.conversation.task_waker()));
        let (expires, ending) = (self.conversation.session().expires(), Arc::clone(&self.ending));
        async move {
            let told = poll_fn(|cx| {
                // If the client reads nothing, nobody polls the stream. Its waker would be notified once and never again.
                task_waker.listen(cx.waker());
                let is_ending = is_told() || ending.load(Ordering::Relaxed);
                if is_ending { Poll::Ready(()) } else { Poll::Pending }
            });
            let expired = async {
                match expires {
                    Some(expires) => tokio::time::sleep_until(expires.into()).await,
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

impl Stream for EventStream {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.conversation.listen(cx.waker());
        if this.conversation.take_order() {
            this.ending.store(true, Ordering::Relaxed);
        }
        if this.conversation.session().expires().is_some_and(|expires| expires <= Instant::now()) {
            return Poll::Ready(None);
        }
        loop {
            if let Some(frame) = this.conversation.outbox.pop() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if this.conversation.is_closing() {
                return Poll::Ready(None);
            }
            if this.conversation.act(cx) != Acted::Nothing || this.conversation.fill(cx) {
                continue;
            }
            let next = this.conversation.next_time();
            if next != this.timer.deadline().into_std() {
                this.timer.as_mut().reset(next.into());
            }
            ready!(this.timer.as_mut().poll(cx));
            this.conversation.tick();
        }
    }
}
