//! Answers that may be large: what they hold in memory is charged to who asked, until they have been taken.

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, header};
use serde::Serialize;

use super::{AppState, Problem, budget::Charge};
use crate::auth::Principal;

/// `value` as JSON, for `principal`.
pub(super) fn json(
    state: &AppState,
    principal: &Principal,
    value: &impl Serialize,
) -> Result<Response, Problem> {
    let text = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written");
        Problem::unavailable("the answer cannot be written")
    })?;
    let mut charge = state.budgets.answers.begin(principal.identity().clone());
    charge.grow(text.len())?;
    Ok(respond(Bytes::from_owner(ChargedText { text, _charge: charge }).into()))
}

/// An answer of JSON.
pub(super) fn respond(body: Body) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// A text that gives back what it was charged once the last piece of it is gone.
struct ChargedText {
    text: Vec<u8>,
    _charge: Charge,
}

impl AsRef<[u8]> for ChargedText {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}
