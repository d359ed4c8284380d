//! TimeTracker's metrics server: its instances register, send heartbeats and tell how they are used.
//!
//! The client takes nothing but 200 or 201 with a JSON object that is not empty for success.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    admission::Speaker,
    auth::Principal,
    broker::Batch,
    event::{AppName, InstanceId, new_id},
    http::{
        AppState, Problem,
        body::{self, Payer},
        budget::Charge,
        credentials::ProgramCaller,
        media::Media,
    },
    ingest::{lenient, timetracker::Message},
    instances::InstanceError,
    position::Position,
    protocol::Losses,
    telemetry::DroppedPart,
    topic::PatternToken,
};

/// `POST /api/v1/register`: an instance says who it is, each time it starts.
///
/// The client would write a `token` to a file and never use it, so it gets none.
pub(in crate::http) async fn register(
    State(state): State<AppState>,
    ProgramCaller(principal): ProgramCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = body::read_small(&headers, body, &state, Payer::Known(&principal));
    let read = take(&state, &principal, &headers, body, |message, losses, state| {
        let app = message.needed_app().map_err(|refusal| state.refuse(refusal))?;
        let id = message.instance().map_err(|refusal| state.refuse(refusal))?;
        Ok((app, id, message.registration(losses)))
    });
    let ((app, id, said), dropped, _charge) = read.await?;
    // An instance without a name gets one.
    let id = match id {
        Some(id) => id,
        None => {
            InstanceId::parse(&new_id()).map_err(|error| Problem::bad_request(error.to_string()))?
        }
    };
    let speaker = state.instances.keys().claim(&app, &id).speaker(&principal)?;
    let (record, is_new) = state.instances.register(&speaker, said).await?;
    dropped.count(&state.telemetry);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let mut answer = json!({
        "status": if is_new { "registered" } else { "updated" },
        "instance_id": id,
        "app_identifier": app,
        "state": record.pulse.state,
        "interval_s": record.pulse.interval_s,
    });
    tell(&mut answer, &dropped);
    Ok((status, Json(answer)).into_response())
}

/// `POST /api/v1/validate`: no licence is ever required.
pub(in crate::http) async fn validate(
    State(state): State<AppState>,
    ProgramCaller(principal): ProgramCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let body = body::read_small(&headers, body, &state, Payer::Known(&principal));
    take(&state, &principal, &headers, body, |_, _, _| Ok(())).await?;
    Ok(Json(json!({"valid": true, "license_required": false})))
}

/// `POST /api/v1/heartbeat`, which names only the instance.
///
/// A client whose instance was forgotten does not register again before it is restarted. So an unknown instance is
/// added without a registration, if the credentials leave only one possible application.
pub(in crate::http) async fn heartbeat(
    State(state): State<AppState>,
    ProgramCaller(principal): ProgramCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let body = body::read_small(&headers, body, &state, Payer::Known(&principal));
    let read = take(&state, &principal, &headers, body, |message, _, state| {
        let refused = |refusal| state.refuse(refusal);
        Ok((message.app().map_err(refused)?, message.needed_instance().map_err(refused)?))
    });
    let ((named, id), ..) = read.await?;
    let speakers = match named {
        Some(app) => vec![state.instances.keys().claim(&app, &id).speaker(&principal)?],
        None => speakers_of(&state, &principal, &id)?,
    };
    let records = state.instances.heartbeat(&speakers).await?;
    let record = records.first().ok_or(InstanceError::Unknown)?;
    Ok(Json(json!({
        "status": "ok",
        "instance_id": id,
        "state": record.pulse.state,
        "interval_s": record.pulse.interval_s,
        "registered": record.registration.is_some(),
    })))
}

/// `POST /api/v1/data`: points of usage, also those kept while the hub was away.
pub(in crate::http) async fn data(
    State(state): State<AppState>,
    ProgramCaller(principal): ProgramCaller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let caller = Arc::clone(&principal);
    let body = body::read(&headers, body, &state, &principal);
    let read = take(&state, &principal, &headers, body, move |message, losses, state| {
        let refused = |refusal| state.refuse(refusal);
        let id = message.needed_instance().map_err(refused)?;
        let only = || match &speakers_of(state, &caller, &id).ok()?[..] {
            [speaker] => Some(speaker.app().clone()),
            _ => None,
        };
        let app = message.app_or(only).map_err(refused)?;
        let (now, limits) = (state.clock.now(), state.terms.admission.limits());
        let events =
            message.usage(&app, &id, &caller.publisher, now, limits, losses).map_err(refused)?;
        Ok((app, id, events))
    });
    let ((app, id, events), mut dropped, _charge) = read.await?;
    let claim = state.instances.keys().claim(&app, &id);
    let mut events = state.admit(&principal, Some(&claim), events)?;
    let mut answer = json!({"status": "ok", "accepted": 0, "duplicates": 0});
    if !events.is_empty() {
        // With the points in one batch: what proves that an instance lives is what was stored.
        let sign = match claim.speaker(&principal) {
            Ok(speaker) => state.instances.sent_data(&speaker).unwrap_or_else(|error| {
                dropped.note(DroppedPart::Instance, || error.to_string());
                None
            }),
            Err(_) => {
                dropped.note(DroppedPart::Instance, || {
                    format!("without the grant to publish {app}.instances data are no sign of life")
                });
                None
            }
        };
        let signs = usize::from(sign.is_some());
        let topics: Vec<_> = events.iter().map(|event| event.topic.clone()).collect();
        events.extend(sign);
        // With room for no point it is refused, so that the client keeps them all.
        let published = state.broker.publish(Batch::from(events).what_fits(signs + 1)).await?;
        if let Some(left_out) = published.left_out {
            let limit = left_out.limit;
            for topic in topics.iter().filter(|topic| left_out.topics.contains(*topic)) {
                dropped.note(DroppedPart::Point, || {
                    format!("{topic}: the log already holds {limit} topics, its limit")
                });
            }
        }
        if signs > 0 {
            state.instances.followed(published.position.offset).await;
        }
        answer["accepted"] = published.accepted.saturating_sub(signs).into();
        answer["duplicates"] = (published.offsets.len() - published.accepted).into();
        answer["position"] = published.position.to_string().into();
    }
    dropped.count(&state.telemetry);
    tell(&mut answer, &dropped);
    Ok(Json(answer))
}

/// `GET /api/v1/status`: whether the next request would be taken.
pub(in crate::http) async fn status(
    State(state): State<AppState>,
    _: ProgramCaller,
) -> Result<Json<Status>, Problem> {
    let ready = state.readiness.state(state.clock.elapsed());
    if !ready.publishing {
        return Err(Problem::unavailable(ready.reason.unwrap_or_default()));
    }
    let version = env!("CARGO_PKG_VERSION");
    Ok(Json(Status { status: "healthy", version, position: state.broker.head() }))
}

/// The answer of a hub that is well.
#[derive(Serialize)]
pub(in crate::http) struct Status {
    status: &'static str,
    version: &'static str,
    position: Position,
}

/// What `read` makes of a body, what it could not keep, and what the body holds of the budget.
async fn take<T: Send + 'static>(
    state: &AppState,
    principal: &Principal,
    headers: &HeaderMap,
    body: impl Future<Output = Result<(Bytes, Charge), Problem>>,
    read: impl FnOnce(&Message<'_>, &mut Losses, &AppState) -> Result<T, Problem> + Send + 'static,
) -> Result<(T, Losses, Charge), Problem> {
    Media::check_json(headers, principal)?;
    let (body, charge) = body.await?;
    let state = Arc::clone(state);
    let parsed = body::parse(body, move |body| {
        let refused = |refusal| state.refuse(refusal);
        let lenient = lenient::read(body).map_err(refused)?;
        let message = Message::read(&lenient.text).map_err(refused)?;
        let mut losses = lenient.losses();
        Ok((read(&message, &mut losses, &state)?, losses))
    });
    let parsed: Result<(T, Losses), Problem> = parsed.await?;
    parsed.map(|(made, losses)| (made, losses, charge))
}

fn tell(answer: &mut Value, dropped: &Losses) {
    if !dropped.is_empty() {
        answer["dropped"] = json!(dropped);
    }
}

/// The claims for a request that names only the instance: those for known instances with this name for which the caller
/// may speak, or else one for the only application that the caller's grants name.
fn speakers_of(
    state: &AppState,
    principal: &Principal,
    id: &InstanceId,
) -> Result<Vec<Speaker>, Problem> {
    let speaker = |app: AppName| state.instances.keys().claim(&app, id).speaker(principal).ok();
    let known: Vec<_> = state.instances.apps_of(id).into_iter().filter_map(speaker).collect();
    if !known.is_empty() {
        return Ok(known);
    }
    let first =
        principal.grants.publish.iter().filter_map(|pattern| match pattern.tokens().next() {
            Some(PatternToken::Literal(token)) => AppName::parse(token).ok(),
            _ => None,
        });
    let apps: BTreeSet<_> = first.collect();
    let mut granted = apps.into_iter().filter_map(speaker);
    match (granted.next(), granted.next()) {
        (Some(only), None) => Ok(vec![only]),
        _ => Err(InstanceError::Unknown.into()),
    }
}
