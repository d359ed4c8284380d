//! `POST /api/v1/publish`: events in, offsets out.

use std::collections::BTreeSet;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::{AppState, Caller, Problem, body, compat};
use crate::{
    auth::Principal,
    event::Event,
    ingest::{
        self, Bounds, Defaults, Refusal,
        native::{self, Format},
    },
    position::{Offset, Position},
    protocol::Losses,
    series,
    topic::Topic,
};

/// The answer once all is stored.
#[derive(Serialize)]
struct Stored {
    accepted: usize,
    duplicates: usize,
    position: Position,
    offsets: Vec<Offset>,
    /// Samples that become no series, though their events are stored.
    #[serde(skip_serializing_if = "Losses::is_empty")]
    dropped: Losses,
}

/// The answer before anything is stored.
#[derive(Serialize)]
struct Taken {
    accepted: usize,
    #[serde(skip_serializing_if = "Losses::is_empty")]
    dropped: Losses,
}

pub(super) async fn publish(
    State(state): State<AppState>,
    Caller(principal): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let waits = match query.as_deref().unwrap_or_default() {
        "" | "ack=stored" => true,
        "ack=accepted" => false,
        _ => {
            return Err(Problem::bad_request(
                "the only parameter is `ack`: `stored` or `accepted`",
            ));
        }
    };
    let format = format(&headers)?;
    // Held until the events have been stored: the queue's own limit counts them only from then on.
    let (body, _charge) = body::read(&headers, body, &state, &principal).await?;
    let (events, dropped) = read(body, format, &principal, &state).await?;
    check_grants(&principal, &events, &state)?;
    let count = events.len();
    if !waits {
        state.broker.enqueue(events).await?;
        compat::count(&dropped, &state);
        return Ok((StatusCode::ACCEPTED, Json(Taken { accepted: count, dropped })).into_response());
    }
    let published = state.broker.publish(events).await?;
    compat::count(&dropped, &state);
    let stored = Stored {
        accepted: published.accepted,
        duplicates: count - published.accepted,
        position: published.position,
        offsets: published.offsets,
        dropped,
    };
    Ok(Json(stored).into_response())
}

fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    match body::content_type(headers).as_deref() {
        Some("application/x-ndjson") => Ok(Format::Lines),
        _ if body::may_be_json(headers) => Ok(Format::Json),
        _ => Err(Problem::content_type("application/json or application/x-ndjson")),
    }
}

async fn read(
    body: Bytes,
    format: Format,
    principal: &Principal,
    state: &AppState,
) -> Result<(Vec<Event>, Losses), Problem> {
    let bounds = bounds(state);
    let (now, source) = (state.clock.now(), principal.name.clone());
    let publisher = principal.publisher.clone();
    let events = body::parse(body, move |body| {
        let defaults =
            Defaults { source: &source, publisher: &publisher, now, new_id: ingest::new_id };
        let events = native::read(body, format, &defaults, &bounds)?;
        let dropped = series::extract::left_out(&events);
        Ok((events, dropped))
    });
    events.await?.map_err(|refusal| refused(refusal, state))
}

/// How much one batch may hold.
pub(super) fn bounds(state: &AppState) -> Bounds {
    let limits = &state.settings.limits;
    Bounds { event: limits.event.as_usize(), batch: limits.batch }
}

/// A refusal, its limit counted.
pub(super) fn refused(refusal: Refusal, state: &AppState) -> Problem {
    refusal.limit().into_iter().for_each(|limit| state.telemetry.hit(limit));
    Problem::from(refusal)
}

/// Topics or missing grants named in one answer, at most.
const MOST_NAMED: usize = 20;

/// Refuses who may not publish some of these.
pub(super) fn check_grants(
    principal: &Principal,
    events: &[Event],
    state: &AppState,
) -> Result<(), Problem> {
    check_topics(events, state)?;
    let missing = topics(events, |topic| !principal.may_publish(topic));
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = missing.iter().map(|topic| format!("publish {topic}")).collect();
    Err(Problem::forbidden(&missing))
}

/// Refuses events for topics on which nobody but the hub publishes.
pub(super) fn check_topics(events: &[Event], state: &AppState) -> Result<(), Problem> {
    let own = topics(events, |topic| state.terms.own_topics.hold(topic));
    if own.is_empty() { Ok(()) } else { Err(Problem::reserved_topics(&own)) }
}

/// The topics of these events that `is_meant` picks, at most [`MOST_NAMED`].
fn topics(events: &[Event], is_meant: impl Fn(&Topic) -> bool) -> BTreeSet<&Topic> {
    let mut found = BTreeSet::new();
    for event in events {
        if found.len() < MOST_NAMED && is_meant(&event.topic) {
            found.insert(&event.topic);
        }
    }
    found
}
