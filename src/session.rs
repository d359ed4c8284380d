//! One client's conversation, without a socket: what comes in, what happened, what to do next.
//!
//! The session knows the protocol and the time it is told; the socket that drives it knows bytes.

mod action;
mod command;
mod opening;
mod terms;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use secrecy::SecretString;

pub use self::{
    action::Action,
    command::start,
    opening::BeginError,
    terms::{Config, Terms},
};
use crate::{
    auth::{AuthError, Principal},
    broker::{PublishError, Published},
    connections::Order,
    dialect::Dialect,
    hub::{Gap, SubscribeError},
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
#[derive(Debug)]
pub struct Session {
    terms: Arc<Terms>,
    name: Arc<str>,
    dialect: Dialect,
    state: SessionState,
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
    /// A session that begins now; `principal` and `token` are what came with the upgrade.
    pub fn new(
        terms: Arc<Terms>,
        name: Arc<str>,
        dialect: Dialect,
        principal: Option<Arc<Principal>>,
        token: Option<SecretString>,
        now: Now,
    ) -> Self {
        let config = terms.config;
        let mut session = Self {
            terms,
            name,
            dialect,
            state: SessionState::New(now.instant + config.connect_timeout.0),
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

    /// The words it speaks in.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whose it is, once they have said so.
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        self.principal.as_ref()
    }

    /// When the credentials run out.
    pub fn expires(&self) -> Option<Instant> {
        self.expires
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
                self.close(CloseCode::BadMessage, "the first message is `connect`")
            }
            Ok(message) => self.command(message, now),
            Err(MessageError::Broken(message)) => self.close(CloseCode::BadMessage, message),
            Err(MessageError::Refused { id, code, message }) => {
                if matches!(self.state, SessionState::New(_)) {
                    return self.close(CloseCode::BadMessage, message);
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
        sub: &Arc<str>,
        outcome: Result<SubscribedStart, SubscribeError>,
    ) -> Vec<Action> {
        match (outcome, id) {
            (Ok(start), id) => self.say(&ServerMessage::Subscribed { id, sub, start }),
            (Err(error), Some(id)) => {
                self.subscriptions.retain(|(name, _)| name != sub);
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

    /// A subscription has caught up for the first time.
    pub fn live(&self, sub: &str, position: Position) -> Option<Bytes> {
        self.dialect.say(&ServerMessage::Live { sub, position })
    }

    /// Events are missing.
    pub fn gap(&mut self, sub: &str, gap: Gap) -> Vec<Action> {
        self.terms.telemetry.gap(gap.reason.name());
        let Gap { from, to, reason } = gap;
        match self.dialect.say(&ServerMessage::Gap { sub, from, to, reason, position: to }) {
            Some(frame) => vec![Action::Send(frame)],
            // Who cannot be told comes back and asks anew.
            None => {
                self.close(CloseCode::Gap, format!("{from} to {to} are missing: {}", reason.name()))
            }
        }
    }

    /// The bytes of a ping.
    pub fn ping(&self, head: Position, caught_up: Vec<&str>, now: Now) -> Option<Bytes> {
        let time = time::rfc3339(now.wall);
        self.dialect.say(&ServerMessage::Ping { time, head, caught_up, stale: now.stale })
    }

    /// Credentials were revoked, or the node wants its clients elsewhere.
    pub fn order(&mut self, order: Order) -> Vec<Action> {
        match order {
            Order::Revoked => self.close(CloseCode::Unauthorized, "the credentials were revoked"),
            Order::Reconnect { after_ms } => {
                let mut actions = self.say(&ServerMessage::Reconnect { after_ms });
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
        if let SessionState::New(until) = self.state {
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
            let pong_by = now.instant + self.terms.config.pong_timeout.0;
            self.pong_by = self.dialect.is_answered().then_some(pong_by);
            return vec![Action::Ping];
        }
        Vec::new()
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_time(&self) -> Instant {
        let first = match self.state {
            SessionState::New(until) => until, // nobody is pinged before `connect`
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

    fn say(&self, message: &ServerMessage<'_>) -> Vec<Action> {
        self.dialect.say(message).map(Action::Send).into_iter().collect()
    }

    fn error(&self, id: Option<&MessageId>, code: ErrorCode, message: &str) -> Vec<Action> {
        self.terms.telemetry.refused(code.name());
        let retryable = code.retryable();
        self.say(&ServerMessage::Error { id, code, message, retryable })
    }

    fn close(&self, code: CloseCode, reason: impl Into<String>) -> Vec<Action> {
        vec![Action::Close(code, reason.into())]
    }
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
