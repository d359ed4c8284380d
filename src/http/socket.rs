//! One open socket: drives its session, its cursors and its bytes, in one task.
//!
//! The inbox is never read while the outbox is written in part, because reading may write a pong.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use tokio::{net::TcpStream, task::unconstrained, time::Sleep};

use super::{
    AppState,
    farewell::{Words, say_farewell},
    handshake::{Opening, Refusal},
    inbox::{Inbox, Incoming},
    outbox::Outbox,
    seats::{Seat, Visit},
    server,
    work::{self, Done, Work},
};
use crate::{
    auth::{CredentialId, Principal},
    hub::{Bell, Cursor, Item},
    protocol::CloseCode,
    session::{Action, Connection, ConnectionKind, Order, Session, Talk},
    telemetry::Limit,
};

/// Events gathered for one write.
const BURST: usize = 64 << 10;
/// Rounds in one turn, after which others get theirs.
const ROUNDS: usize = 64;
pub(super) struct Socket {
    state: AppState,
    stream: TcpStream,
    inbox: Inbox,
    outbox: Outbox,
    session: Session,
    connection: Connection,
    seat: Arc<Seat>,
    visit: Option<Arc<Visit>>,
    /// Resolves when the seat was taken away, while it may be.
    eviction: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Rung by what the cursors follow; as a waker, by the stream and the timer.
    bell: Arc<Bell>,
    /// Whether the bell was used as a waker, so that stream and timer are to be polled.
    woken: bool,
    cursors: Vec<(Arc<str>, Cursor)>,
    /// Where the next turn of the cursors begins, so that none starves.
    turn: usize,
    actions: VecDeque<Action>,
    /// What the session waits for; nothing is read from the client meanwhile.
    work: Option<Work>,
    closing: Option<Box<(CloseCode, String)>>,
    timer: Pin<Box<Sleep>>,
}

enum End {
    /// The other side is gone.
    Gone,
    Close(CloseCode, String),
    /// Somebody else has its seat.
    Evicted,
}

impl Socket {
    /// Serves the socket to its end, in a task of its own; `read` is what was read of it already. Whoever is refused
    /// `speaks` messages or not.
    pub(super) fn start(
        state: AppState,
        (stream, read): (TcpStream, Vec<u8>),
        from: server::Connection,
        opening: Result<Opening, Refusal>,
        speaks: bool,
    ) {
        let tasks = state.tasks.clone();
        match opening {
            Ok(opening) => {
                let mut socket = Self::new(state, stream, read, from, opening);
                tasks.spawn(async move {
                    let end = poll_fn(|cx| socket.poll(cx)).await;
                    // On the heap, where it takes room only once it is needed.
                    if let Some(farewell) = socket.farewell(end).map(Box::pin) {
                        farewell.await;
                    }
                });
            }
            Err((code, reason)) => {
                state.terms.telemetry.closed(code.name());
                let words = Words::of(code, &reason, speaks);
                tasks.spawn(leave(stream, words, from.seat, from.visit));
            }
        }
    }

    fn new(
        state: AppState,
        stream: TcpStream,
        read: Vec<u8>,
        from: server::Connection,
        (talk, principal, token): Opening,
    ) -> Self {
        let now = state.now();
        let bell = Arc::new(Bell::default());
        let kind = match talk {
            Talk::Messages => ConnectionKind::Websocket,
            Talk::Simple(_) => ConnectionKind::Simple,
        };
        let connection = state.connections.enter(kind, from.client, bell.clone(), now.wall);
        // What strangers begin and never end is held for each of them: little, until they say who they are.
        let is_known = principal.as_ref().is_some_and(|principal| is_known(principal));
        let limits = &state.terms.limits;
        let longest = if is_known { limits.frame } else { limits.frame.min(limits.small_body) };
        let inbox = Inbox::new(read, longest.as_usize());
        let mut session = Session::new(
            state.terms.clone(),
            connection.name().into(),
            talk,
            principal,
            token,
            now,
        );
        let actions = session.begin().into();
        let timer_at = session.next_time();
        Self {
            inbox,
            state,
            stream,
            outbox: Outbox::default(),
            session,
            connection,
            eviction: eviction(&from.seat),
            seat: from.seat,
            visit: from.visit,
            bell,
            woken: true,
            cursors: Vec::new(),
            turn: 0,
            actions,
            work: None,
            closing: None,
            timer: Box::pin(tokio::time::sleep_until(timer_at.into())),
        }
    }

    /// What is said to who is still there; cursors end before, and so does the entry among the connections.
    fn farewell(self, end: End) -> Option<impl Future<Output = ()> + Send> {
        let words = match end {
            End::Gone => return None,
            End::Close(code, reason) => Words::of(code, &reason, self.session.speaks()),
            End::Evicted => Words::of_evicted(self.session.speaks()),
        };
        self.state.terms.telemetry.closed(words.code.name());
        Some(leave(self.stream, words, self.seat, self.visit))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.bell.listen(cx.waker());
        self.woken |= self.bell.take_woken();
        if self.woken
            && let Some(order) = self.connection.order()
        {
            let actions = self.session.order(order);
            if order == Order::Revoked {
                // What is under way and what still waits is no longer theirs to ask for.
                (self.work, self.actions) = (None, VecDeque::new());
            }
            self.actions.extend(actions);
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
                if let Some(closing) = self.closing.take() {
                    return Poll::Ready(End::Close(closing.0, closing.1));
                }
                if self.act(cx) || self.fill(cx) {
                    continue;
                }
                if self.work.is_some() || !self.woken {
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
            let now = self.state.now();
            if self.outbox.stuck_until().is_some_and(|until| until <= now.instant) {
                self.state.terms.telemetry.hit(Limit::WriteTimeout);
                let reason = "a write was not taken in time".to_owned();
                return Poll::Ready(End::Close(CloseCode::TooSlow, reason));
            }
            self.actions.extend(self.session.tick(now));
        }
    }

    fn poll_eviction(&mut self) -> Poll<()> {
        let Some(eviction) = &mut self.eviction else { return Poll::Pending };
        let waker = Waker::from(self.bell.clone());
        // However many bytes came in this turn.
        pin!(unconstrained(eviction.as_mut())).poll(&mut Context::from_waker(&waker))
    }

    /// Writes what is to be written.
    fn poll_write(&mut self) -> Poll<io::Result<()>> {
        loop {
            let flushed = self.inbox.flush(&self.stream);
            match flushed.and_then(|()| self.outbox.write(&self.stream)) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let waker = self.waker();
                    match self.stream.poll_write_ready(&mut Context::from_waker(&waker)) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            self.outbox.stick(self.state.terms.config.write_timeout.0);
                            return Poll::Pending;
                        }
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The bell as the waker of the stream and the timer.
    fn waker(&self) -> Waker {
        self.bell.clone().into()
    }

    /// Finishes what was waited for, or does the next thing the session asked for.
    fn act(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(work) = &mut self.work {
            let Poll::Ready(done) = work.as_mut().poll(cx) else { return false };
            self.work = None;
            self.done(done);
            return true;
        }
        let Some(action) = self.actions.pop_front() else { return false };
        if self.actions.is_empty() {
            self.actions = VecDeque::new(); // most of the time there are none: no room for them
        }
        match action {
            Action::Send(frame) => self.outbox.push(frame),
            Action::Ping => self.ping(cx),
            Action::Close(code, reason) => self.closing = Some(Box::new((code, reason))),
            Action::Identify(principal, name) => {
                let is_known = is_known(&principal);
                if self.connection.identify(principal, name) {
                    if is_known {
                        self.seat.know();
                        self.eviction = eviction(&self.seat);
                    }
                    self.inbox.allow(self.state.terms.limits.frame.as_usize());
                } else {
                    let actions = self.session.too_many();
                    self.actions = actions.into(); // nothing else is theirs to ask for
                }
            }
            Action::Unsubscribe(sub) => {
                self.cursors.retain(|(name, _)| *name != sub);
                self.show_lags();
            }
            Action::Authenticate(token) => self.work = Some(work::authenticate(&self.state, token)),
            Action::Subscribe(id, sub, subscription) => {
                let bell = self.bell.clone();
                self.work = Some(work::subscribe(&self.state, id, sub, subscription, bell));
            }
            Action::Publish(id, events, dropped) => {
                self.work = Some(work::publish(&self.state, id, events, dropped));
            }
        }
        true
    }

    fn done(&mut self, done: Done) {
        let now = self.state.now();
        let actions = match done {
            Done::Authenticated(outcome) => self.session.authenticated(outcome, now),
            Done::Published(id, dropped, outcome) => self.session.published(&id, &dropped, outcome),
            Done::Subscribed(id, sub, outcome) => {
                let outcome = outcome.map(|(cursor, start)| {
                    self.cursors.reserve_exact(1); // most clients have one
                    self.cursors.push((sub.clone(), cursor));
                    self.show_lags();
                    start
                });
                self.session.subscribed(id.as_ref(), &sub, outcome)
            }
        };
        // Before what was asked for earlier and still waits, such as further subscriptions.
        for action in actions.into_iter().rev() {
            self.actions.push_front(action);
        }
    }

    /// Takes what the cursors have, up to a burst; true if there was something.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut bytes, mut events, mut frames) = (0, 0, 0);
        let count = self.cursors.len();
        'cursors: for step in 0..count {
            let index = (self.turn + step) % count;
            loop {
                if bytes >= BURST {
                    self.turn = index;
                    break 'cursors;
                }
                let (sub, cursor) = &mut self.cursors[index];
                let Poll::Ready(item) = cursor.poll_next(cx) else { break };
                match item {
                    Item::Frame(frame) => {
                        bytes += frame.bytes.len();
                        events += frame.events as u64;
                        frames += 1;
                        self.outbox.push(frame.bytes);
                    }
                    Item::Live(position) => {
                        if let Some(frame) = self.session.live(sub, position) {
                            self.outbox.push(frame);
                        }
                    }
                    Item::Gap(gap) => {
                        for action in self.session.gap(sub, gap) {
                            match action {
                                Action::Send(frame) => self.outbox.push(frame),
                                other => self.actions.push_back(other),
                            }
                        }
                        break 'cursors;
                    }
                    Item::Failed(error) => {
                        tracing::error!(%error, "a subscriber's history cannot be read");
                        let close = Action::Close(CloseCode::Overloaded, error.to_string());
                        self.actions.push_back(close);
                        // Until it closes, which may wait for work, nobody asks the log in vain.
                        self.cursors = Vec::new();
                        self.show_lags();
                        break 'cursors;
                    }
                }
            }
        }
        let telemetry = &self.state.terms.telemetry;
        if frames > 0 {
            telemetry.deliveries.inc_by(events);
            telemetry.frames.inc_by(frames);
        }
        !self.outbox.is_empty() || !self.actions.is_empty()
    }

    /// The head first, then what the cursors have, then who has all of it.
    fn ping(&mut self, cx: &mut Context<'_>) {
        let head = self.state.hub.head();
        self.fill(cx);
        let mut caught_up = Vec::new();
        for (sub, cursor) in &mut self.cursors {
            if cursor.settle(head.offset) {
                caught_up.push(&**sub);
            }
        }
        let ping = self.session.ping(head, caught_up, self.state.now());
        self.outbox.push(ping);
    }

    /// Reads one message; false when the other side is gone.
    fn poll_read(&mut self) -> Poll<bool> {
        let waker = self.waker();
        let cx = &mut Context::from_waker(&waker);
        let incoming = self.inbox.poll_next(&self.stream, cx);
        let fragments = self.inbox.take_fragments();
        if fragments > 0 {
            let actions = self.session.fragments(fragments, self.state.now());
            let is_over = !actions.is_empty();
            self.actions.extend(actions);
            if is_over {
                return Poll::Ready(true);
            }
        }
        let incoming = ready!(incoming);
        let now = self.state.now();
        let actions = match incoming {
            Incoming::Text(text) => self.session.text(&text, now),
            Incoming::Binary => self.session.other(true, now),
            Incoming::Control => self.session.other(false, now),
            Incoming::TooLong(reason) => {
                self.state.terms.telemetry.hit(Limit::Frame);
                vec![Action::Close(CloseCode::BadMessage, reason)]
            }
            Incoming::Broken(reason) => vec![Action::Close(CloseCode::BadMessage, reason)],
            Incoming::Close => return Poll::Ready(true), // it is answered, and the end follows
            Incoming::Gone => return Poll::Ready(false),
        };
        self.actions.extend(actions);
        Poll::Ready(true)
    }

    /// Ready when the session or a stuck write wants the time.
    fn poll_timer(&mut self) -> Poll<()> {
        if !self.woken && self.outbox.stuck_until().is_none() {
            return Poll::Pending; // nothing was heard, so the session wants no other time
        }
        let next = self.session.next_time();
        let next = self.outbox.stuck_until().map_or(next, |until| until.min(next));
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
        self.woken =
            polled.is_ready() || self.work.is_some() || self.outbox.stuck_until().is_some();
        polled
    }

    fn show_lags(&self) {
        let lags = self.cursors.iter().map(|(sub, cursor)| (sub.clone(), cursor.lag()));
        self.connection.set_lags(lags.collect());
    }
}

/// Whether it is somebody who has shown credentials.
fn is_known(principal: &Principal) -> bool {
    principal.credential != CredentialId::Anonymous
}

/// Resolves when the seat was taken away; none if nobody can any more.
fn eviction(seat: &Arc<Seat>) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
    let seat = seat.is_at_risk().then(|| Arc::clone(seat))?;
    Some(Box::pin(async move { seat.evicted().await }))
}

/// Counted among the connections to the very end.
async fn leave(stream: TcpStream, words: Words, seat: Arc<Seat>, visit: Option<Arc<Visit>>) {
    tokio::select! {
        () = say_farewell(stream, &words.bytes, words.patience) => {}
        () = seat.evicted() => {}
    }
    drop(visit);
}
