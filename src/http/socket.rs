//! One open socket: drives its conversation and its bytes, in one task.
//!
//! The inbox is never read while the outbox is written in part, because reading may write a pong.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use tokio::{net::TcpStream, task::unconstrained, time::Sleep};

use super::{
    AppState,
    connection_slots::{ConnectionSlot, Visit},
    conversation::{Acted, BURST, Conversation},
    handshake::{Opening, SocketRefusal},
    inbox::{Arrival, Inbox},
    linger::{CloseMessage, linger},
    server,
};
use crate::{dialect::Dialect, protocol::CloseCode, session::Action, telemetry::Limit};

/// Rounds in one turn, after which others get theirs.
const ROUNDS: usize = 64;

pub(super) struct Socket {
    stream: TcpStream,
    inbox: Inbox,
    conversation: Conversation,
    slot: Arc<ConnectionSlot>,
    visit: Option<Arc<Visit>>,
    /// Resolves when the slot was taken away, while it may be.
    eviction: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whether the stream or the timer woke the task, so that they are to be polled.
    woken: bool,
    timer: Pin<Box<Sleep>>,
}

enum End {
    /// The other side is gone.
    Gone,
    Close(CloseCode, String),
    /// Somebody else has its slot.
    Evicted,
}

impl Socket {
    /// Serves the socket to its end, in a task of its own; `read` is what was already read from it. A refusal is sent
    /// in `dialect`.
    pub(super) fn start(
        state: AppState,
        (stream, read): (TcpStream, Vec<u8>),
        from: server::ClientConnection,
        opening: Result<Opening, SocketRefusal>,
        dialect: Dialect,
    ) {
        let (tasks, telemetry) = (state.tasks.clone(), state.terms.telemetry.clone());
        match opening.and_then(|opening| converse(state, &from, opening)) {
            Ok(conversation) => {
                let mut socket = Self::new(conversation, stream, read, from);
                tasks.spawn(async move {
                    let end = poll_fn(|cx| socket.poll(cx)).await;
                    // On the heap, where it takes room only once it is needed.
                    if let Some(close) = socket.close(end).map(Box::pin) {
                        close.await;
                    }
                });
            }
            Err((code, reason)) => {
                telemetry.closed(code.name());
                let message = CloseMessage::of(code, &reason, dialect);
                tasks.spawn(leave(stream, message, from.slot, from.visit));
            }
        }
    }

    fn new(
        conversation: Conversation,
        stream: TcpStream,
        read: Vec<u8>,
        from: server::ClientConnection,
    ) -> Self {
        // What strangers begin and never end is held for each of them: little, until they say who they are.
        let principal = conversation.session().principal();
        let is_known = principal.is_some_and(|principal| principal.is_known());
        let limits = &conversation.state().terms.limits;
        let longest = if is_known { limits.frame } else { limits.frame.min(limits.small_body) };
        let inbox = Inbox::new(read, longest.as_usize());
        let timer = Box::pin(tokio::time::sleep_until(conversation.next_time().into()));
        Self {
            stream,
            inbox,
            conversation,
            eviction: eviction(&from.slot),
            slot: from.slot,
            visit: from.visit,
            woken: true,
            timer,
        }
    }

    /// What is said to who is still there; cursors end before, and so does the entry among the connections.
    fn close(self, end: End) -> Option<impl Future<Output = ()> + Send> {
        let dialect = self.conversation.session().dialect();
        let message = match end {
            End::Gone => return None,
            End::Close(code, reason) => CloseMessage::of(code, &reason, dialect),
            End::Evicted => CloseMessage::of_evicted(dialect),
        };
        self.conversation.telemetry().closed(message.code.name());
        Some(leave(self.stream, message, self.slot, self.visit))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.conversation.listen(cx.waker());
        self.woken |= self.conversation.take_woken();
        if self.woken {
            self.conversation.take_order();
        }
        if self.woken && self.poll_eviction().is_ready() {
            return Poll::Ready(End::Evicted);
        }
        loop {
            let mut is_busy = true;
            for _ in 0..ROUNDS {
                match self.poll_write() {
                    Poll::Pending => {
                        is_busy = false;
                        break;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                    Poll::Ready(Ok(())) => {}
                }
                if let Some(closing) = self.conversation.take_closing() {
                    return Poll::Ready(End::Close(closing.0, closing.1));
                }
                if self.act(cx) || self.conversation.fill(cx) {
                    continue;
                }
                if self.conversation.is_waiting() || !self.woken {
                    is_busy = false;
                    break; // the next message waits until the last one is done
                }
                match self.poll_read() {
                    Poll::Pending => {
                        is_busy = false;
                        break;
                    }
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(End::Gone),
                }
            }
            // Whatever comes or goes, the timers run.
            let may_hold_more = is_busy && self.woken;
            let time = self.poll_timer();
            self.woken |= may_hold_more;
            if is_busy {
                cx.waker().wake_by_ref();
            }
            ready!(time);
            let now = self.conversation.state().now().instant;
            if self.conversation.outbox.stuck_until().is_some_and(|until| until <= now) {
                self.conversation.telemetry().hit(Limit::WriteTimeout);
                let reason = "a write was not taken in time".to_owned();
                return Poll::Ready(End::Close(CloseCode::TooSlow, reason));
            }
            self.conversation.tick();
        }
    }

    fn poll_eviction(&mut self) -> Poll<()> {
        let Some(eviction) = &mut self.eviction else { return Poll::Pending };
        let waker = self.conversation.waker();
        // However many bytes came in this turn.
        pin!(unconstrained(eviction.as_mut())).poll(&mut Context::from_waker(&waker))
    }

    /// Writes what is to be written.
    fn poll_write(&mut self) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.inbox.flush(&self.stream);
            match flushed.and_then(|()| self.conversation.outbox.write(&self.stream)) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let waker = self.waker();
                    match self.stream.poll_write_ready(&mut Context::from_waker(&waker)) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            let timeout = self.conversation.state().terms.config.write_timeout.0;
                            self.conversation.outbox.stick(timeout);
                            return Poll::Pending;
                        }
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The waker of the stream and the timer.
    fn waker(&self) -> Waker {
        self.conversation.waker()
    }

    /// Does the next thing; true if there was something.
    fn act(&mut self, cx: &mut Context<'_>) -> bool {
        let act = self.conversation.act(cx);
        if act == Acted::Identified {
            let principal = self.conversation.session().principal();
            if principal.is_some_and(|principal| principal.is_known()) {
                self.slot.know();
                self.eviction = eviction(&self.slot);
            }
            self.inbox.allow(self.conversation.state().terms.limits.frame.as_usize());
        }
        act != Acted::Nothing
    }

    /// Reads one message; false when the other side is gone.
    fn poll_read(&mut self) -> Poll<bool> {
        let waker = self.waker();
        let cx = &mut Context::from_waker(&waker);
        let incoming = self.inbox.poll_next(&self.stream, cx);
        let fragments = self.inbox.take_fragments();
        if fragments > 0 && self.conversation.fragments(fragments) {
            return Poll::Ready(true);
        }
        match ready!(incoming) {
            Arrival::Text(text) => self.conversation.text(&text),
            Arrival::Binary => self.conversation.other(true),
            Arrival::Control => self.conversation.other(false),
            Arrival::TooLong(reason) => {
                self.conversation.telemetry().hit(Limit::Frame);
                self.conversation.then([Action::Close(CloseCode::BadMessage, reason)]);
            }
            Arrival::Broken(reason) => {
                self.conversation.then([Action::Close(CloseCode::BadMessage, reason)]);
            }
            Arrival::Close => {} // it is answered, and the end follows
            Arrival::Gone => return Poll::Ready(false),
        }
        Poll::Ready(true)
    }

    /// Ready when the session or a stuck write wants the time.
    fn poll_timer(&mut self) -> Poll<()> {
        let stuck_until = self.conversation.outbox.stuck_until();
        if !self.woken && stuck_until.is_none() {
            return Poll::Pending; // nothing was heard, so the session wants no other time
        }
        let next = self.conversation.next_time();
        let next = stuck_until.map_or(next, |until| until.min(next));
        if next != self.timer.deadline().into_std() {
            self.timer.as_mut().reset(next.into());
        } else if !self.woken {
            return Poll::Pending;
        }
        let waker = self.waker();
        // However many bytes came in this turn.
        let timer = pin!(unconstrained(self.timer.as_mut()));
        let polled = timer.poll(&mut Context::from_waker(&waker));
        // While something is waited for, what the stream may hold is not forgotten.
        self.woken = polled.is_ready() || self.conversation.is_waiting() || stuck_until.is_some();
        polled
    }
}

fn converse(
    state: AppState,
    from: &server::ClientConnection,
    opening: Opening,
) -> Result<Conversation, SocketRefusal> {
    let (principal, only) = match opening {
        Opening::Messages(principal, token) => {
            return Ok(Conversation::new(state, from.client, principal, token));
        }
        Opening::Only(principal, only) => (principal, *only),
    };
    let (mut conversation, subscription) =
        Conversation::only(state, from.client, principal, only, BURST)
            .map_err(|error| (error.close_code(), error.to_string()))?;
    conversation.then([Action::Identify(None), Action::Subscribe(None, subscription)]);
    Ok(conversation)
}

/// Resolves when the slot is taken away; None if it no longer can be.
fn eviction(slot: &Arc<ConnectionSlot>) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
    let slot = slot.is_at_risk().then(|| Arc::clone(slot))?;
    Some(Box::pin(async move { slot.evicted().await }))
}

/// Counted among the connections to the very end.
async fn leave(
    stream: TcpStream,
    message: CloseMessage,
    slot: Arc<ConnectionSlot>,
    visit: Option<Arc<Visit>>,
) {
    tokio::select! {
        () = linger(stream, &message.bytes, message.patience) => {}
        () = slot.evicted() => {}
    }
    drop(visit);
}
