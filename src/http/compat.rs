//! Paths of programs that were written for another server: they change their address and their
//! credentials, and nothing else.

pub(super) mod timetracker;

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
};
use http::HeaderMap;
use serde::Serialize;

use super::{AppState, Caller, Problem, body, media::Media};
use crate::{
    auth::Principal,
    event::{AppName, NameError, new_id},
    ingest::{
        Defaults,
        locanext::{self, LocanextKind},
    },
    position::Position,
    protocol::Losses,
};

/// The answer to one event that is stored.
#[derive(Serialize)]
pub(super) struct Stored {
    accepted: usize,
    topic: String,
    position: Position,
    /// What of it was not kept.
    #[serde(skip_serializing_if = "Losses::is_empty")]
    dropped: Losses,
}

/// `POST /api/{app}/metrics`, as LocaNext sends its numbers.
pub(super) async fn metrics(
    State(state): State<AppState>,
    Caller(principal): Caller,
    app: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Stored>, Problem> {
    take(&state, &principal, app, LocanextKind::Metrics, &headers, body).await
}

/// `POST /api/{app}/events`, as LocaNext tells what happens.
pub(super) async fn events(
    State(state): State<AppState>,
    Caller(principal): Caller,
    app: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Stored>, Problem> {
    take(&state, &principal, app, LocanextKind::Event, &headers, body).await
}

async fn take(
    state: &AppState,
    principal: &Principal,
    app: Result<Path<String>, PathRejection>,
    kind: LocanextKind,
    headers: &HeaderMap,
    body: Body,
) -> Result<Json<Stored>, Problem> {
    let Path(app) = app.map_err(|error| Problem::bad_request(error.body_text()))?;
    let app = AppName::parse(&app).map_err(|error| {
        let mend = match error {
            NameError::Reserved(_) => "; events are published at /api/v1/publish",
            _ => "",
        };
        Problem::bad_request(format!("{error}{mend}"))
    })?;
    Media::check_json(headers, principal)?;
    let (body, _charge) = body::read(headers, body, state, principal).await?;
    let (now, limits) = (state.clock.now(), *state.terms.admission.limits());
    let (source, publisher) = (principal.name.clone(), principal.publisher.clone());
    let read = body::parse(body, move |body| {
        let defaults = Defaults { source: &source, publisher: &publisher, now, new_id };
        locanext::read(&app, kind, body, &defaults, &limits)
    });
    let (event, dropped) = read.await?.map_err(|refusal| state.refuse(refusal))?;
    let topic = event.topic.to_string();
    let events = state.admit(principal, None, vec![event])?;
    let published = state.broker.publish(events.into()).await?;
    dropped.count(&state.telemetry);
    Ok(Json(Stored { accepted: published.accepted, topic, position: published.position, dropped }))
}
