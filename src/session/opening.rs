//! How a session opens: `connect`, or what the request itself asks for; and whose session it is from then on.

use std::sync::Arc;

use super::{Action, Now, Session, SessionState, close, command::expires_in};
use crate::{
    auth::{AuthError, Principal},
    protocol::{self, CloseCode, Connect, ErrorCode, MessageId, ServerMessage},
    time,
    topic::TopicPattern,
};

/// Why the subscription that a request itself asks for is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Nobody said whose it is.
    #[error("no credentials came with the request")]
    NoCredentials,
    /// It lacks a grant for this.
    #[error("no grant to subscribe to {0}")]
    Forbidden(TopicPattern),
}

impl GrantError {
    /// How a socket ends for it.
    pub fn close_code(&self) -> CloseCode {
        match self {
            GrantError::NoCredentials => CloseCode::Unauthorized,
            GrantError::Forbidden(_) => CloseCode::Forbidden,
        }
    }
}

impl Session {
    pub(super) fn connect(&mut self, id: MessageId, mut connect: Connect, now: Now) -> Vec<Action> {
        if !matches!(self.state, SessionState::New(_)) {
            let message = "`connect` is the first message and comes once";
            return self.error(Some(&id), ErrorCode::AlreadyConnected, message);
        }
        let token = connect.token.take();
        if token.as_ref().is_some_and(|token| self.user.differs(token)) {
            let reason = "the token of `connect` is not the one that came with the request";
            return close(CloseCode::BadMessage, reason);
        }
        match (token, self.user.principal.clone()) {
            (Some(token), _) if self.user.token.is_none() => {
                self.state = SessionState::Connecting(id, Box::new(connect));
                vec![Action::Authenticate(token)]
            }
            (_, Some(principal)) => self.open(id, connect, principal, now),
            _ => close(CloseCode::Unauthorized, "no credentials came: send a `token` in `connect`"),
        }
    }

    pub(super) fn open(
        &mut self,
        id: MessageId,
        connect: Connect,
        principal: Arc<Principal>,
        now: Now,
    ) -> Vec<Action> {
        self.state = SessionState::Open;
        self.user.token = None; // `connect` comes once
        self.user.adopt(principal.clone(), now);
        let connected = self.connected(&id, &principal, now);
        let mut actions = vec![Action::Identify(connect.name)];
        actions.extend(connected);
        for subscribe in connect.subscribe {
            actions.extend(self.subscribe(&id, subscribe, now));
        }
        actions
    }

    pub(super) fn refuse_credentials(&mut self, error: &AuthError) -> Vec<Action> {
        close(error.close_code(), error.to_string())
    }

    pub(super) fn connected(&self, id: &MessageId, principal: &Principal, now: Now) -> Vec<Action> {
        let limits = self.terms.limits;
        self.say(&ServerMessage::Connected {
            id,
            conn: &self.connection.name(),
            user: &principal.name,
            expires_in: expires_in(principal, now),
            ping: self.terms.config.ping.0.as_secs().max(1),
            head: now.head,
            time: time::rfc3339(now.wall),
            limits: protocol::ConnectionLimits {
                frame: limits.frame.get(),
                subscriptions: limits.subscriptions,
                patterns: limits.patterns,
                replay: limits.replay,
                batch: limits.batch,
                event: limits.event.get(),
                messages_per_second: limits.messages_per_second,
            },
        })
    }
}
