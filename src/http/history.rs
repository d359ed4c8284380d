//! `GET /api/v1/history`: pages of what is retained, in either direction.

mod page;

use std::{borrow::Cow, str::FromStr};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::Response,
};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use self::page::Page;
use super::{
    AppState, Caller, Problem, answers,
    budget::Charge,
    credentials,
    query::{DEFAULT_LIMIT, PageLimit, Parsed, Query, Several},
};
use crate::{
    auth::Principal,
    broker::{ReadError, Resumption},
    event::{PublisherName, Record},
    json,
    position::{Offset, Position},
    protocol::Replay,
    telemetry::Limit,
    topic::{TopicFilter, TopicPattern},
};

/// History read from the log at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// What of it is held until it has been taken, in bytes.
const PIECE: usize = 512 << 10;

/// How much history is searched for one page, in bytes. If this ends a page early, the page says where to continue.
const SEARCHED: usize = 16 << 20;

/// How often a page is begun.
const ATTEMPTS: u32 = 4;

/// The query.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    #[serde(default)]
    topics: Several<TopicPattern>,
    after: Option<Parsed<OffsetText>>,
    before: Option<Parsed<OffsetText>>,
    since: Option<String>,
    limit: Option<PageLimit<{ usize::MAX }>>,
}

/// What was asked for, in the log as it is.
struct HistoryRequest {
    filter: TopicFilter,
    /// Only later events.
    after: Option<Offset>,
    /// Only earlier events.
    before: Option<Offset>,
    /// Only events received since then.
    since: Option<Replay>,
    limit: usize,
    /// Whether the events name their publishers, which only admins see.
    names_publishers: bool,
}

pub(super) async fn history(
    State(state): State<AppState>,
    Caller(principal): Caller,
    Query(query): Query<HistoryQuery>,
) -> Result<Response, Problem> {
    let mut charge = state.budgets.answers.begin(principal.identity().clone());
    let limits = &state.settings.limits;
    charge.grow(limits.body.as_usize().min(PIECE) + limits.event.as_usize())?;
    for _ in 0..ATTEMPTS {
        let epoch = state.broker.epochs().newest();
        let asked = HistoryRequest::read(query.clone(), &principal, &state).await?;
        let begun = Page::begin(asked, &state, principal.identity()).await;
        // Where another epoch began meanwhile, some of this may be lost, and what was asked for as well.
        if state.broker.epochs().newest() != epoch {
            continue;
        }
        let (page, first) = begun?;
        if page.head.epoch == epoch {
            return Ok(answers::respond(body(page, first, charge)));
        }
    }
    Err(new_epoch().into())
}

fn new_epoch() -> ReadError {
    ReadError("it goes on in a new epoch again and again".to_owned())
}

/// The page, read from the log while it is sent. An error breaks the answer off, so that the client cannot take it for
/// a whole page.
fn body(page: Page, first: Option<Bytes>, charge: Charge) -> Body {
    let begin = stream::iter(["{\"events\":[".into()].into_iter().chain(first).map(Ok));
    let rest = stream::try_unfold(Some((page, charge)), async |page| {
        let Some((mut page, charge)) = page else { return Ok(None) };
        match page.piece().await {
            Ok(Some(piece)) => Ok(Some((piece, Some((page, charge))))),
            Ok(None) => Ok(Some((page.tail(), None))),
            Err(error) => {
                tracing::error!(%error, "history cannot be read");
                Err(error)
            }
        }
    });
    Body::from_stream(begin.chain(rest))
}

impl HistoryRequest {
    async fn read(
        query: HistoryQuery,
        principal: &Principal,
        state: &AppState,
    ) -> Result<Self, Problem> {
        let HistoryQuery { topics: Several(topics), after, before, since, limit } = query;
        let after = match after {
            Some(Parsed(place)) => Some(after_offset(place, state).await?),
            None => None,
        };
        let before = match before {
            Some(Parsed(place)) => Some(before_offset(place, state).await?),
            None => None,
        };
        let since = since.map(|text| Replay::since(&text)).transpose();
        let since = since.map_err(Problem::bad_request)?;
        let limits = &state.settings.limits;
        let limit = limit.map_or(DEFAULT_LIMIT.min(limits.replay), PageLimit::get);
        if topics.is_empty() {
            return Err(Problem::bad_request(
                "`topics` must name at least one pattern, such as ?topics=demo.**",
            ));
        }
        if topics.len() > limits.patterns {
            state.telemetry.hit(Limit::Patterns);
            let most = limits.patterns;
            return Err(Problem::bad_request(format!(
                "`topics` must name at most {most} patterns"
            )));
        }
        if limit > limits.replay {
            state.telemetry.hit(Limit::Replay);
            let most = limits.replay;
            return Err(Problem::bad_request(format!("`limit` must be from 1 to {most}")));
        }
        credentials::check_readable(principal, &topics)?;
        let (filter, names_publishers) = (TopicFilter::new(topics), principal.admin);
        Ok(Self { filter, after, before, since, limit, names_publishers })
    }
}

impl HistoryRequest {
    /// An event as the caller sees it.
    fn shown<'a>(&self, record: Record<'a>) -> Cow<'a, [u8]> {
        match record.publisher().filter(|_| self.names_publishers) {
            Some(publisher) => with_publisher(record.json(), publisher).into(),
            None => record.json().into(),
        }
    }
}

/// An event's JSON with its publisher as one more field.
fn with_publisher(json: &[u8], publisher: &PublisherName) -> Vec<u8> {
    let open = json.strip_suffix(b"}").unwrap_or_default();
    let field = format!(",\"publisher\":{}}}", publisher.shown());
    [open, field.as_bytes()].concat()
}

/// What a position or a bare offset counts as; the latter in the log as it is.
#[derive(Clone)]
enum OffsetText {
    At(Position),
    Bare(Offset),
}

impl FromStr for OffsetText {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(offset) = json::read_whole(text) {
            return Ok(Self::Bare(offset));
        }
        let position = text.parse().map(Self::At);
        position.map_err(|_| "must be an offset, or a position such as 3f9a:1842")
    }
}

/// Where a page begins; the position may be of another epoch, or beyond what this node has heard of. A bare offset
/// that no epoch gave out is of a run that this log never was in.
async fn after_offset(place: OffsetText, state: &AppState) -> Result<Offset, Problem> {
    let position = match place {
        OffsetText::At(position) => position,
        OffsetText::Bare(offset) => {
            let head = state.broker.head();
            Position { offset: offset.min(head.offset), ..head }
        }
    };
    match state.broker.epochs().resume(position).await? {
        Resumption::From(offset) => Ok(offset),
        Resumption::Lost(_) => Err(Problem::epoch_changed(state.broker.head())),
    }
}

/// Where a page ends: before an offset that may not be there yet, or may never have been. What another page
/// begins with may be the first after an epoch's end, which no later one gave out.
async fn before_offset(place: OffsetText, state: &AppState) -> Result<Offset, Problem> {
    let position = match place {
        OffsetText::Bare(offset) => return Ok(offset),
        OffsetText::At(position) => position,
    };
    let head = state.broker.head();
    if position.epoch == head.epoch && position.offset > head.offset {
        return Ok(position.offset);
    }
    let last = Position { offset: position.offset.saturating_sub(1), ..position };
    for end in [position, last] {
        if let Resumption::From(_) = state.broker.epochs().resume(end).await? {
            return Ok(position.offset);
        }
    }
    Err(Problem::epoch_changed(head))
}
