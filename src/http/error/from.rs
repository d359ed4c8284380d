//! Refusals of lower floors as problems: the code of each, and how much of its reason the client sees.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;

use super::{
    BODY_TOO_LARGE, CHALLENGE, EMPTY_BATCH, EVENT_TOO_LARGE, INTERNAL, INVALID_EVENT, INVALID_JSON,
    OUTCOME_UNKNOWN, OVERLOADED, Problem, SUPERSEDED, TOKEN_EXPIRED, TOO_MANY_INSTANCES,
    TOO_MANY_PASSES, TOO_MANY_SUBSCRIPTIONS, TOO_MANY_TOPICS, UNAUTHORIZED, UNAVAILABLE,
    UNKNOWN_INSTANCE,
};
use crate::{
    admission::{Refused, RefusedTopic},
    auth::AuthError,
    broker::{PublishError, ReadError},
    hub::SubscribeError,
    ingest::{BadItem, Refusal, remote_write::RemoteWriteError},
    instances::{InstanceError, KeyError},
    redis,
    series::QueryError,
    session::GrantError,
    telemetry::Limit,
};

/// Topics without room that an answer names, at most.
const MOST_NAMED: usize = 20;

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unavailable(_) => {
                tracing::error!(%error, "credentials cannot be checked");
                Self::new(&UNAVAILABLE, "credentials cannot be checked at present")
            }
            AuthError::Full(full) => {
                // A ticket expires within this time; sessions and links may end at any time.
                Self::new(&TOO_MANY_PASSES, full.to_string())
                    .at_limit(Limit::PassesPerPrincipal, full.most)
                    .after(Duration::from_secs(30))
            }
            AuthError::Expired => {
                Self::new(&TOKEN_EXPIRED, error.to_string()).challenged(CHALLENGE)
            }
            _ => Self::new(&UNAUTHORIZED, error.to_string()).challenged(CHALLENGE),
        }
    }
}

impl From<RemoteWriteError> for Problem {
    fn from(error: RemoteWriteError) -> Self {
        match error {
            RemoteWriteError::Unreadable(_) => Self::bad_body(error.to_string()),
            RemoteWriteError::TooMuch(_) => Self::new(&BODY_TOO_LARGE, error.to_string()),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLong(error) => Refusal::from(error).into(),
            Refused::TooLarge { index, error } => {
                Refusal::Items(vec![BadItem { index, field: None, fault: error.into() }]).into()
            }
            Refused::Topics(topics) => {
                let (mut own, mut missing) = (BTreeSet::new(), BTreeSet::new());
                for topic in &topics {
                    match topic {
                        RefusedTopic::HubsOwn(topic) => own.insert(topic),
                        RefusedTopic::NotGranted(topic) => missing.insert(topic),
                    };
                }
                if !own.is_empty() {
                    return Self::reserved_topics(&own);
                }
                let missing: Vec<_> =
                    missing.into_iter().map(|topic| format!("publish {topic}")).collect();
                Self::forbidden(&missing)
            }
            Refused::NeedsKey { app, id } => {
                Self::forbidden(&[format!("the key of instance {app}/{id}")])
            }
            Refused::NotHeard { app } => Self::forbidden(&[format!("publish {app}.instances")]),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let detail = error.to_string();
        match error {
            PublishError::Overloaded { retry_after } => {
                Self::new(&OVERLOADED, detail).after(retry_after)
            }
            PublishError::Unavailable { retry_after, .. } => {
                Self::new(&UNAVAILABLE, "the log cannot be written at present").after(retry_after)
            }
            PublishError::Unknown { ids, retry_after, .. } => {
                let detail = "the events may be stored or not; with these ids it is safe to send \
                              them again";
                Self::new(&OUTCOME_UNKNOWN, detail).with("ids", ids).after(retry_after)
            }
            PublishError::Fenced => Self::new(&UNAVAILABLE, detail),
            PublishError::TooManyTopics { limit, topics } => Self::new(&TOO_MANY_TOPICS, detail)
                .at_limit(Limit::Topics, limit)
                .with("topics", topics.into_iter().take(MOST_NAMED).collect::<Vec<_>>()),
            PublishError::Closed => Self::not_accepting(),
        }
    }
}

impl From<InstanceError> for Problem {
    fn from(error: InstanceError) -> Self {
        let detail = error.to_string();
        match error {
            InstanceError::Unknown => Self::new(&UNKNOWN_INSTANCE, "register it first"),
            InstanceError::Full { limit } => {
                Self::new(&TOO_MANY_INSTANCES, detail).at_limit(Limit::Instances, limit)
            }
            InstanceError::Unwritable(_) => Self::new(&INTERNAL, detail),
            InstanceError::Publish(error) => error.into(),
        }
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Instance(error) => error.into(),
            KeyError::Superseded => Self::new(&SUPERSEDED, error.to_string()),
            KeyError::Behind => Self::unavailable(error.to_string()),
            error => {
                tracing::error!(%error, "the key of an instance cannot be made or taken back");
                Self::unavailable("keys cannot be made or taken back at present")
            }
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "history cannot be read");
        Self::new(&UNAVAILABLE, "the log cannot be read at present")
    }
}

impl From<GrantError> for Problem {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::NoCredentials => Self::unauthorized(),
            GrantError::Forbidden(pattern) => Self::forbidden(&[format!("subscribe {pattern}")]),
        }
    }
}

impl From<SubscribeError> for Problem {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::Read(error) => error.into(),
            SubscribeError::TooMany { most } => {
                Self::new(&TOO_MANY_SUBSCRIPTIONS, error.to_string())
                    .at_limit(Limit::ViewsPerPrincipal, most)
            }
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::TooMany { .. } | QueryError::TooManySamples { .. } => {
                Self::bad_request(error.to_string())
            }
            QueryError::Store(_) => {
                tracing::error!(%error, "series cannot be read");
                Self::new(&UNAVAILABLE, "the series cannot be read at present")
            }
        }
    }
}

impl From<redis::RedisFailure> for Problem {
    fn from(failure: redis::RedisFailure) -> Self {
        tracing::warn!(%failure, "the other nodes cannot be asked");
        Self::new(&UNAVAILABLE, "the other nodes cannot be asked at present")
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let kind = match (&refusal, refusal.limit()) {
            (_, Some(Limit::Event)) => &EVENT_TOO_LARGE,
            (Refusal::TooLong(error), _) => {
                return Self::over_limit(Limit::Batch, error.limit as u64);
            }
            (Refusal::Malformed { .. }, _) => &INVALID_JSON,
            (Refusal::Empty, _) => &EMPTY_BATCH,
            (Refusal::Items(_), _) => &INVALID_EVENT,
        };
        let problem = Self::new(kind, detail);
        match refusal {
            Refusal::Malformed { line, column, .. } => {
                problem.with("line", line).with("column", column)
            }
            Refusal::Items(items) => {
                let items: Vec<_> = items
                    .iter()
                    .map(|item| {
                        let message = item.fault.to_string();
                        json!({"index": item.index, "field": item.field, "message": message})
                    })
                    .collect();
                problem.with("items", items)
            }
            _ => problem,
        }
    }
}
