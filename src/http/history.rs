//! `GET /api/v1/history`: pages of what is retained, in either direction.

use std::{borrow::Cow, collections::VecDeque, fmt::Write as _, str::FromStr, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::Response,
};
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use super::{
    AppState, Caller, Problem, answers,
    budget::Charge,
    query::{PageLimit, Parsed, Query, Several},
};
use crate::{
    auth::Principal,
    broker::{LogChunk, ReadError, Resumption},
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

/// History looked through for one page, in bytes; a page that has less than it might tells where to go on.
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
    #[serde(default)]
    limit: PageLimit<{ usize::MAX }>,
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
    /// Whether the events name their publishers, which only admins are told.
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

/// The page, read from the log as it is taken. What fails on the way breaks the answer off, so that nobody takes it for
/// a whole one.
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
        let (since, limit) = (since.map_err(Problem::bad_request)?, limit.get());
        let limits = &state.settings.limits;
        if topics.is_empty() {
            return Err(Problem::bad_request("`topics` names at least one pattern"));
        }
        if topics.len() > limits.patterns {
            state.telemetry.hit(Limit::Patterns);
            let most = limits.patterns;
            return Err(Problem::bad_request(format!("`topics` names at most {most} patterns")));
        }
        if limit > limits.replay {
            state.telemetry.hit(Limit::Replay);
            let most = limits.replay;
            return Err(Problem::bad_request(format!("`limit` is from 1 to {most}")));
        }
        let missing: Vec<_> = topics
            .iter()
            .filter(|pattern| !principal.may_subscribe(pattern))
            .map(|pattern| format!("subscribe {pattern}"))
            .collect();
        if !missing.is_empty() {
            return Err(Problem::forbidden(&missing));
        }
        let (filter, names_publishers) = (TopicFilter::new(topics), principal.admin);
        Ok(Self { filter, after, before, since, limit, names_publishers })
    }
}

impl HistoryRequest {
    /// An event as it is told to who asked.
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
        position.map_err(|_| "is an offset, or a position such as 3f9a:1842")
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

/// A page under way: what was given of it, and what is still to be read.
struct Page {
    state: AppState,
    asked: HistoryRequest,
    is_forward: bool,
    /// The log's when the page was begun, and of the epoch that all its positions are of.
    head: Position,
    /// The events lie in `(after, reached]`; `end` is where the last may lie, `until` where none lies behind it.
    after: Offset,
    reached: Offset,
    end: Offset,
    until: Offset,
    /// Read already.
    ready: Option<LogChunk>,
    events: usize,
    bytes: usize,
    searched: usize,
    is_over: bool,
    trimmed_through: Offset,
}

impl Page {
    /// A page with its first events: forward from `after` or `since`; without either, the newest before `before`.
    async fn begin(
        asked: HistoryRequest,
        state: &AppState,
        user: &Arc<str>,
    ) -> Result<(Self, Option<Bytes>), ReadError> {
        let broker = &state.broker;
        let head = broker.head();
        let until =
            asked.before.map_or(head.offset, |before| before.saturating_sub(1).min(head.offset));
        let since = match asked.since {
            None | Some(Replay::Last(_) | Replay::Latest) => None,
            Some(Replay::SinceAgo(ago)) => Some(state.clock.now().saturating_sub(ago)),
            Some(Replay::SinceTime(time)) => Some(time),
        };
        let is_forward = asked.after.is_some() || since.is_some();
        let (start, end) = match since {
            _ if !is_forward => {
                let (hub, limit) = (&state.hub, asked.limit);
                let newest = hub.newest(Some(user), &asked.filter, limit, until, SEARCHED).await?;
                (newest.after, newest.until)
            }
            Some(time) => (broker.epochs().locate(time, until).await?, until),
            None => (0, until),
        };
        let start = start.max(asked.after.unwrap_or(0));
        let mut page = Self {
            // Another node may have told of more than this one has heard of, and gave what lies before that.
            head: Position { offset: head.offset.max(start), ..head },
            state: state.clone(),
            asked,
            is_forward,
            after: start,
            reached: start,
            end,
            until,
            ready: None,
            events: 0,
            bytes: 0,
            searched: 0,
            is_over: false,
            trimmed_through: 0,
        };
        if !is_forward {
            page.narrow().await?;
        }
        let first = page.piece().await?;
        Ok((page, first))
    }

    /// The bytes of events that a page has at most.
    fn most_bytes(&self) -> usize {
        self.state.settings.limits.body.as_usize()
    }

    /// Begins later, so that the newest of the page are not too many: only their sizes are kept meanwhile.
    async fn narrow(&mut self) -> Result<(), ReadError> {
        let (mut sizes, mut bytes) = (VecDeque::new(), 0);
        let mut reached = self.reached;
        while reached < self.end {
            let chunk = self.read(reached).await?;
            let through = chunk.reached.min(self.end);
            if through <= reached {
                break; // the log ends sooner than its head said
            }
            for record in matching(&chunk, reached, through, &self.asked.filter) {
                let size = self.asked.shown(record).len();
                bytes += size;
                sizes.push_back((record.offset(), size));
                while sizes.len() > self.asked.limit || sizes.len() > 1 && bytes > self.most_bytes()
                {
                    let Some((offset, size)) = sizes.pop_front() else { break };
                    self.after = offset;
                    bytes -= size;
                }
            }
            if reached == self.reached && through == self.end {
                self.ready = Some(chunk); // all there is
            }
            reached = through;
            tokio::task::yield_now().await; // what is in memory was read without waiting
        }
        self.reached = self.after;
        Ok(())
    }

    async fn read(&mut self, after: Offset) -> Result<LogChunk, ReadError> {
        let broker = &self.state.broker;
        let chunk = broker.read(after, self.end, &self.asked.filter, CHUNK).await?;
        if broker.epochs().newest() != self.head.epoch {
            return Err(new_epoch());
        }
        self.trimmed_through = self.trimmed_through.max(chunk.trimmed_through);
        Ok(chunk)
    }

    /// The next events, at most [`PIECE`] and one more; None when the page has all of them.
    async fn piece(&mut self) -> Result<Option<Bytes>, ReadError> {
        let mut piece = BytesMut::new();
        while piece.is_empty() && !self.is_over && self.reached < self.end {
            if self.is_forward && self.searched >= SEARCHED {
                self.is_over = true;
                break;
            }
            let chunk = match self.ready.take() {
                Some(chunk) => chunk,
                None => self.read(self.reached).await?,
            };
            let is_read_whole = self.take(&chunk, &mut piece);
            // Of which retention may have left nothing.
            self.searched += if is_read_whole { CHUNK } else { PIECE };
            tokio::task::yield_now().await;
        }
        if piece.is_empty() {
            if !self.is_over {
                self.reached = self.reached.max(self.until);
            }
            self.is_over = true;
            return Ok(None);
        }
        Ok(Some(piece.freeze()))
    }

    /// Puts what is in `chunk` into `piece`, up to its size and the page's; whether that was all.
    fn take(&mut self, chunk: &LogChunk, piece: &mut BytesMut) -> bool {
        let (after, through) = (self.reached, chunk.reached.min(self.end));
        if through <= after {
            self.is_over = true; // the log ends sooner than its head said
            return true;
        }
        for record in matching(chunk, after, through, &self.asked.filter) {
            let json = self.asked.shown(record);
            let is_full = self.events == self.asked.limit
                || self.events > 0 && self.bytes + json.len() > self.most_bytes();
            if is_full {
                self.is_over = true;
                return false;
            }
            if piece.len() >= PIECE {
                return false;
            }
            if self.events > 0 {
                piece.extend_from_slice(b",");
            }
            // Copied, for sharing the block would keep its other events in memory as well.
            piece.extend_from_slice(&json);
            self.events += 1;
            self.bytes += json.len();
            self.reached = record.offset();
        }
        self.reached = through;
        true
    }

    /// `first` is for `before`, the page before this one; `next` for `after`, the page behind it. All that
    /// matches between the two is in this one.
    fn tail(&self) -> Bytes {
        let head = self.head;
        let position = |offset| Position { offset, ..head };
        let (first, next) = (position(self.after.saturating_add(1)), position(self.reached));
        let mut out =
            format!("],\"position\":\"{head}\",\"first\":\"{first}\",\"next\":\"{next}\"");
        let lost = self.trimmed_through.min(self.reached);
        if lost > self.after {
            // Writing to memory cannot fail.
            let _ = write!(out, ",\"trimmed_through\":\"{}\"", position(lost));
        }
        out.push('}');
        out.into()
    }
}

/// The events in `(after, through]` that match.
fn matching<'a>(
    chunk: &'a LogChunk,
    after: Offset,
    through: Offset,
    filter: &'a TopicFilter,
) -> impl Iterator<Item = Record<'a>> {
    let records = chunk.blocks.iter().flat_map(move |block| block.records_after(after));
    records
        .take_while(move |record| record.offset() <= through)
        .filter(|record| filter.matches(record.topic()))
}
