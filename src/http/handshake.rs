//! The request that opens a socket or a stream: its credentials, its origin, and what it asks for.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header, request::Parts};
use secrecy::SecretString;
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Origin,
    credentials::{self, CredentialsError},
    query::{self, Several},
};
use crate::{
    access::Credential,
    auth::Principal,
    dialect::{Dialect, Form, StreamForm},
    hub::{Start, Subscription},
    json,
    position::{Offset, Position},
    protocol::{BEARER_SUBPROTOCOL, CloseCode, Mode, Replay, SUBPROTOCOL},
    session::{self, Now},
    topic::{TopicFilter, TopicPattern},
};

/// What came with the request, read but not yet checked.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The credentials that count.
    pub(super) credential: Option<Credential>,
    /// Whether `hub.v1` was offered.
    pub(super) speaks_messages: bool,
    /// Whether any subprotocol but a bearer was offered.
    pub(super) offers_protocols: bool,
    /// What the address asks for, or what is wrong with it.
    pub(super) query: Result<StreamQuery, String>,
}

/// The parameters a socket or stream may have in its address.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StreamQuery {
    #[serde(alias = "topic")]
    topics: Several<TopicPattern>,
    #[serde(alias = "resume")]
    after: Option<String>,
    last: Option<String>,
    since: Option<String>,
    latest: Option<String>,
    mode: Option<String>,
    max_hz: Option<String>,
    format: Option<String>,
    /// Of streams alone.
    events: Option<String>,
    /// Of streams alone: how polyfills of EventSource resume, which shun a header that needs a preflight.
    #[serde(rename = "lastEventId")]
    last_event_id: Option<String>,
    // Credentials, which are gathered elsewhere.
    #[serde(rename = "ticket")]
    _ticket: IgnoredAny,
    #[serde(rename = "token")]
    _token: IgnoredAny,
}

/// What a socket begins with.
pub(super) enum Opening {
    /// Messages both ways: who they are and the token that said so, if they came with the upgrade.
    Messages(Option<Arc<Principal>>, Option<SecretString>),
    /// Simple mode: whose it is, and the subscription that the request asks for.
    Only(Option<Arc<Principal>>, Box<Subscription>),
}

/// Why a socket is closed as soon as it is open.
pub(super) type SocketRefusal = (CloseCode, String);

impl Handshake {
    /// Reads the request.
    pub(super) fn read(parts: &Parts, query_token: bool) -> Result<Self, CredentialsError> {
        let credential = credentials::collect_upgrade(parts, query_token)?;
        let offered: Vec<&str> = protocols(&parts.headers)
            .filter(|offered| !offered.starts_with(BEARER_SUBPROTOCOL))
            .collect();
        Ok(Self {
            credential,
            speaks_messages: offers_messages(&parts.headers),
            offers_protocols: !offered.is_empty(),
            query: query::read(parts),
        })
    }

    /// The token or ticket that came explicitly, against which a token in `connect` is held.
    pub(super) fn token(&self) -> Option<SecretString> {
        match &self.credential {
            Some(Credential::Token(token) | Credential::Ticket(token)) => Some(token.clone()),
            _ => None,
        }
    }
}

impl StreamQuery {
    /// Whether topics are named, so that a socket may speak in simple mode.
    pub(super) fn has_topics(&self) -> bool {
        !self.topics.0.is_empty()
    }

    /// The subscription the address asks for, in simple mode or for a stream.
    pub(super) fn subscription(
        &self,
        dialect: Dialect,
        last_event_id: Option<&str>,
        limits: &crate::limits::Limits,
        now: Now,
    ) -> Result<Subscription, String> {
        if dialect != Dialect::Sse {
            let only_of_streams = [("events", &self.events), ("lastEventId", &self.last_event_id)];
            if let Some((name, _)) = only_of_streams.iter().find(|(_, value)| value.is_some()) {
                return Err(format!("`{name}` is for streams of server-sent events"));
            }
        }
        if !self.has_topics() {
            return Err("name at least one topic: ?topics=voicehive.**".into());
        }
        if self.topics.0.len() > limits.patterns {
            return Err(format!("at most {} patterns in a subscription", limits.patterns));
        }
        let form = self.form(dialect)?;
        let mode = match self.mode.as_deref() {
            None | Some("all") => Mode::All,
            Some("latest") => Mode::Latest,
            Some(other) => return Err(format!("`mode` must be all or latest, not {other:?}")),
        };
        let max_hz = match &self.max_hz {
            None => None,
            Some(text) => {
                let hz = text.parse().ok().filter(|hz| (0.01..=60.0).contains(hz));
                Some(hz.ok_or("`max_hz` must be a number from 0.01 to 60")?)
            }
        };
        let start = self.start(last_event_id, limits.replay, now)?;
        let filter = TopicFilter::new(self.topics.0.iter().cloned());
        if let Some(too_wild) = filter.too_wild() {
            return Err(too_wild.to_string());
        }
        Ok(Subscription { form, filter, mode, max_hz, start, owner: None })
    }

    fn form(&self, dialect: Dialect) -> Result<Form, String> {
        let is_bare = match self.format.as_deref() {
            None | Some("event") => false,
            Some("data") => true,
            Some(other) => return Err(format!("`format` must be event or data, not {other:?}")),
        };
        let is_typed = match self.events.as_deref() {
            None | Some("plain") => false,
            Some("typed") => true,
            Some(other) => return Err(format!("`events` must be plain or typed, not {other:?}")),
        };
        Ok(match dialect {
            Dialect::Sse => Form::Stream(StreamForm { is_typed, is_bare }),
            _ if is_bare => Form::Data,
            _ => Form::Events,
        })
    }

    fn start<'a>(
        &'a self,
        last_event_id: Option<&'a str>,
        most: usize,
        now: Now,
    ) -> Result<Start, String> {
        // One that has nothing yet says so with an empty text.
        let given = |id: Option<&'a str>| id.filter(|id| !id.is_empty());
        let last_event_id = given(last_event_id).or(given(self.last_event_id.as_deref()));
        if let Some(text) = last_event_id.or(self.after.as_deref()) {
            return Ok(Start::Resume(position(text)?));
        }
        let latest = match &self.latest {
            Some(text) => query::boolean("latest", text)?,
            None => false,
        };
        let replay = match (&self.last, &self.since, latest) {
            (None, None, false) => return Ok(Start::Live),
            (Some(last), None, false) => {
                let count = json::read_whole(last).ok_or("`last` must be a whole number")?;
                if count > most {
                    return Err(format!("`last` must be at most {most}"));
                }
                Replay::Last(count)
            }
            (None, Some(since), false) => Replay::since(since)?,
            (None, None, true) => Replay::Latest,
            _ => return Err("give one of `last`, `since` and `latest`".into()),
        };
        Ok(session::start(replay, now))
    }
}

/// Where to continue.
fn position(text: &str) -> Result<Position, String> {
    text.parse().map_err(|error| match text.parse::<Offset>() {
        // After a restore it would continue in another history.
        Ok(_) => format!("{text} is an offset alone: {error}"),
        Err(_) => format!("{error}"),
    })
}

/// Whether a page at the request's `Origin`, if it has one, may use the hub.
pub(super) fn is_allowed_origin(parts: &Parts, allowed: &[Origin]) -> bool {
    match parts.headers.get(header::ORIGIN) {
        None => true, // no browser
        Some(origin) => {
            credentials::is_same_origin(parts)
                || allowed.iter().any(|one| same_text(one.header(), origin))
        }
    }
}

/// Whether the subprotocol this hub speaks is among those offered.
pub(super) fn offers_messages(headers: &HeaderMap) -> bool {
    protocols(headers).any(|offered| offered == SUBPROTOCOL)
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|offered| !offered.is_empty())
}

fn same_text(a: &HeaderValue, b: &HeaderValue) -> bool {
    a.as_bytes().eq_ignore_ascii_case(b.as_bytes())
}
