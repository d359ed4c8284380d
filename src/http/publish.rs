//! `POST /api/v1/publish`: events in, offsets out.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::{AppState, Caller, Problem, body, media::Media, query::Query};
use crate::{
    auth::Principal,
    event::{Event, new_id},
    ingest::{
        Defaults,
        native::{self, BodyFormat},
    },
    position::{Offset, Position},
    protocol::Losses,
    series,
};

/// What is asked for.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PublishQuery {
    ack: Ack,
}

/// When a publish is answered.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ack {
    /// Once all is stored.
    #[default]
    Stored,
    /// Before anything is.
    Accepted,
}

/// For who sent something that may not have been meant as JSON.
const SHAPES: &str = "send an event as a JSON object, an array of them, or one to a line";

/// The answer once all is stored.
#[derive(Serialize)]
struct PublishAnswer {
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
    Query(PublishQuery { ack }): Query<PublishQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let media = Media::of(&headers, &principal)?;
    // Held until the events have been stored: the queue's own limit counts them only from then on.
    let (body, _charge) = body::read(&headers, body, &state, &principal).await?;
    let read = read(body, media, &principal, &state).await;
    let (events, mut dropped) = read.map_err(|refused| match media {
        Media::TakenForJson => refused.if_unreadable(SHAPES),
        Media::Json | Media::Lines => refused,
    })?;
    let events = state.admit(&principal, None, events)?;
    state.series.crowded_out(&events, &mut dropped);
    let count = events.len();
    if matches!(ack, Ack::Accepted) {
        state.broker.enqueue(events).await?;
        dropped.count(&state.telemetry);
        return Ok((StatusCode::ACCEPTED, Json(Taken { accepted: count, dropped })).into_response());
    }
    let published = state.broker.publish(events.into()).await?;
    dropped.count(&state.telemetry);
    let stored = PublishAnswer {
        accepted: published.accepted,
        duplicates: count - published.accepted,
        position: published.position,
        offsets: published.offsets,
        dropped,
    };
    Ok(Json(stored).into_response())
}

async fn read(
    body: Bytes,
    media: Media,
    principal: &Principal,
    state: &AppState,
) -> Result<(Vec<Event>, Losses), Problem> {
    let limits = *state.terms.admission.limits();
    let (now, source) = (state.clock.now(), principal.name.clone());
    let publisher = principal.publisher.clone();
    let format = match media {
        Media::Json | Media::TakenForJson => BodyFormat::Json,
        Media::Lines => BodyFormat::Lines,
    };
    let events = body::parse(body, move |body| {
        let defaults = Defaults { source: &source, publisher: &publisher, now, new_id };
        let events = native::read(body, format, &defaults, &limits)?;
        let dropped = series::extract::left_out(&events);
        Ok((events, dropped))
    });
    events.await?.map_err(|refusal| state.refuse(refusal))
}
