//! One client's conversation, without a socket: what comes in, what happened, what to do next.
//!
//! The session knows the protocol and the time it is told; the socket that drives it knows bytes.

mod action;
mod allowance;
mod command;
mod opening;
mod pings;
mod subscriptions;
mod terms;
mod user;

use std::{net::SocketAddr, sync::Arc, task::Context, time::Instant};

use bytes::Bytes;
use secrecy::SecretString;

pub use self::{
    action::Action,
    command::start,
    opening::GrantError,
    terms::{SocketConfig, Terms},
};
use self::{allowance::Allowance, pings::Pings, subscriptions::Subscriptions, user::SessionUser};
use crate::{
    auth::{AuthError, Principal},
    broker::{PublishError, Published},
    connections::{Connection, Order},
    dialect::Dialect,
    hub::{Cursor, SubscribeError, Subscription, TaskWaker},
    position::Position,
    protocol::{
        ClientMessage, CloseCode, Connect, ErrorCode, Losses, MessageError, MessageId,
        ServerMessage, SubscribedStart,
    },
    telemetry::Limit,
    time::{self, Millis},
    topic::{TopicFilter, TopicPattern},
};

/// The moment something happens.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For intervals.
    pub instant: Instant,
    /// For what credentials and events say.
    pub wall: Millis,
    /// The newest position.
    pub head: Position,
    /// Whether the log has not been heard of for a second.
    pub stale: bool,
}

/// One client's conversation.
pub struct Session {
    terms: Arc<Terms>,
    connection: Connection,
    dialect: Dialect,
    state: SessionState,
    user: SessionUser,
    subscriptions: Subscriptions,
    pings: Pings,
    allowance: Allowance,
}

#[derive(Debug)]
enum SessionState {
    /// Until `connect`.
    New(Instant),
    /// While the token of `connect` is checked.
    Connecting(MessageId, Box<Connect>),
    Open,
    /// While the token of `refresh` is checked.
    Refreshing(MessageId),
}

impl Session {
    /// A session that begins now and waits for `connect`; `principal` and `token` are what came with the upgrade.
    /// What comes for it notifies `waker`.
    pub fn new(
        terms: Arc<Terms>,
        client: SocketAddr,
        waker: Arc<TaskWaker>,
        principal: Option<Arc<Principal>>,
        token: Option<SecretString>,
        now: Now,
    ) -> Self {
        let state = SessionState::New(now.instant + terms.config.connect_timeout.0);
        let mut session = Self::begin(terms, client, waker, Dialect::HubV1, state, now);
        session.user.token = token;
        if let Some(principal) = principal {
            session.user.adopt(principal, now);
        }
        session
    }

    /// A session that is open with the one subscription that the request asks for, if it is granted. Whose it is is to
    /// be noted, and the hub to be asked for that subscription, before anything else.
    pub fn only(
        terms: Arc<Terms>,
        client: SocketAddr,
        waker: Arc<TaskWaker>,
        principal: Option<Arc<Principal>>,
        only: Subscription,
        now: Now,
    ) -> Result<(Self, Subscription), GrantError> {
        let dialect = only.form.dialect();
        let mut session = Self::begin(terms, client, waker, dialect, SessionState::Open, now);
        let principal = principal.ok_or(GrantError::NoCredentials)?;
        permitted(&principal, &only.filter)
            .map_err(|pattern| GrantError::Forbidden(pattern.clone()))?;
        session.subscriptions.add_asked(&only);
        let owner = Some(session.terms.owner(&principal));
        session.user.adopt(principal, now);
        Ok((session, Subscription { owner, ..only }))
    }

    fn begin(
        terms: Arc<Terms>,
        client: SocketAddr,
        waker: Arc<TaskWaker>,
        dialect: Dialect,
        state: SessionState,
        now: Now,
    ) -> Self {
        Self {
            connection: terms.connections.enter(dialect, client, waker, now.wall),
            dialect,
            state,
            user: SessionUser::default(),
            subscriptions: Subscriptions::default(),
            pings: Pings::new(&terms.config, now.instant),
            allowance: Allowance::new(&terms.limits, now.instant),
            terms,
        }
    }

    /// Its entry among all connections.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The words it speaks in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whose it is, once they have said so.
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        self.user.principal.as_ref()
    }

    /// When the credentials run out.
    pub fn expires(&self) -> Option<Instant> {
        self.user.expires
    }

    /// A text frame came in.
    pub fn text(&mut self, text: &str, now: Now) -> Vec<Action> {
        if let Some(close) = self.heard(1, now) {
            return close;
        }
        let Some(message) = self.dialect.hear(text) else { return Vec::new() };
        match message {
            Ok(ClientMessage::Connect(id, connect)) => self.connect(id, connect, now),
            Ok(ClientMessage::Pong) if matches!(self.state, SessionState::Open) => Vec::new(),
            Ok(_) if !matches!(self.state, SessionState::Open) => {
                close(CloseCode::BadMessage, "the first message must be `connect`")
            }
            Ok(message) => self.command(message, now),
            Err(MessageError::Broken(message)) => close(CloseCode::BadMessage, message),
            Err(MessageError::Refused { id, code, message }) => {
                if matches!(self.state, SessionState::New(_)) {
                    return close(CloseCode::BadMessage, message);
                }
                self.error(id.as_ref(), code, &message)
            }
        }
    }

    /// Something came in that is no text: a pong, or a binary frame.
    pub fn other(&mut self, is_binary: bool, now: Now) -> Vec<Action> {
        if let Some(close) = self.heard(1, now) {
            return close;
        }
        if is_binary && self.dialect.listens() {
            return close(CloseCode::BadMessage, "messages are text frames");
        }
        Vec::new()
    }

    /// Parts of a message came in; all but the last, which comes as the message.
    pub fn fragments(&mut self, count: u32, now: Now) -> Vec<Action> {
        self.heard(count, now).unwrap_or_default()
    }

    /// The token asked about was checked.
    pub fn authenticated(
        &mut self,
        outcome: Result<Arc<Principal>, AuthError>,
        now: Now,
    ) -> Vec<Action> {
        match std::mem::replace(&mut self.state, SessionState::Open) {
            SessionState::Connecting(id, connect) => match outcome {
                Ok(principal) => self.open(id, *connect, principal, now),
                Err(error) => self.refuse_credentials(&error),
            },
            SessionState::Refreshing(id) => self.refreshed(&id, outcome, now),
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// The subscription asked for stands, or does not.
    pub fn subscribed(
        &mut self,
        id: Option<&MessageId>,
        sub: &str,
        outcome: Result<(Cursor, SubscribedStart), SubscribeError>,
    ) -> Vec<Action> {
        match (outcome, id) {
            (Ok((cursor, start)), id) => {
                self.subscriptions.follow(cursor);
                self.show_lags();
                self.say(&ServerMessage::Subscribed { id, sub, start })
            }
            (Err(error), Some(id)) => {
                self.subscriptions.end(sub);
                let code = match error {
                    SubscribeError::Read(_) => ErrorCode::Unavailable,
                    SubscribeError::TooMany { .. } => ErrorCode::LimitExceeded,
                };
                self.error(Some(id), code, &error.to_string())
            }
            (Err(error), None) => {
                let code = match error {
                    SubscribeError::Read(_) => CloseCode::Overloaded,
                    SubscribeError::TooMany { .. } => CloseCode::TooMany,
                };
                close(code, error.to_string())
            }
        }
    }

    /// The events asked to be published are stored, or are not.
    pub fn published(
        &mut self,
        id: &MessageId,
        dropped: &Losses,
        outcome: Result<Published, PublishError>,
    ) -> Vec<Action> {
        match outcome {
            Ok(Published { position, offsets, accepted, .. }) => {
                let duplicates = offsets.len() - accepted;
                dropped.count(&self.terms.telemetry);
                self.say(&ServerMessage::Ack { id, position, accepted, duplicates, dropped })
            }
            Err(error) => {
                let code = match error {
                    PublishError::TooManyTopics { .. } => ErrorCode::LimitExceeded,
                    _ => ErrorCode::Unavailable,
                };
                self.error(Some(id), code, &error.to_string())
            }
        }
    }

    /// Writes what the subscriptions have, up to about `burst` bytes of events.
    pub fn deliver(
        &mut self,
        cx: &mut Context<'_>,
        burst: usize,
        write: impl FnMut(Bytes),
    ) -> Vec<Action> {
        let Self { dialect, subscriptions, .. } = self;
        match subscriptions.deliver(cx, burst, *dialect, &self.terms.telemetry, write) {
            Ok(()) => Vec::new(),
            Err((code, reason)) => {
                self.show_lags();
                close(code, reason)
            }
        }
    }

    /// The bytes of a ping. What the subscriptions had after `now` was asked for must have been delivered: who has
    /// nothing left then has all up to that head.
    pub fn ping(&mut self, now: Now) -> Option<Bytes> {
        let (time, caught_up) =
            (time::rfc3339(now.wall), self.subscriptions.settle(now.head.offset));
        let ping = ServerMessage::Ping { time, head: now.head, caught_up, stale: now.stale };
        self.dialect.say(&ping)
    }

    /// Credentials were revoked, or the node wants its clients elsewhere.
    pub fn order(&mut self, order: Order) -> Vec<Action> {
        match order {
            Order::Revoked => close(CloseCode::Unauthorized, "the credentials were revoked"),
            Order::Reconnect { after_ms } => {
                let mut actions = self.say(&ServerMessage::Reconnect { after_ms });
                actions.extend(close(CloseCode::Restarting, "this node is leaving"));
                actions
            }
        }
    }

    /// Has whose it is and what the client calls itself noted, or says how it ends: their user has as many connections
    /// as they may.
    pub fn identify(&self, name: Option<Box<str>>) -> Result<(), Vec<Action>> {
        let Some(principal) = self.user.principal.clone() else { return Ok(()) };
        if self.connection.identify(principal, name) {
            return Ok(());
        }
        let most = self.terms.limits.connections_per_principal;
        Err(close(CloseCode::TooMany, format!("more than {most} connections of one user")))
    }

    /// Time has passed; to be called at [`next_time`](Self::next_time).
    pub fn tick(&mut self, now: Now) -> Vec<Action> {
        if self.user.expires.is_some_and(|expires| expires <= now.instant) {
            return close(CloseCode::Expired, "the token has expired");
        }
        if let SessionState::New(until) = self.state {
            if until <= now.instant {
                return close(CloseCode::Timeout, "no `connect` came in time");
            }
            return Vec::new();
        }
        if self.pings.is_overdue(now.instant) {
            return close(CloseCode::Timeout, "no pong came in time");
        }
        if self.pings.take(&self.terms.config, self.dialect.is_answered(), now.instant) {
            return vec![Action::Ping];
        }
        Vec::new()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_time(&self) -> Instant {
        let first = match self.state {
            SessionState::New(until) => until, // nobody is pinged before `connect`
            _ => self.pings.next_time(),
        };
        self.user.expires.map_or(first, |expires| expires.min(first))
    }

    /// Any frame proves that the client lives; too many of them are too many.
    fn heard(&mut self, frames: u32, now: Now) -> Option<Vec<Action>> {
        self.pings.answered();
        if self.allowance.take(frames, &self.terms.limits, now.instant) {
            return None;
        }
        let most = self.terms.limits.messages_per_second;
        self.terms.telemetry.hit(Limit::MessagesPerSecond);
        Some(close(CloseCode::TooMany, format!("more than {most} messages in a second")))
    }

    fn show_lags(&self) {
        self.connection.set_lags(self.subscriptions.lags());
    }

    fn say(&self, message: &ServerMessage<'_>) -> Vec<Action> {
        self.dialect.say(message).map(Action::Send).into_iter().collect()
    }

    fn error(&self, id: Option<&MessageId>, code: ErrorCode, message: &str) -> Vec<Action> {
        self.terms.telemetry.refused(code.name());
        let retryable = code.retryable();
        self.say(&ServerMessage::Error { id, code, message, retryable })
    }
}

fn close(code: CloseCode, reason: impl Into<String>) -> Vec<Action> {
    vec![Action::Close(code, reason.into())]
}

/// The first pattern of `filter` that is not granted.
fn permitted<'a>(principal: &Principal, filter: &'a TopicFilter) -> Result<(), &'a TopicPattern> {
    match filter.patterns().iter().find(|pattern| !principal.may_subscribe(pattern)) {
        Some(pattern) => Err(pattern),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
