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

use super::{AppState, Caller, Problem, body};
use crate::{
    auth::Principal,
    event::Event,
    ingest::{
        self, Bounds, Defaults, Refusal,
        native::{self, Format},
    },
    position::{Offset, Position},
};

/// The answer once all is stored.
#[derive(Serialize)]
struct Stored {
    accepted: usize,
    duplicates: usize,
    position: Position,
    offsets: Vec<Offset>,
}

/// The answer before anything is stored.
#[derive(Serialize)]
struct Taken {
    accepted: usize,
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
    let body = body::read(&headers, body, &state).await?;
    let events = read(body, format, &principal, &state).await?;
    check_grants(&principal, &events)?;
    let count = events.len();
    if !waits {
        state.broker.enqueue(events).await?;
        return Ok((StatusCode::ACCEPTED, Json(Taken { accepted: count })).into_response());
    }
    let published = state.broker.publish(events).await?;
    let stored = Stored {
        accepted: published.accepted,
        duplicates: count - published.accepted,
        position: published.position,
        offsets: published.offsets,
    };
    Ok(Json(stored).into_response())
}

fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    match body::content_type(headers).as_deref() {
        // The last is what `curl -d` says unless it is told otherwise; the body is JSON all the same.
        None | Some("application/json" | "application/x-www-form-urlencoded") => Ok(Format::Json),
        Some("application/x-ndjson") => Ok(Format::Lines),
        Some(_) => Err(Problem::content_type("application/json or application/x-ndjson")),
    }
}

/// Bodies above this are read on a thread of their own: reading them here would hold up the
/// sockets that share the thread.
const LARGE: usize = 128 * 1024;

async fn read(
    body: Bytes,
    format: Format,
    principal: &Principal,
    state: &AppState,
) -> Result<Vec<Event>, Problem> {
    let limits = &state.settings.limits;
    let bounds = Bounds { event: limits.event.as_usize(), batch: limits.batch };
    let (now, source) = (state.clock.now(), principal.name.clone());
    let large = body.len() > LARGE;
    let read = move || {
        let defaults = Defaults { source: &source, now, new_id: ingest::new_id };
        native::read(&body, format, &defaults, &bounds)
    };
    let events = if large {
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| Problem::unavailable("the hub is shutting down"))?
    } else {
        read()
    };
    events.map_err(|refusal: Refusal| {
        refusal.limit().into_iter().for_each(|limit| state.telemetry.hit(limit));
        Problem::from(refusal)
    })
}

/// Missing grants named in one answer, at most.
const MOST_NAMED: usize = 20;

fn check_grants(principal: &Principal, events: &[Event]) -> Result<(), Problem> {
    let mut missing = BTreeSet::new();
    for event in events {
        if !principal.may_publish(&event.topic) && missing.len() < MOST_NAMED {
            missing.insert(format!("publish {}", event.topic));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Problem::forbidden(&missing.into_iter().collect::<Vec<_>>()))
}
