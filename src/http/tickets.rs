//! `/api/v1/tickets`: for clients that cannot send credentials when they open a socket or a stream.

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{
    AppState, Caller, Problem,
    body::{self, Payer},
    credentials, sessions,
};
use crate::{
    access,
    json::{self, Object},
    topic::TopicPattern,
};

/// What a ticket is asked to be for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Of the streams it opens; without them it is for one socket or stream.
    topics: Option<Vec<TopicPattern>>,
}

#[derive(Serialize)]
struct Ticket<'a> {
    ticket: &'a str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<String>>,
}

/// The ticket that is taken back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TakenBack {
    ticket: SecretString,
}

/// Makes a ticket: without a body for one socket or stream, with `topics` for streams of these, as often as they break.
pub(super) async fn issue(
    State(state): State<AppState>,
    Caller(principal): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let payer = Payer::Known(&principal);
    let (body, _charge) = body::read_small(&headers, body, &state, payer).await?;
    let wanted = match &body[..] {
        [] => Object(Wanted { topics: None }),
        body => json::read("the body", body).map_err(|error| Problem::invalid_json(&error))?,
    };
    let Object(Wanted { topics: Some(topics) }) = wanted else {
        let ticket = sessions::counted(&state, state.access.issue_ticket(&principal).await)?;
        let expires_in = access::TICKET_LIFE.millis() / 1000;
        return Ok(answer(&ticket, expires_in, None));
    };
    let most = state.settings.limits.patterns;
    if topics.is_empty() || topics.len() > most {
        return Err(Problem::bad_request(format!("`topics` must be from 1 to {most} patterns")));
    }
    if !principal.is_known() {
        let detail = "what everybody may read needs no ticket: open the stream without one";
        return Err(Problem::bad_request(detail));
    }
    credentials::check_readable(&principal, &topics)?;
    let names = topics.iter().map(TopicPattern::to_string).collect();
    let made = state.access.issue_stream_ticket(&principal, topics).await;
    let (ticket, expires) = sessions::counted(&state, made)?;
    Ok(answer(&ticket, expires.saturating_sub(state.clock.now()) / 1000, Some(names)))
}

fn answer(ticket: &SecretString, expires_in: u64, topics: Option<Vec<String>>) -> Response {
    let ticket = Ticket { ticket: ticket.expose_secret(), expires_in, topics };
    (StatusCode::CREATED, Json(ticket)).into_response()
}

/// Revokes a stream's ticket and ends its streams. Anybody who has the ticket may do that, more than once.
pub(super) async fn take_back(
    State(state): State<AppState>,
    Caller(principal): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let TakenBack { ticket } = body::json(&headers, body, &state, Payer::Known(&principal)).await?;
    state.access.end_stream_ticket(&ticket).await?;
    Ok(StatusCode::NO_CONTENT)
}
