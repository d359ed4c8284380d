//! A request's body that its handler may leave unread, and what happens to it then.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::task::yield_now;

use super::pulse::Pulse;

/// What a handler has left of a body, to be looked after once it has answered.
pub(super) struct UnreadBody(Arc<Mutex<BodySlot>>);

enum BodySlot {
    /// The handler has it.
    Away,
    Left(Incoming),
    /// The handler did not want it, and the client waits to be invited to send it.
    Unasked,
    /// It was read to its end, or nobody reads it any more.
    Over,
}

/// Bytes of a body left unread for which a connection is kept.
const LITTLE: usize = 64 * 1024;

/// Times that the connection is given a turn to read on.
const TURNS: usize = 8;

impl UnreadBody {
    /// The body for the handler, and what it leaves of it; `waits` if the client sends it only when invited (RFC 9110
    /// section 10.1.1), which the first look at the body does.
    pub(super) fn of(body: Incoming, waits: bool, pulse: &Pulse) -> (Body, Option<Self>) {
        if body.is_end_stream() {
            return (Body::new(body), None);
        }
        let slot = Arc::new(Mutex::new(BodySlot::Away));
        let (slot_of_body, pulse) = (Arc::clone(&slot), pulse.clone());
        let sent = SentBody { body: Some(body), is_unasked: waits, slot: slot_of_body, pulse };
        (Body::new(sent), Some(Self(slot)))
    }

    /// Reads what has arrived; true if that was all, so that the connection can be used again.
    pub(super) async fn read_on(self) -> bool {
        let mut body = match std::mem::replace(&mut *self.0.lock(), BodySlot::Over) {
            BodySlot::Left(body) => body,
            BodySlot::Unasked => return false,
            BodySlot::Away | BodySlot::Over => return true,
        };
        let (mut length, mut turns) = (0, 0);
        while length <= LITTLE && turns < TURNS {
            let next = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx)));
            match next.await {
                Poll::Ready(Some(Ok(frame))) => length += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(Some(Err(_))) => return false,
                Poll::Ready(None) => return true,
                Poll::Pending => {
                    turns += 1;
                    yield_now().await;
                }
            }
        }
        false
    }
}

/// The body as the handler has it.
struct SentBody {
    /// There until it is dropped.
    body: Option<Incoming>,
    /// Whether it was never read and the client waits for `100 Continue`.
    is_unasked: bool,
    slot: Arc<Mutex<BodySlot>>,
    pulse: Pulse,
}

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_unasked = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            // All that came before was handed on already, and no more will come.
            Poll::Pending if self.pulse.holds_eof() => {
                let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                Poll::Ready(Some(Err(axum::Error::new(ended))))
            }
            Poll::Ready(None) => {
                self.body = None;
                *self.slot.lock() = BodySlot::Over;
                Poll::Ready(None)
            }
            other => other.map_err(axum::Error::new),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for SentBody {
    fn drop(&mut self) {
        let mut slot = self.slot.lock();
        if let (BodySlot::Away, Some(body)) = (&*slot, self.body.take()) {
            *slot = match body.is_end_stream() {
                true => BodySlot::Over,
                false if self.is_unasked => BodySlot::Unasked,
                false => BodySlot::Left(body),
            };
        }
    }
}
