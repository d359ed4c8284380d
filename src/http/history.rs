//! `GET /api/v1/history`: pages of what is retained, in either direction.

use std::{collections::VecDeque, fmt::Write as _};

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header, request::Parts};

use super::{AppState, Caller, Problem, query};
use crate::{
    auth::Principal,
    broker::{ReadError, Resumption},
    event::PublisherName,
    position::{Offset, Position},
    protocol::Replay,
    telemetry::Limit,
    topic::{TopicFilter, TopicPattern},
};

const DEFAULT_LIMIT: usize = 100;

/// History read from the log at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// History looked through for one page, in bytes; a page that has less than it might tells where to go on.
const SEARCHED: usize = 16 << 20;

/// How often a page is begun.
const ATTEMPTS: u32 = 4;

/// What was asked for.
struct Asked {
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
    parts: Parts,
) -> Result<Response, Problem> {
    for _ in 0..ATTEMPTS {
        let epoch = state.broker.epoch();
        let asked = Asked::read(&parts, &principal, &state).await?;
        let page = Page::gather(&asked, &state).await?;
        // Where another epoch began meanwhile, some of this may be lost, and what was asked for as well.
        if state.broker.epoch() == epoch {
            let content_type = HeaderValue::from_static("application/json");
            return Ok(([(header::CONTENT_TYPE, content_type)], page.json()).into_response());
        }
    }
    Err(ReadError("it goes on in a new epoch again and again".to_owned()).into())
}

impl Asked {
    async fn read(parts: &Parts, principal: &Principal, state: &AppState) -> Result<Self, Problem> {
        let mut topics = Vec::new();
        let (mut after, mut before, mut since, mut limit) = (None, None, None, DEFAULT_LIMIT);
        for (name, value) in query::pairs(parts) {
            match &*name {
                "topics" => topics.extend(patterns(&value)?),
                "after" => after = Some(after_offset(&value, state).await?),
                "before" => before = Some(before_offset(&value, state).await?),
                "since" => since = Some(Replay::since(&value).map_err(Problem::bad_request)?),
                "limit" => limit = query::value("limit", &value, "a whole number")?,
                _ => {} // as unknown fields are
            }
        }
        let limits = &state.settings.limits;
        if topics.is_empty() {
            return Err(Problem::bad_request("`topics` names at least one pattern"));
        }
        if topics.len() > limits.patterns {
            state.telemetry.hit(Limit::Patterns);
            let most = limits.patterns;
            return Err(Problem::bad_request(format!("`topics` names at most {most} patterns")));
        }
        if limit == 0 || limit > limits.replay {
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

fn patterns(text: &str) -> Result<Vec<TopicPattern>, Problem> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            TopicPattern::parse(part)
                .map_err(|error| Problem::bad_request(format!("`topics`, {part:?}: {error}")))
        })
        .collect()
}

/// An event's JSON with its publisher as one more field.
fn with_publisher(json: &[u8], publisher: &PublisherName) -> Bytes {
    let open = json.strip_suffix(b"}").unwrap_or_default();
    let field = format!(",\"publisher\":{}}}", publisher.shown());
    [open, field.as_bytes()].concat().into()
}

/// What a position or a bare offset counts as; the latter in the log as it is.
enum Place {
    At(Position),
    Bare(Offset),
}

impl Place {
    fn read(name: &str, text: &str) -> Result<Self, Problem> {
        let expected = "an offset, or a position such as 3f9a:1842";
        text.parse().map_or_else(
            |_| query::value(name, text, expected).map(Self::At),
            |offset| Ok(Self::Bare(offset)),
        )
    }
}

/// Where a page begins; the position may be of another epoch, or beyond what this node has heard of.
async fn after_offset(text: &str, state: &AppState) -> Result<Offset, Problem> {
    match Place::read("after", text)? {
        Place::Bare(offset) => Ok(offset.min(state.broker.head().offset)),
        Place::At(position) => match state.broker.resume(position).await? {
            Resumption::From(offset) => Ok(offset),
            Resumption::Lost(_) => Err(Problem::epoch_changed(state.broker.head())),
        },
    }
}

/// Where a page ends: before an offset that may not be there yet, or may never have been. What another page
/// begins with may be the first after an epoch's end, which no later one gave out.
async fn before_offset(text: &str, state: &AppState) -> Result<Offset, Problem> {
    let position = match Place::read("before", text)? {
        Place::Bare(offset) => return Ok(offset),
        Place::At(position) => position,
    };
    let head = state.broker.head();
    if position.epoch == head.epoch && position.offset > head.offset {
        return Ok(position.offset);
    }
    let last = Position { offset: position.offset.saturating_sub(1), ..position };
    for end in [position, last] {
        if let Resumption::From(_) = state.broker.resume(end).await? {
            return Ok(position.offset);
        }
    }
    Err(Problem::epoch_changed(head))
}

/// The events found, as their JSON.
struct Page {
    /// The log's when the page was begun, and of the epoch that all its positions are of.
    head: Position,
    events: VecDeque<(Offset, Bytes)>,
    bytes: usize,
    /// The events lie in `(after, reached]`.
    after: Offset,
    reached: Offset,
    trimmed_through: Offset,
}

impl Page {
    /// Reads forward from `after` or `since`; without either, the newest before `before`.
    async fn gather(asked: &Asked, state: &AppState) -> Result<Self, Problem> {
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
                let newest = broker.newest(&asked.filter, asked.limit, until, SEARCHED).await?;
                (newest.after, newest.until)
            }
            Some(time) => (broker.locate(&asked.filter, time, until).await?, until),
            None => (0, until),
        };
        let start = start.max(asked.after.unwrap_or(0));
        // Another node may have told of more than this one has heard of, and gave what lies before that.
        let head = Position { offset: head.offset.max(start), ..head };
        let most = state.settings.limits.body.as_usize();
        let mut page = Self {
            head,
            events: VecDeque::new(),
            bytes: 0,
            after: start,
            reached: start,
            trimmed_through: 0,
        };
        let mut searched = 0;
        while page.reached < end {
            if is_forward && searched >= SEARCHED {
                return Ok(page);
            }
            let chunk = broker.read(page.reached, end, &asked.filter, CHUNK).await?;
            page.trimmed_through = page.trimmed_through.max(chunk.trimmed_through);
            searched += CHUNK; // of which retention may have left nothing
            let (after, through) = (page.reached, chunk.reached.min(end));
            if through <= after {
                return Ok(page); // the log ends sooner than its head said
            }
            let records = chunk.blocks.iter().flat_map(|block| block.records_after(after));
            let matching = records
                .take_while(|record| record.offset() <= through)
                .filter(|record| asked.filter.matches(record.topic()));
            for record in matching {
                // Copied, for sharing the block would keep its other events in memory as well.
                let json = match record.publisher().filter(|_| asked.names_publishers) {
                    Some(publisher) => with_publisher(record.json(), publisher),
                    None => Bytes::copy_from_slice(record.json()),
                };
                let is_full = page.events.len() == asked.limit
                    || !page.events.is_empty() && page.bytes + json.len() > most;
                if is_full && is_forward {
                    return Ok(page);
                }
                if is_full {
                    page.drop_first();
                }
                page.bytes += json.len();
                page.reached = record.offset();
                page.events.push_back((record.offset(), json));
            }
            page.reached = through;
        }
        page.reached = page.reached.max(until);
        Ok(page)
    }

    fn drop_first(&mut self) {
        if let Some((offset, json)) = self.events.pop_front() {
            self.after = offset;
            self.bytes -= json.len();
        }
    }

    /// `first` is for `before`, the page before this one; `next` for `after`, the page behind it. All that
    /// matches between the two is in this one.
    fn json(&self) -> String {
        let head = self.head;
        let position = |offset| Position { offset, ..head };
        let first = self.after.saturating_add(1);
        let mut out = String::with_capacity(self.bytes + self.events.len() + 200);
        out.push_str("{\"events\":[");
        for (index, (_, json)) in self.events.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            // Records are JSON, and so UTF-8, wherever they were read from.
            out.push_str(std::str::from_utf8(json).unwrap_or("null"));
        }
        let next = position(self.reached);
        // Writing to memory cannot fail.
        let _ = write!(
            out,
            "],\"position\":\"{head}\",\"first\":\"{}\",\"next\":\"{next}\"",
            position(first)
        );
        if self.trimmed_through > self.after {
            let _ = write!(out, ",\"trimmed_through\":\"{}\"", position(self.trimmed_through));
        }
        out.push('}');
        out
    }
}
