//! Answers that may be large: what they hold in memory is charged to who asked, until they have been taken.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, header};
use http_body::{Frame, SizeHint};
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
    Ok(respond(Body::new(Charged { body: Body::from(text), _charge: charge })))
}

/// An answer of JSON.
pub(super) fn respond(body: Body) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// A body that gives back what it was charged once it is gone.
struct Charged {
    body: Body,
    _charge: Charge,
}

impl http_body::Body for Charged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
