//! What a client may say, read strictly: a known message with wrong fields is refused by name.

use std::borrow::Cow;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::ErrorCode;
use crate::{
    json::{self, Object, Whole},
    position::Position,
    time::{self, Millis, Span},
    topic::TopicPattern,
    wording,
};

/// The client's name for a message, echoed in the answer: a number or a string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MessageId {
    /// A whole number.
    Number(i64),
    /// A text, at most 64 bytes.
    Text(Box<str>),
}

/// A message from a client.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// The first message: who connects, and the first subscriptions.
    Connect(MessageId, Connect),
    /// Starts a subscription.
    Subscribe(MessageId, Subscribe),
    /// Ends the subscription of this name.
    Unsubscribe(MessageId, Box<str>),
    /// A newer token for the same connection.
    Refresh(MessageId, SecretString),
    /// Events to publish.
    Publish(MessageId, Publish<'a>),
    /// The answer to a ping.
    Pong,
}

/// The fields of `connect`.
#[derive(Debug, Deserialize)]
pub struct Connect {
    /// A JWT or an API key, unless the credentials came with the upgrade.
    pub token: Option<SecretString>,
    /// What the client calls itself, shown among the connections.
    pub name: Option<Box<str>>,
    /// Subscriptions to start at once.
    #[serde(default, deserialize_with = "subscriptions")]
    pub subscribe: Vec<Subscribe>,
}

/// The fields of `subscribe`.
#[derive(Debug, Clone, Deserialize)]
pub struct Subscribe {
    /// The subscription's name within the connection.
    pub sub: Box<str>,
    /// What it matches.
    pub topics: Vec<TopicPattern>,
    /// How it delivers.
    #[serde(default)]
    pub mode: Mode,
    /// In mode `latest`: the most frames in a second.
    pub max_hz: Option<f64>,
    /// What to send of the past.
    pub replay: Option<Replay>,
    /// Where an earlier subscription stopped.
    pub resume: Option<Position>,
}

/// How a subscription delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every matching event, in order.
    #[default]
    All,
    /// The newest per (topic, key), at most `max_hz` times a second.
    Latest,
}

/// What a new subscription gets of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// The last `n` matching events.
    Last(usize),
    /// The events that were received in this many last milliseconds.
    SinceAgo(Millis),
    /// What was received since this time.
    SinceTime(Millis),
    /// The newest per (topic, key).
    Latest,
}

/// The fields of `publish`.
#[derive(Debug, Deserialize)]
pub struct Publish<'a> {
    /// An array of events, as `POST /api/v1/publish` takes it.
    #[serde(borrow)]
    pub events: &'a RawValue,
}

/// A text frame that is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageError {
    /// Not a JSON object with a `type`: the protocol is broken, the socket closes.
    Broken(String),
    /// A message that cannot be carried out; the socket stays.
    Refused {
        /// The message's own id, if it had one.
        id: Option<MessageId>,
        /// The stable code.
        code: ErrorCode,
        /// What is wrong, for people.
        message: String,
    },
}

#[derive(Deserialize)]
struct MessageHead<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Unsubscribe {
    sub: Box<str>,
}

#[derive(Deserialize)]
struct Refresh {
    token: SecretString,
}

/// The longest sentence about what is wrong, in bytes.
const LONGEST_MESSAGE: usize = 400;

/// The longest `sub`, `name` and textual `id`, in bytes.
const MAX_NAME: usize = 64;

impl<'a> ClientMessage<'a> {
    /// Reads one text frame.
    pub fn parse(text: &'a str) -> Result<Self, MessageError> {
        let head = json::read("this", text.as_bytes()).map_err(|error| {
            let error = error.message;
            MessageError::Broken(format!("a message is a JSON object with a `type`: {error}"))
        })?;
        let Object(head): Object<MessageHead<'_>> = head;
        if head.kind == "pong" {
            return Ok(Self::Pong);
        }
        let id = match head.id {
            None => None,
            Some(raw) => match serde_json::from_str::<MessageId>(raw.get()) {
                Ok(MessageId::Text(text)) if text.len() > MAX_NAME => {
                    return Err(refused(
                        None,
                        ErrorCode::BadMessage,
                        "`id` must have at most 64 bytes",
                    ));
                }
                Ok(id) => Some(id),
                Err(_) if let Some(number) = json::read_whole(raw.get()) => {
                    Some(MessageId::Number(number))
                }
                Err(_) => {
                    let message = "`id` must be a whole number or a text";
                    return Err(refused(None, ErrorCode::BadMessage, message));
                }
            },
        };
        let known = ["connect", "subscribe", "unsubscribe", "refresh", "publish"];
        if !known.contains(&&*head.kind) {
            let kind: String = head.kind.chars().take(MAX_NAME).collect();
            let message = format!(
                "there is no message {kind:?}; known are connect, subscribe, unsubscribe, refresh, publish, pong"
            );
            return Err(refused(id, ErrorCode::UnknownType, message));
        }
        let Some(id) = id else {
            let message = format!("`{}` needs an `id`, which the answer repeats", head.kind);
            return Err(refused(None, ErrorCode::MissingId, message));
        };
        match &*head.kind {
            "connect" => fields::<Connect>(text, &id).and_then(|connect| {
                name_fits("name", connect.name.as_deref().unwrap_or("-"), &id)?;
                connect.subscribe.iter().try_for_each(|subscribe| subscribe.check(&id))?;
                Ok(Self::Connect(id, connect))
            }),
            "subscribe" => fields::<Subscribe>(text, &id).and_then(|subscribe| {
                subscribe.check(&id)?;
                Ok(Self::Subscribe(id, subscribe))
            }),
            "unsubscribe" => {
                fields::<Unsubscribe>(text, &id).map(|fields| Self::Unsubscribe(id, fields.sub))
            }
            "refresh" => fields::<Refresh>(text, &id).map(|fields| Self::Refresh(id, fields.token)),
            _ => fields::<Publish<'a>>(text, &id).map(|fields| Self::Publish(id, fields)),
        }
    }
}

impl Subscribe {
    fn check(&self, id: &MessageId) -> Result<(), MessageError> {
        name_fits("sub", &self.sub, id)?;
        let bad = |message: &str| {
            let message = format!("subscription {:?}: {message}", self.sub);
            Err(refused(Some(id.clone()), ErrorCode::BadMessage, message))
        };
        if self.topics.is_empty() {
            return bad("`topics` must name at least one pattern");
        }
        if self.replay.is_some() && self.resume.is_some() {
            return bad("give `replay` or `resume`, not both");
        }
        match (self.mode, self.max_hz) {
            (Mode::All, Some(_)) => bad("`max_hz` belongs to mode \"latest\""),
            (Mode::Latest, Some(hz)) if !(0.01..=60.0).contains(&hz) => {
                bad("`max_hz` must be a number from 0.01 to 60")
            }
            _ => Ok(()),
        }
    }
}

fn fields<'a, T: Deserialize<'a>>(text: &'a str, id: &MessageId) -> Result<T, MessageError> {
    json::read("the message", text.as_bytes())
        .map(|Object(fields)| fields)
        .map_err(|error| refused(Some(id.clone()), ErrorCode::BadMessage, error.message))
}

fn subscriptions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Subscribe>, D::Error> {
    let all = Vec::<Object<Subscribe>>::deserialize(deserializer)?;
    Ok(all.into_iter().map(|Object(one)| one).collect())
}

fn name_fits(field: &str, name: &str, id: &MessageId) -> Result<(), MessageError> {
    if name.is_empty() || name.len() > MAX_NAME {
        let message = format!("`{field}` must have 1 to {MAX_NAME} bytes");
        return Err(refused(Some(id.clone()), ErrorCode::BadMessage, message));
    }
    Ok(())
}

fn refused(id: Option<MessageId>, code: ErrorCode, message: impl Into<String>) -> MessageError {
    // What the client sent may stand in it, and must not come back whole.
    let message = wording::short(&message.into(), LONGEST_MESSAGE).into_owned();
    MessageError::Refused { id, code, message }
}

impl<'de> Deserialize<'de> for Replay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct ReplayFields {
            last: Option<Whole>,
            since: Option<String>,
            latest: Option<bool>,
        }
        let Object(fields) = Object::<ReplayFields>::deserialize(deserializer)?;
        match fields {
            ReplayFields { last: Some(n), since: None, latest: None } => {
                let n = usize::try_from(n.0);
                n.map(Self::Last).map_err(|_| D::Error::custom("`last` must not be below 0"))
            }
            ReplayFields { last: None, since: Some(since), latest: None } => {
                Self::since(&since).map_err(D::Error::custom)
            }
            ReplayFields { last: None, since: None, latest: Some(true) } => Ok(Self::Latest),
            _ => Err(D::Error::custom(
                "must be one of {\"last\":n}, {\"since\":\"5m\"} and {\"latest\":true}",
            )),
        }
    }
}

impl Replay {
    /// Reads a duration back from now, or a time in RFC 3339.
    pub fn since(text: &str) -> Result<Self, String> {
        if let Ok(span) = text.parse::<Span>() {
            return Ok(Self::SinceAgo(span.millis()));
        }
        time::parse_rfc3339(text).map(Self::SinceTime).map_err(|_| {
            format!("`since` must be a duration such as 5m or a time such as 2026-11-20T12:00:00Z, not {text:?}")
        })
    }
}
