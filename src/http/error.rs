//! Refusals as problem details (RFC 9457). No other file of the HTTP side knows a failure's status.

mod from;

use std::{any::Any, collections::BTreeSet, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{
    json::JsonError,
    protocol::Losses,
    telemetry::{Limit, Telemetry},
    topic::Topic,
    wording,
};

/// The most bytes of a sentence about what was wrong.
const LONGEST_DETAIL: usize = 1000;

/// A refusal on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: &'static ProblemKind,
    detail: String,
    retry_after: Option<Duration>,
    extras: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What every refusal of one code has in common. The codes are part of the contract with clients.
#[derive(Debug, Clone, Copy)]
struct ProblemKind {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    retryable: bool,
}

macro_rules! kinds {
    ($($name:ident = $status:ident $code:literal $title:literal $(, $retryable:ident)?;)*) => {
        $(const $name: ProblemKind = ProblemKind {
            status: StatusCode::$status,
            code: $code,
            title: $title,
            retryable: kinds!(@ $($retryable)?),
        };)*

        /// Every refusal there is.
        const KINDS: &[ProblemKind] = &[$($name),*];
    };
    (@ retryable) => { true };
    (@) => { false };
}

kinds! {
    BAD_REQUEST = BAD_REQUEST "bad_request" "The request cannot be understood";
    INVALID_JSON = BAD_REQUEST "invalid_json" "The body is not valid JSON";
    BAD_BODY = BAD_REQUEST "bad_body" "The body broke off or cannot be decompressed";
    CREDENTIALS_DIFFER = BAD_REQUEST "credentials_differ" "Two different credentials were sent";
    UNAUTHORIZED = UNAUTHORIZED "unauthorized" "Credentials are missing or not valid";
    TOKEN_EXPIRED = UNAUTHORIZED "token_expired" "The credentials have expired";
    FORBIDDEN = FORBIDDEN "forbidden" "A grant is missing";
    RESERVED_TOPIC = FORBIDDEN "reserved_topic" "Nobody but the hub publishes there";
    CROSS_ORIGIN = FORBIDDEN "cross_origin" "The session is for this hub's own pages";
    FOREIGN_ORIGIN = FORBIDDEN "foreign_origin" "Pages of this origin may not use the hub";
    NOT_FOUND = NOT_FOUND "not_found" "There is nothing here";
    UNKNOWN_INSTANCE = NOT_FOUND "unknown_instance" "There is no such instance";
    METHOD = METHOD_NOT_ALLOWED "method_not_allowed" "This is not for that method";
    BODY_TIMEOUT = REQUEST_TIMEOUT "body_timeout" "The body took too long", retryable;
    SUPERSEDED = CONFLICT "superseded" "A newer one was made at the same time";
    EPOCH_CHANGED = GONE "epoch_changed" "The position belongs to another log";
    BODY_TOO_LARGE = PAYLOAD_TOO_LARGE "body_too_large" "The body is too large";
    BATCH_TOO_LARGE = PAYLOAD_TOO_LARGE "batch_too_large" "The batch has too many events";
    EVENT_TOO_LARGE = PAYLOAD_TOO_LARGE "event_too_large" "An event is too large";
    CONTENT_TYPE = UNSUPPORTED_MEDIA_TYPE "unsupported_content_type" "The content type is not supported";
    ENCODING = UNSUPPORTED_MEDIA_TYPE "unsupported_encoding" "The content encoding is not supported";
    SAMPLES_REFUSED = BAD_REQUEST "samples_refused" "Some samples cannot be taken";
    EMPTY_BATCH = UNPROCESSABLE_ENTITY "empty_batch" "The batch is empty";
    INVALID_EVENT = UNPROCESSABLE_ENTITY "invalid_event" "Some events cannot be taken";
    TOO_MANY_TOPICS = UNPROCESSABLE_ENTITY "too_many_topics" "The log holds no more topics";
    TOO_MANY_INSTANCES = UNPROCESSABLE_ENTITY "too_many_instances" "The registry holds no more instances";
    FOREIGN_HOST = MISDIRECTED_REQUEST "foreign_host" "The hub is not called that";
    UPGRADE = UPGRADE_REQUIRED "upgrade_required" "This is for a WebSocket";
    TOO_MANY_CONNECTIONS = TOO_MANY_REQUESTS "too_many_connections" "Too many connections", retryable;
    TOO_MANY_SUBSCRIPTIONS = TOO_MANY_REQUESTS "too_many_subscriptions" "Too many subscriptions", retryable;
    TOO_MANY_QUESTIONS = TOO_MANY_REQUESTS "too_many_questions" "Too many questions", retryable;
    TOO_MANY_BYTES = TOO_MANY_REQUESTS "too_many_bytes" "One user holds too much memory", retryable;
    TOO_MANY_SIGN_INS = TOO_MANY_REQUESTS "too_many_sign_ins" "Too many wrong sign-ins", retryable;
    TOO_MANY_PASSES = TOO_MANY_REQUESTS "too_many_passes" "Too many tickets, links or sessions", retryable;
    INTERNAL = INTERNAL_SERVER_ERROR "internal" "The hub made a mistake";
    UNAVAILABLE = SERVICE_UNAVAILABLE "unavailable" "The hub cannot do it now", retryable;
    OUTCOME_UNKNOWN = SERVICE_UNAVAILABLE "outcome_unknown" "Stored or not", retryable;
    OVERLOADED = SERVICE_UNAVAILABLE "overloaded" "The hub is full", retryable;
    NOT_ACCEPTING = SERVICE_UNAVAILABLE "shutting_down" "The hub is shutting down", retryable;
}

/// The status and the title of the refusal with this code, for the description of the endpoints.
pub(super) fn about(code: &str) -> Option<(StatusCode, &'static str)> {
    KINDS.iter().find(|kind| kind.code == code).map(|kind| (kind.status, kind.title))
}

/// What a client waits that is told to come back and nothing better is known.
const SOON: Duration = Duration::from_secs(1);

/// RFC 6750 section 3.1.
const CHALLENGE: &str = "Bearer realm=\"pulsehub\", error=\"invalid_token\"";

impl Problem {
    fn new(kind: &'static ProblemKind, detail: impl Into<String>) -> Self {
        let retry_after = kind.retryable.then_some(SOON);
        // What somebody sent may stand in it, and must not come back whole.
        let detail = wording::short(&detail.into(), LONGEST_DETAIL).into_owned();
        Self { kind, detail, retry_after, extras: Map::new(), headers: Vec::new() }
    }

    /// A query parameter, header or small body that means nothing.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(&BAD_REQUEST, detail)
    }

    /// A small JSON body that could not be read.
    pub fn invalid_json(error: &JsonError) -> Self {
        Self::new(&INVALID_JSON, &*error.message)
            .with("line", error.line)
            .with("column", error.column)
    }

    /// The body broke off, or is not what its `Content-Encoding` says.
    pub fn bad_body(detail: impl Into<String>) -> Self {
        Self::new(&BAD_BODY, detail)
    }

    /// Some samples of a request; the others are stored.
    pub fn samples_refused(detail: String, losses: &Losses) -> Self {
        Self::new(&SAMPLES_REFUSED, detail).with("dropped", losses)
    }

    /// The same for senders that never repeat what was answered with a status below 500: a refusal that is worth a retry
    /// becomes a 503.
    pub fn for_who_gives_up(self) -> Self {
        let Self { kind, .. } = self;
        if kind.retryable && kind.status.is_client_error() {
            Self { kind: &OVERLOADED, ..self }
        } else {
            self
        }
    }

    /// No credentials at all.
    pub fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer` or `X-API-Key` with a token or an API key";
        Self::new(&UNAUTHORIZED, detail).challenged("Bearer realm=\"pulsehub\"")
    }

    /// The grant `missing` (such as `publish a.b`) would be needed.
    pub fn forbidden(missing: &[String]) -> Self {
        let detail = format!("these credentials lack the grant: {}", missing.join(", "));
        Self::new(&FORBIDDEN, detail).with("missing", missing)
    }

    /// Events for topics on which the hub alone publishes; no grant would help.
    pub fn reserved_topics(topics: &BTreeSet<&Topic>) -> Self {
        let names: Vec<_> = topics.iter().map(|topic| topic.as_str()).collect();
        let detail = format!("nobody but the hub publishes to {}", names.join(", "));
        Self::new(&RESERVED_TOPIC, detail).with("topics", names)
    }

    /// A plain request where a WebSocket begins (RFC 9110 section 15.5.22).
    pub fn upgrade_required() -> Self {
        let detail = "connect with a WebSocket client: Upgrade: websocket, version 13";
        let mut problem = Self::new(&UPGRADE, detail);
        problem.headers.push((http::header::UPGRADE, HeaderValue::from_static("websocket")));
        let version = http::header::SEC_WEBSOCKET_VERSION;
        problem.headers.push((version, HeaderValue::from_static("13")));
        problem
    }

    /// One principal has as many connections as they may.
    pub fn too_many_connections() -> Self {
        Self::new(&TOO_MANY_CONNECTIONS, "close some of this user's connections first")
    }

    /// One address has as many connections as it may.
    pub fn too_many_from_address() -> Self {
        let limit = json!({"name": Limit::ConnectionsPerAddress.name()});
        Self::new(&TOO_MANY_CONNECTIONS, "close some of this address's connections first")
            .with("limit", limit)
            .after(Duration::from_secs(5))
    }

    /// Only admins and probes of health find room.
    pub fn no_room() -> Self {
        Self::new(&OVERLOADED, "too many connections").after(Duration::from_secs(5))
    }

    /// One user asks too much at a time.
    pub fn too_many_questions(most: usize) -> Self {
        let detail = format!("{most} questions of this user are under way: wait for their answers");
        Self::new(&TOO_MANY_QUESTIONS, detail).at_limit(Limit::Questions, most)
    }

    /// Bodies or answers of one user, or one address, hold as many bytes as they may.
    pub fn over_share(limit: Limit, allowed: u64) -> Self {
        let what = if limit == Limit::Answers { "answers not taken yet" } else { "bodies" };
        let detail = format!("your {what} hold {allowed} bytes: wait until some are done");
        Self::new(&TOO_MANY_BYTES, detail).at_limit(limit, allowed)
    }

    /// Bodies or answers of all users together hold as many bytes as they may.
    pub fn over_budget(limit: Limit, allowed: u64) -> Self {
        let what = if limit == Limit::Answers { "answers not taken yet" } else { "bodies" };
        let detail = format!("all {what} together hold {allowed} bytes: come back in a moment");
        Self::new(&OVERLOADED, detail).at_limit(limit, allowed)
    }

    /// Too many wrong sign-ins from one address.
    pub fn too_many_sign_ins(most: u32, wait: Duration) -> Self {
        let detail = "too many wrong sign-ins from this address: wait, then try again";
        Self::new(&TOO_MANY_SIGN_INS, detail).at_limit(Limit::WrongSignIns, most).after(wait)
    }

    /// Two explicit credentials that are not the same.
    pub fn credentials_differ() -> Self {
        Self::new(&CREDENTIALS_DIFFER, "send one credential, or the same one in both places")
    }

    /// Credentials that cannot be read.
    pub fn bad_credentials(detail: impl Into<String>) -> Self {
        Self::new(&UNAUTHORIZED, detail).challenged(CHALLENGE)
    }

    /// A session that another site's page shows.
    pub fn cross_origin(detail: impl Into<String>) -> Self {
        Self::new(&CROSS_ORIGIN, detail)
    }

    /// A request by a name that is not the hub's (RFC 9110 section 15.5.20).
    pub fn foreign_host(name: &str) -> Self {
        let detail = format!(
            "{name:?} is not a name of this hub: if it is meant to be one, add it to `http.allowed_hosts`"
        );
        Self::new(&FOREIGN_HOST, detail)
    }

    /// A page of an origin that is not allowed.
    pub fn foreign_origin() -> Self {
        Self::new(&FOREIGN_ORIGIN, "pages of this origin are not in `http.allowed_origins`")
    }

    /// No route has this path.
    pub fn not_found() -> Self {
        Self::new(&NOT_FOUND, "no such path; docs/protocol.md lists all there are")
    }

    /// Nothing is below a projection's path.
    pub fn below_projection(path: &str) -> Self {
        let detail = format!(
            "nothing is below {path}, which is only read: events on the topics that it is made of change what it shows"
        );
        Self::new(&NOT_FOUND, detail)
    }

    /// No node has this name.
    pub fn no_node(name: &str) -> Self {
        Self::new(&NOT_FOUND, format!("no node is called {name:?}; GET /api/v1/nodes lists all"))
    }

    /// The path has no such method.
    pub fn method_not_allowed() -> Self {
        Self::new(&METHOD, "the `Allow` header names the methods of this path")
    }

    /// A limit on requests was hit.
    pub fn over_limit(limit: Limit, allowed: u64) -> Self {
        let (kind, detail) = match limit {
            Limit::BodyTimeout => {
                (&BODY_TIMEOUT, format!("the whole body must arrive within {allowed} ms"))
            }
            Limit::Batch => (&BATCH_TOO_LARGE, format!("a batch has at most {allowed} events")),
            Limit::Event => (&EVENT_TOO_LARGE, format!("an event has at most {allowed} bytes")),
            _ => (&BODY_TOO_LARGE, format!("a body has at most {allowed} bytes, decompressed")),
        };
        Self::new(kind, detail).at_limit(limit, allowed)
    }

    /// A position of another history of the log than the one at `head`.
    pub fn epoch_changed(head: crate::position::Position) -> Self {
        let detail = "the log is not the one the position was given in: begin anew";
        Self::new(&EPOCH_CHANGED, detail).with("head", head.to_string())
    }

    /// A body of a type that is not taken there.
    pub fn content_type(detail: &str) -> Self {
        Self::new(&CONTENT_TYPE, detail)
    }

    /// A `Content-Encoding` that is not known (RFC 9110 section 12.5.3).
    pub fn encoding() -> Self {
        let mut problem =
            Self::new(&ENCODING, "send the body as it is, or in gzip, zstd or snappy");
        let known = HeaderValue::from_static("gzip, zstd, snappy");
        problem.headers.push((header::ACCEPT_ENCODING, known));
        problem
    }

    /// The hub cannot do it at present.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(&UNAVAILABLE, detail)
    }

    /// The hub is about to end.
    pub fn not_accepting() -> Self {
        Self::new(&NOT_ACCEPTING, "the hub is shutting down; come back in a moment")
    }

    /// The same with a sentence more, where the body could not be read.
    pub fn if_unreadable(mut self, hint: &str) -> Self {
        if self.kind.code == INVALID_JSON.code {
            self.detail = format!("{}; {hint}", self.detail);
        }
        self
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.kind.code
    }

    /// Adds the member `name`.
    pub fn with(mut self, name: &str, value: impl serde::Serialize) -> Self {
        // Only maps with keys that are no strings cannot be written, and none is given here.
        self.extras.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// Names the limit that was hit.
    fn at_limit(self, limit: Limit, allowed: impl Into<Value>) -> Self {
        self.with("limit", json!({"name": limit.name(), "allowed": allowed.into()}))
    }

    fn challenged(mut self, challenge: &'static str) -> Self {
        self.headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        self
    }

    fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let &ProblemKind { status, code, title, retryable } = self.kind;
        let mut body = json!({
            "type": format!("urn:pulsehub:problem:{code}"),
            "title": title,
            "status": status.as_u16(),
            "code": code,
            "detail": self.detail,
            "retryable": retryable,
        });
        for (name, value) in self.extras {
            body[name] = value;
        }
        let retry_after =
            self.retry_after.map(|wait| wait.as_millis().div_ceil(1000).max(1) as u64);
        if let Some(seconds) = retry_after {
            body["retry_after"] = seconds.into();
        }
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response =
            (status, [(header::CONTENT_TYPE, content_type)], body.to_string()).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.headers_mut().extend(self.headers);
        response.extensions_mut().insert(Code(code));
        response
    }
}

/// The code of a refusal, in its response's extensions.
#[derive(Debug, Clone, Copy)]
struct Code(&'static str);

/// Counts a refusal by its code.
pub(super) fn count<B>(response: http::Response<B>, telemetry: &Telemetry) -> http::Response<B> {
    if let Some(Code(code)) = response.extensions().get() {
        telemetry.refused(code);
    }
    response
}

/// The answer to a request whose handler panicked. The panic itself is logged by the panic hook.
pub(super) fn panicked(_panic: Box<dyn Any + Send>) -> Response {
    Problem::new(&INTERNAL, "the fault is the hub's and was logged").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::PublishError;

    #[tokio::test]
    async fn a_problem_says_all_that_is_known() {
        let wait = Duration::from_millis(1200);
        let problem = Problem::from(PublishError::Overloaded { retry_after: wait });
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "urn:pulsehub:problem:overloaded");
        assert_eq!((&body["retryable"], &body["retry_after"]), (&json!(true), &json!(2)));
    }

    #[test]
    fn what_the_storage_said_stays_inside() {
        let reason = "/secret/path: disk full".to_owned();
        let error = PublishError::Unavailable { reason, retry_after: SOON };
        assert!(!Problem::from(error).detail.contains("secret"));
    }
}
