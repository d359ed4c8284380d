//! A conversation under way: a session, what it waits for, and what is to be sent. The socket or the response that carries
//! the bytes is not known here.

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
    pending::{self, Done, Pending},
};
use crate::{
    auth::Principal,
    connections::{Connection, Order},
    hub::{Subscription, TaskWaker},
    protocol::CloseCode,
    session::{Action, GrantError, Session},
    telemetry::Telemetry,
};

/// The burst of a socket.
pub(super) const BURST: usize = 64 << 10;

pub(super) struct Conversation {
    state: AppState,
    session: Session,
    /// Woken by what the session follows.
    task_waker: Arc<TaskWaker>,
    /// About how many bytes of events are taken for one write.
    burst: usize,
    actions: VecDeque<Action>,
    /// What the session waits for.
    pending: Option<Pending>,
    closing: Option<Box<Closing>>,
    /// What is to be sent next.
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
    /// A conversation that begins with `connect`; `principal` and `token` came with the request.
    pub(super) fn new(
        state: AppState,
        client: SocketAddr,
        principal: Option<Arc<Principal>>,
        token: Option<SecretString>,
    ) -> Self {
        let (terms, task_waker, now) =
            (state.terms.clone(), Arc::new(TaskWaker::default()), state.now());
        let session = Session::new(terms, client, task_waker.clone(), principal, token, now);
        Self::of(state, session, task_waker, BURST)
    }

    /// A conversation with the one subscription that the request asks for: see [`Session::only`]. It takes about `burst`
    /// bytes of events for one write.
    pub(super) fn only(
        state: AppState,
        client: SocketAddr,
        principal: Option<Arc<Principal>>,
        only: Subscription,
        burst: usize,
    ) -> Result<(Self, Subscription), GrantError> {
        let (terms, task_waker, now) =
            (state.terms.clone(), Arc::new(TaskWaker::default()), state.now());
        let (session, subscription) =
            Session::only(terms, client, task_waker.clone(), principal, only, now)?;
        Ok((Self::of(state, session, task_waker, burst), subscription))
    }

    fn of(state: AppState, session: Session, task_waker: Arc<TaskWaker>, burst: usize) -> Self {
        let (actions, outbox) = (VecDeque::new(), Outbox::default());
        Self { state, session, task_waker, burst, actions, pending: None, closing: None, outbox }
    }

    /// Queues these actions after those that still wait.
    pub(super) fn then(&mut self, actions: impl IntoIterator<Item = Action>) {
        self.actions.extend(actions);
    }

    /// Makes `waker` the one that is woken when there is something to do: see [`TaskWaker::listen`].
    pub(super) fn listen(&self, waker: &Waker) {
        self.task_waker.listen(waker);
    }

    /// Whether the socket or the timer woke the task since the last call.
    pub(super) fn take_woken(&self) -> bool {
        self.task_waker.take_woken()
    }

    /// The waker for the socket and the timer.
    pub(super) fn waker(&self) -> Waker {
        self.task_waker.clone().into()
    }

    pub(super) fn task_waker(&self) -> &Arc<TaskWaker> {
        &self.task_waker
    }

    pub(super) fn connection(&self) -> &Connection {
        self.session.connection()
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

    /// Takes an order from outside; true if there was one, after which the conversation ends.
    pub(super) fn take_order(&mut self) -> bool {
        let Some(order) = self.connection().order() else { return false };
        let actions = self.session.order(order);
        if order == Order::Revoked {
            // The credentials no longer cover what is under way and what still waits.
            (self.pending, self.actions) = (None, VecDeque::new());
        }
        self.actions.extend(actions);
        true
    }

    /// A text message came in.
    pub(super) fn text(&mut self, text: &str) {
        let actions = self.session.text(text, self.state.now());
        self.actions.extend(actions);
    }

    /// A message came in that is not text.
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

    /// Lets the session do what is due by now, such as a ping.
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
        self.pending.is_some()
    }

    /// Whether it ends once everything is sent.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    pub(super) fn take_closing(&mut self) -> Option<Box<Closing>> {
        self.closing.take()
    }

    /// Finishes what was waited for, or does the next thing the session asked for.
    pub(super) fn act(&mut self, cx: &mut Context<'_>) -> Acted {
        if let Some(pending) = &mut self.pending {
            let Poll::Ready(done) = pending.as_mut().poll(cx) else { return Acted::Nothing };
            self.pending = None;
            self.done(done);
            return Acted::Something;
        }
        let Some(action) = self.actions.pop_front() else { return Acted::Nothing };
        if self.actions.is_empty() {
            self.actions = VecDeque::new(); // usually there are none, so keep no memory for them
        }
        match action {
            Action::Send(frame) => self.outbox.push(frame),
            Action::Ping => self.ping(cx),
            Action::Close(code, reason) => self.closing = Some(Box::new((code, reason))),
            Action::Identify(name) => match self.session.identify(name) {
                Ok(()) => return Acted::Identified,
                Err(close) => self.actions = close.into(), // nothing else is done for them
            },
            Action::Authenticate(token) => {
                self.pending = Some(pending::authenticate(&self.state, token))
            }
            Action::Subscribe(id, subscription) => {
                let task_waker = self.task_waker.clone();
                self.pending = Some(pending::subscribe(&self.state, id, subscription, task_waker));
            }
            Action::Publish(id, events, dropped) => {
                self.pending = Some(pending::publish(&self.state, id, events, dropped));
            }
        }
        Acted::Something
    }

    /// Continues with the outcome of what the session waited for.
    pub(super) fn done(&mut self, done: Done) {
        let now = self.state.now();
        let actions = match done {
            Done::Authenticated(outcome) => self.session.authenticated(outcome, now),
            Done::Published(id, dropped, outcome) => self.session.published(&id, &dropped, outcome),
            Done::Subscribed(id, form, outcome) => {
                self.session.subscribed(id.as_ref(), form.sub(), outcome)
            }
        };
        // Ahead of the actions that still wait, such as further subscriptions.
        for action in actions.into_iter().rev() {
            self.actions.push_front(action);
        }
    }

    /// Takes what the subscriptions have, up to a burst; true if there is something to send or to do.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        let actions = self.session.deliver(cx, self.burst, |frame| self.outbox.push(frame));
        self.actions.extend(actions);
        // While the session waits for something, the next action waits as well.
        !self.outbox.is_empty() || (self.pending.is_none() && !self.actions.is_empty())
    }

    /// First the head is read, then the subscriptions are emptied, then the ping says which of them have everything.
    fn ping(&mut self, cx: &mut Context<'_>) {
        let now = self.state.now();
        self.fill(cx);
        self.session.ping(now).into_iter().for_each(|ping| self.outbox.push(ping));
    }
}
