//! One client's conversation, without a socket: what comes in, what happened, what to do next.
//!
//! The session knows the protocol and the time it is told; the socket that drives it knows bytes.

mod action;
mod command;
mod connections;
mod opening;
mod revocations;
mod terms;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use secrecy::SecretString;

pub use self::{
    action::Action,
    command::start,
    connections::{Connection, ConnectionInfo, ConnectionKind, Connections, Order},
    revocations::watch_revocations,
    terms::{Config, Terms},
};
use crate::{
    auth::{AuthError, Principal},
    broker::{PublishError, Published},
    hub::{Gap, SubscribeError, Subscription},
    position::Position,
    protocol::{
        self, ClientMessage, CloseCode, Connect, ErrorCode, Losses, MessageError, MessageId,
        ServerMessage, SubscribedStart,
    },
    telemetry::Limit,
    time::{self, Millis},
    topic::TopicFilter,
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
#[derive(Debug)]
pub struct Session {
    terms: Arc<Terms>,
    name: Arc<str>,
    talk: Talk,
    state: State,
    principal: Option<Arc<Principal>>,
    /// The token that came with the upgrade; another in `connect` must be the same.
    token: Option<SecretString>,
    subscriptions: Vec<(Arc<str>, TopicFilter)>,
    expires: Option<Instant>,
    ping_at: Instant,
    pong_by: Option<Instant>,
    /// Messages that may still come, and when they were last made more.
    allowed: f64,
    allowed_at: Instant,
}

/// How the two sides speak.
#[derive(Debug)]
pub enum Talk {
    /// In messages.
    Messages,
    /// The hub alone speaks: one subscription, from the address of the socket.
    Simple(Box<Subscription>),
}

#[derive(Debug)]
enum State {
    /// Until `connect`.
    New(Instant),
    /// While the token of `connect` is checked.
    Connecting(MessageId, Box<Connect>),
    Open,
    /// While the token of `refresh` is checked.
    Refreshing(MessageId),
}

/// The name of the only subscription in simple mode.
const SIMPLE: &str = "simple";
impl Session {
    /// A session that begins now; `principal` and `token` are what came with the upgrade.
    pub fn new(
        terms: Arc<Terms>,
        name: Arc<str>,
        talk: Talk,
        principal: Option<Arc<Principal>>,
        token: Option<SecretString>,
        now: Now,
    ) -> Self {
        let config = terms.config;
        let mut session = Self {
            terms,
            name,
            talk,
            state: State::New(now.instant + config.connect_timeout.0),
            principal: None,
            token,
            subscriptions: Vec::new(),
            expires: None,
            ping_at: now.instant + config.ping.0,
            pong_by: None,
            allowed: 0.0,
            allowed_at: now.instant,
        };
        session.allowed = session.burst();
        if let Some(principal) = principal {
            session.adopt(principal, now);
        }
        session
    }

    /// What to do before anything comes in.
    pub fn begin(&mut self) -> Vec<Action> {
        let Talk::Simple(subscription) = &self.talk else { return Vec::new() };
        let Some(principal) = self.principal.clone() else {
            return self.close(CloseCode::Unauthorized, "no credentials came with the request");
        };
        let owner = Some(self.terms.owner(&principal));
        let subscription = Subscription { owner, ..(**subscription).clone() };
        if let Err(pattern) = permitted(&principal, &subscription.filter) {
            return self.close(CloseCode::Forbidden, format!("no grant to subscribe to {pattern}"));
        }
        self.state = State::Open;
        self.subscriptions.push((SIMPLE.into(), subscription.filter.clone()));
        let subscribe = Action::Subscribe(None, SIMPLE.into(), subscription);
        vec![Action::Identify(principal, None), subscribe]
    }

    /// Whether the other side reads messages; in simple mode it gets events alone.
    pub fn speaks(&self) -> bool {
        matches!(self.talk, Talk::Messages)
    }

    /// A text frame came in.
    pub fn text(&mut self, text: &str, now: Now) -> Vec<Action> {
        if let Some(close) = self.heard(1, now) {
            return close;
        }
        if matches!(self.talk, Talk::Simple(_)) {
            return Vec::new();
        }
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Connect(id, connect)) => self.connect(id, connect, now),
            Ok(ClientMessage::Pong) if matches!(self.state, State::Open) => Vec::new(),
            Ok(_) if !matches!(self.state, State::Open) => {
                self.close(CloseCode::BadMessage, "the first message is `connect`")
            }
            Ok(message) => self.command(message, now),
            Err(MessageError::Broken(message)) => self.close(CloseCode::BadMessage, message),
            Err(MessageError::Refused { id, code, message }) => {
                if matches!(self.state, State::New(_)) {
                    return self.close(CloseCode::BadMessage, message);
                }
                vec![self.error(id.as_ref(), code, &message)]
            }
        }
    }

    /// Something came in that is no text: a pong, or a binary frame.
    pub fn other(&mut self, is_binary: bool, now: Now) -> Vec<Action> {
        if let Some(close) = self.heard(1, now) {
            return close;
        }
        if is_binary && matches!(self.talk, Talk::Messages) {
            return self.close(CloseCode::BadMessage, "messages are text frames");
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
        match std::mem::replace(&mut self.state, State::Open) {
            State::Connecting(id, connect) => match outcome {
                Ok(principal) => self.open(id, *connect, principal, now),
                Err(error) => self.refuse_credentials(&error),
            },
            State::Refreshing(id) => self.refreshed(&id, outcome, now),
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
        sub: &Arc<str>,
        outcome: Result<SubscribedStart, SubscribeError>,
    ) -> Vec<Action> {
        match (outcome, id) {
            (Ok(start), Some(id)) => {
                vec![Action::Send(ServerMessage::Subscribed { id, sub, start }.frame())]
            }
            (Ok(_), None) => Vec::new(),
            (Err(error), Some(id)) => {
                self.subscriptions.retain(|(name, _)| name != sub);
                let code = match error {
                    SubscribeError::Read(_) => ErrorCode::Unavailable,
                    SubscribeError::TooMany { .. } => ErrorCode::LimitExceeded,
                };
                vec![self.error(Some(id), code, &error.to_string())]
            }
            (Err(error), None) => {
                let code = match error {
                    SubscribeError::Read(_) => CloseCode::Overloaded,
                    SubscribeError::TooMany { .. } => CloseCode::TooMany,
                };
                self.close(code, error.to_string())
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
            Ok(Published { position, offsets, accepted }) => {
                let duplicates = offsets.len() - accepted;
                dropped.count(&self.terms.telemetry);
                let ack = ServerMessage::Ack { id, position, accepted, duplicates, dropped };
                vec![Action::Send(ack.frame())]
            }
            Err(error) => {
                let code = match error {
                    PublishError::TooManyTopics { .. } => ErrorCode::LimitExceeded,
                    _ => ErrorCode::Unavailable,
                };
                vec![self.error(Some(id), code, &error.to_string())]
            }
        }
    }

    /// A subscription has caught up for the first time.
    pub fn live(&self, sub: &str, position: Position) -> Option<Bytes> {
        matches!(self.talk, Talk::Messages).then(|| ServerMessage::Live { sub, position }.frame())
    }

    /// Events are missing.
    pub fn gap(&mut self, sub: &str, gap: Gap) -> Vec<Action> {
        self.terms.telemetry.gap(gap.reason.name());
        let Gap { from, to, reason } = gap;
        match self.talk {
            Talk::Messages => {
                let message = ServerMessage::Gap { sub, from, to, reason, position: to };
                vec![Action::Send(message.frame())]
            }
            Talk::Simple(_) => {
                self.close(CloseCode::Gap, format!("{from} to {to} are missing: {}", reason.name()))
            }
        }
    }

    /// The bytes of a ping.
    pub fn ping(&self, head: Position, caught_up: Vec<&str>, now: Now) -> Bytes {
        match self.talk {
            Talk::Simple(_) => protocol::wire::ping(),
            Talk::Messages => {
                let time = time::rfc3339(now.wall);
                ServerMessage::Ping { time, head, caught_up, stale: now.stale }.frame()
            }
        }
    }

    /// Credentials were revoked, or the node wants its clients elsewhere.
    pub fn order(&mut self, order: Order) -> Vec<Action> {
        match order {
            Order::Revoked => self.close(CloseCode::Unauthorized, "the credentials were revoked"),
            Order::Reconnect { after_ms } => {
                let mut actions = Vec::new();
                if matches!(self.talk, Talk::Messages) {
                    actions.push(Action::Send(ServerMessage::Reconnect { after_ms }.frame()));
                }
                actions.extend(self.close(CloseCode::Restarting, "this node is leaving"));
                actions
            }
        }
    }

    /// Their user has as many connections as they may.
    pub fn too_many(&self) -> Vec<Action> {
        let most = self.terms.limits.connections_per_principal;
        self.close(CloseCode::TooMany, format!("more than {most} connections of one user"))
    }

    /// Time has passed; to be called at [`next_time`](Self::next_time).
    pub fn tick(&mut self, now: Now) -> Vec<Action> {
        if self.expires.is_some_and(|expires| expires <= now.instant) {
            return self.close(CloseCode::Expired, "the token has expired");
        }
        if let State::New(until) = self.state {
            if until <= now.instant {
                return self.close(CloseCode::Timeout, "no `connect` came in time");
            }
            return Vec::new();
        }
        if self.pong_by.is_some_and(|by| by <= now.instant) {
            return self.close(CloseCode::Timeout, "no pong came in time");
        }
        if self.ping_at <= now.instant {
            self.ping_at = now.instant + self.terms.config.ping.0;
            self.pong_by = Some(now.instant + self.terms.config.pong_timeout.0);
            return vec![Action::Ping];
        }
        Vec::new()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_time(&self) -> Instant {
        let first = match self.state {
            State::New(until) => until, // nobody is pinged before `connect`
            _ => self.ping_at,
        };
        [self.expires, self.pong_by].into_iter().flatten().fold(first, Ord::min)
    }

    /// Whether this subscription is still wanted.
    pub fn has(&self, sub: &str) -> bool {
        self.subscriptions.iter().any(|(name, _)| &**name == sub)
    }

    /// Any frame proves that the client lives; too many of them are too many.
    fn heard(&mut self, frames: u32, now: Now) -> Option<Vec<Action>> {
        self.pong_by = None;
        let most = self.terms.limits.messages_per_second;
        let passed = now.instant.saturating_duration_since(self.allowed_at);
        self.allowed_at = now.instant;
        let refilled = self.allowed + passed.as_secs_f64() * f64::from(most);
        self.allowed = refilled.min(self.burst()) - f64::from(frames);
        if self.allowed >= 0.0 {
            return None;
        }
        self.terms.telemetry.hit(Limit::MessagesPerSecond);
        Some(self.close(CloseCode::TooMany, format!("more than {most} messages in a second")))
    }

    /// Messages that may come at once: a client that comes back may name and drop every subscription it may
    /// have one by one, beside what it says in a second.
    fn burst(&self) -> f64 {
        let limits = &self.terms.limits;
        f64::from(limits.messages_per_second) + 2.0 * limits.subscriptions as f64
    }

    fn error(&self, id: Option<&MessageId>, code: ErrorCode, message: &str) -> Action {
        self.terms.telemetry.refused(code.name());
        let retryable = code.retryable();
        Action::Send(ServerMessage::Error { id, code, message, retryable }.frame())
    }

    fn close(&self, code: CloseCode, reason: impl Into<String>) -> Vec<Action> {
        vec![Action::Close(code, reason.into())]
    }
}

/// The first pattern of `filter` that is not granted.
fn permitted<'a>(
    principal: &Principal,
    filter: &'a TopicFilter,
) -> Result<(), &'a crate::topic::TopicPattern> {
    match filter.patterns().iter().find(|pattern| !principal.may_subscribe(pattern)) {
        Some(pattern) => Err(pattern),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
