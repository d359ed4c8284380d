//! What an open session is asked to do.

use std::sync::Arc;

use super::{Action, Now, Session, SessionState, permitted};
use crate::{
    admission::Refused,
    auth::{AuthError, Principal},
    dialect::Form,
    event::new_id,
    hub::{Start, Subscription},
    ingest::{Defaults, native},
    protocol::{ClientMessage, ErrorCode, MessageId, Publish, Replay, ServerMessage, Subscribe},
    series,
    telemetry::Limit,
    topic::TopicFilter,
};

impl Session {
    pub(super) fn command(&mut self, message: ClientMessage<'_>, now: Now) -> Vec<Action> {
        match message {
            ClientMessage::Subscribe(id, subscribe) => self.subscribe(&id, subscribe, now),
            ClientMessage::Unsubscribe(id, sub) => self.unsubscribe(&id, &sub),
            ClientMessage::Refresh(id, token) => {
                self.state = SessionState::Refreshing(id);
                vec![Action::Authenticate(token)]
            }
            ClientMessage::Publish(id, publish) => self.publish(id, &publish, now),
            ClientMessage::Connect(..) | ClientMessage::Pong => Vec::new(),
        }
    }

    pub(super) fn subscribe(
        &mut self,
        id: &MessageId,
        subscribe: Subscribe,
        now: Now,
    ) -> Vec<Action> {
        let limits = self.terms.limits;
        let Some(principal) = self.user.principal.clone() else { return Vec::new() };
        let sub: Arc<str> = subscribe.sub.into();
        let over = |session: &Self, limit: Limit, most: usize, what: &str| {
            session.terms.telemetry.hit(limit);
            let message = format!("{sub:?}: at most {most} {what}");
            session.error(Some(id), ErrorCode::LimitExceeded, &message)
        };
        if self.subscriptions.has(&sub) {
            let message = format!("{sub:?} is in use: unsubscribe it or take another name");
            return self.error(Some(id), ErrorCode::SubInUse, &message);
        }
        if self.subscriptions.len() >= limits.subscriptions {
            let most = limits.subscriptions;
            return over(self, Limit::Subscriptions, most, "subscriptions in a connection");
        }
        if subscribe.topics.len() > limits.patterns {
            return over(self, Limit::Patterns, limits.patterns, "patterns in a subscription");
        }
        let filter = TopicFilter::new(subscribe.topics);
        if let Some(too_wild) = filter.too_wild() {
            self.terms.telemetry.hit(Limit::Patterns);
            let message = format!("{sub:?}: {too_wild}");
            return self.error(Some(id), ErrorCode::LimitExceeded, &message);
        }
        if let Err(pattern) = permitted(&principal, &filter) {
            let message = format!("{sub:?}: no grant to subscribe to {pattern}");
            return self.error(Some(id), ErrorCode::Forbidden, &message);
        }
        let start = match (subscribe.resume, subscribe.replay) {
            (Some(position), _) => Start::Resume(position),
            (None, None) => Start::Live,
            (None, Some(Replay::Last(count))) if count > limits.replay => {
                return over(self, Limit::Replay, limits.replay, "events in a replay");
            }
            (None, Some(replay)) => start(replay, now),
        };
        let subscription = Subscription {
            form: Form::Messages(sub),
            filter,
            mode: subscribe.mode,
            max_hz: subscribe.max_hz,
            start,
            owner: Some(self.terms.owner(&principal)),
        };
        self.subscriptions.add_asked(&subscription);
        vec![Action::Subscribe(Some(id.clone()), subscription)]
    }

    fn unsubscribe(&mut self, id: &MessageId, sub: &str) -> Vec<Action> {
        if !self.subscriptions.end(sub) {
            let message = format!("there is no subscription {sub:?}");
            return self.error(Some(id), ErrorCode::UnknownSub, &message);
        }
        self.show_lags();
        self.say(&ServerMessage::Unsubscribed { id: Some(id), sub, code: None })
    }

    fn publish(&mut self, id: MessageId, publish: &Publish<'_>, now: Now) -> Vec<Action> {
        let Some(principal) = self.user.principal.clone() else { return Vec::new() };
        let defaults = Defaults {
            source: &principal.name,
            publisher: &principal.publisher,
            now: now.wall,
            new_id,
        };
        let admission = &self.terms.admission;
        let body = publish.events.get().as_bytes();
        let events =
            match native::read(body, native::BodyFormat::Json, &defaults, admission.limits()) {
                Ok(events) => events,
                Err(refusal) => {
                    let message = refusal.to_string();
                    return self.refuse_events(
                        &id,
                        ErrorCode::InvalidEvent,
                        refusal.limit(),
                        &message,
                    );
                }
            };
        match admission.admit(&principal, None, events) {
            Ok(admitted) => {
                let dropped = series::extract::left_out(&admitted);
                vec![Action::Publish(id, admitted, dropped)]
            }
            Err(refused) => {
                let code = match refused {
                    Refused::TooLong(_) | Refused::TooLarge { .. } => ErrorCode::InvalidEvent,
                    _ => ErrorCode::Forbidden,
                };
                self.refuse_events(&id, code, refused.limit(), &refused.to_string())
            }
        }
    }

    fn refuse_events(
        &self,
        id: &MessageId,
        code: ErrorCode,
        limit: Option<Limit>,
        message: &str,
    ) -> Vec<Action> {
        limit.into_iter().for_each(|limit| self.terms.telemetry.hit(limit));
        self.error(Some(id), code, message)
    }

    /// A newer token: the same person with perhaps other grants. Lost grants end at once.
    pub(super) fn refreshed(
        &mut self,
        id: &MessageId,
        outcome: Result<Arc<Principal>, AuthError>,
        now: Now,
    ) -> Vec<Action> {
        let principal = match outcome {
            Ok(principal) => principal,
            Err(error) => {
                let code = match error {
                    AuthError::Unavailable(_) => ErrorCode::Unavailable,
                    _ => ErrorCode::Unauthorized,
                };
                return self.error(Some(id), code, &error.to_string());
            }
        };
        if self
            .user
            .principal
            .as_ref()
            .is_some_and(|before| before.identity() != principal.identity())
        {
            let message = "the token is somebody else's: open a connection of its own";
            return self.error(Some(id), ErrorCode::Forbidden, message);
        }
        self.user.adopt(principal.clone(), now);
        let expires_in = expires_in(&principal, now);
        let mut actions = vec![Action::Identify(None)];
        actions.extend(self.say(&ServerMessage::Refreshed { id, expires_in }));
        let lost = self.subscriptions.end_unless(|filter| permitted(&principal, filter).is_ok());
        self.show_lags();
        for lost in lost {
            let (sub, code) = (lost.sub(), Some(ErrorCode::Forbidden));
            actions.extend(self.say(&ServerMessage::Unsubscribed { id: None, sub, code }));
        }
        actions
    }
}

/// Where a replay begins.
pub fn start(replay: Replay, now: Now) -> Start {
    match replay {
        Replay::Last(count) => Start::Last(count),
        Replay::SinceAgo(span) => Start::Since(now.wall.saturating_sub(span)),
        Replay::SinceTime(time) => Start::Since(time),
        Replay::Latest => Start::Latest,
    }
}

pub(super) fn expires_in(principal: &Principal, now: Now) -> Option<u64> {
    principal.expires.map(|expires| expires.saturating_sub(now.wall) / 1000)
}
