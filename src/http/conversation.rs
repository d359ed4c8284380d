//! A conversation under way: a session, its cursors, and what waits to be said. What carries its bytes, a socket or a
//! response, is somebody else's business.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use secrecy::SecretString;

use super::{
    AppState,
    outbox::Outbox,
    work::{self, Done, Work},
};
use crate::{
    auth::Principal,
    connections::{Connection, Order},
    dialect::Dialect,
    hub::{Bell, Cursor, Item, Subscription},
    protocol::CloseCode,
    session::{Action, BeginError, Session},
    telemetry::Telemetry,
};

/// Bytes of events gathered for one write.
const BURST: usize = 64 << 10;

pub(super) struct Conversation {
    state: AppState,
    session: Session,
    connection: Connection,
    /// Rung by what the cursors follow.
    bell: Arc<Bell>,
    cursors: Vec<(Arc<str>, Cursor)>,
    /// Where the next turn of the cursors begins, so that none starves.
    turn: usize,
    actions: VecDeque<Action>,
    /// What the session waits for.
    work: Option<Work>,
    closing: Option<Box<Closing>>,
    /// What is to be said next.
    pub(super) outbox: Outbox,
}

/// How a conversation ends, and why.
pub(super) type Closing = (CloseCode, String);

/// What [`Conversation::act`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acted {
    /// Nothing: there was nothing to do, or what was begun is not done.
    Nothing,
    Something,
    /// Whose conversation it is has been noted.
    Identified,
}

impl Conversation {
    /// One that begins now; `principal` and `token` are what came with the request.
    pub(super) fn new(
        state: AppState,
        dialect: Dialect,
        client: SocketAddr,
        principal: Option<Arc<Principal>>,
        token: Option<SecretString>,
    ) -> Self {
        let now = state.now();
        let bell = Arc::new(Bell::default());
        let connection = state.connections.enter(dialect, client, bell.clone(), now.wall);
        let (terms, name) = (state.terms.clone(), connection.name().into());
        let session = Session::new(terms, name, dialect, principal, token, now);
        Self {
            state,
            session,
            connection,
            bell,
            cursors: Vec::new(),
            turn: 0,
            actions: VecDeque::new(),
            work: None,
            closing: None,
            outbox: Outbox::default(),
        }
    }

    /// What the session does to begin with the one subscription that the request asks for.
    pub(super) fn begin(&mut self, only: Subscription) -> Result<Vec<Action>, BeginError> {
        self.session.begin(only)
    }

    /// Does these, after what is still to be done.
    pub(super) fn then(&mut self, actions: impl IntoIterator<Item = Action>) {
        self.actions.extend(actions);
    }

    /// From now on the bell wakes `waker`.
    pub(super) fn listen(&self, waker: &Waker) {
        self.bell.listen(waker);
    }

    /// Whether the bell was used as a waker since it was last asked.
    pub(super) fn take_woken(&self) -> bool {
        self.bell.take_woken()
    }

    /// The bell as a waker.
    pub(super) fn waker(&self) -> Waker {
        self.bell.clone().into()
    }

    pub(super) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.state.terms.telemetry
    }

    pub(super) fn state(&self) -> &AppState {
        &self.state
    }

    /// Takes what it was told from outside; true if there was something, after which it ends.
    pub(super) fn take_order(&mut self) -> bool {
        let Some(order) = self.connection.order() else { return false };
        let actions = self.session.order(order);
        if order == Order::Revoked {
            // What is under way and what still waits is no longer theirs to ask for.
            (self.work, self.actions) = (None, VecDeque::new());
        }
        self.actions.extend(actions);
        true
    }

    /// A text message came in.
    pub(super) fn text(&mut self, text: &str) {
        let actions = self.session.text(text, self.state.now());
        self.actions.extend(actions);
    }

    /// Something came in that is no text.
    pub(super) fn other(&mut self, is_binary: bool) {
        let actions = self.session.other(is_binary, self.state.now());
        self.actions.extend(actions);
    }

    /// Parts of a message came in; whether they were too many.
    pub(super) fn fragments(&mut self, count: u32) -> bool {
        let actions = self.session.fragments(count, self.state.now());
        let is_over = !actions.is_empty();
        self.actions.extend(actions);
        is_over
    }

    /// It is time for what the session does by itself.
    pub(super) fn tick(&mut self) {
        let actions = self.session.tick(self.state.now());
        self.actions.extend(actions);
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn next_time(&self) -> Instant {
        self.session.next_time()
    }

    /// Whether the session waits for something, so that nothing more is to come in.
    pub(super) fn is_waiting(&self) -> bool {
        self.work.is_some()
    }

    /// Whether it ends once everything is said.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    pub(super) fn take_closing(&mut self) -> Option<Box<Closing>> {
        self.closing.take()
    }

    /// Finishes what was waited for, or does the next thing the session asked for.
    pub(super) fn act(&mut self, cx: &mut Context<'_>) -> Acted {
        if let Some(work) = &mut self.work {
            let Poll::Ready(done) = work.as_mut().poll(cx) else { return Acted::Nothing };
            self.work = None;
            self.done(done);
            return Acted::Something;
        }
        let Some(action) = self.actions.pop_front() else { return Acted::Nothing };
        if self.actions.is_empty() {
            self.actions = VecDeque::new(); // most of the time there are none: no room for them
        }
        match action {
            Action::Send(frame) => self.outbox.push(frame),
            Action::Ping => self.ping(cx),
            Action::Close(code, reason) => self.closing = Some(Box::new((code, reason))),
            Action::Identify(principal, name) => {
                if self.connection.identify(principal, name) {
                    return Acted::Identified;
                }
                let actions = self.session.too_many();
                self.actions = actions.into(); // nothing else is theirs to ask for
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
        Acted::Something
    }

    /// Goes on with what has become of what was waited for.
    pub(super) fn done(&mut self, done: Done) {
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
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        // A response takes one frame at a time: more would only wait, and be given out whatever it is told meanwhile.
        let burst = if self.session.dialect() == Dialect::Sse { 1 } else { BURST };
        let (mut bytes, mut events, mut frames) = (0, 0, 0);
        let count = self.cursors.len();
        'cursors: for step in 0..count {
            let index = (self.turn + step) % count;
            loop {
                if bytes >= burst {
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
        if frames > 0 {
            let telemetry = &self.state.terms.telemetry;
            telemetry.deliveries.inc_by(events);
            telemetry.frames.inc_by(frames);
        }
        // While something is waited for, what is to be done next waits as well.
        !self.outbox.is_empty() || (self.work.is_none() && !self.actions.is_empty())
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
        if let Some(ping) = self.session.ping(head, caught_up, self.state.now()) {
            self.outbox.push(ping);
        }
    }

    fn show_lags(&self) {
        let lags = self.cursors.iter().map(|(sub, cursor)| (sub.clone(), cursor.lag()));
        self.connection.set_lags(lags.collect());
    }
}
