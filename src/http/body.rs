//! Request bodies, read whole: bounded in size after decompression, and in time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::{AppState, Problem};
use crate::telemetry::Limit;

/// The whole body.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    state: &AppState,
) -> Result<Bytes, Problem> {
    // What is known was decompressed on the way here, and the header went with that.
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Problem::encoding());
    }
    let limit = state.settings.limits.body.0;
    let patience = state.settings.http.body_timeout.0;
    let over = |hit, allowed| {
        state.telemetry.hit(hit);
        Problem::over_limit(hit, allowed)
    };
    match tokio::time::timeout(patience, gather(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(BodyError::TooLarge)) => Err(over(Limit::Body, limit)),
        Ok(Err(BodyError::Broken(detail))) => Err(Problem::bad_body(detail)),
        Err(_) => Err(over(Limit::BodyTimeout, millis(patience))),
    }
}

/// A small JSON body of a type of our own.
pub(super) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    state: &AppState,
) -> Result<T, Problem> {
    if content_type(headers).as_deref() != Some("application/json") {
        return Err(Problem::content_type("application/json"));
    }
    let bytes = read(headers, body, state).await?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::invalid_json(&error))
}

/// Bodies above this are read on a thread of their own: reading them here would hold up the
/// sockets that share the thread.
const LARGE: usize = 128 * 1024;

/// What `read` makes of a body.
pub(super) async fn parse<T: Send + 'static>(
    body: Bytes,
    read: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Result<T, Problem> {
    if body.len() <= LARGE {
        return Ok(read(&body));
    }
    tokio::task::spawn_blocking(move || read(&body))
        .await
        .map_err(|_| Problem::unavailable("the hub is shutting down"))
}

/// Whether the body says that it is JSON, says nothing, or says what `curl -d` says of everything
/// unless it is told otherwise.
pub(super) fn may_be_json(headers: &HeaderMap) -> bool {
    let json =
        |kind: &str| matches!(kind, "application/json" | "application/x-www-form-urlencoded");
    content_type(headers).is_none_or(|kind| json(&kind))
}

/// The media type without its parameters, in lower case.
pub(super) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

enum BodyError {
    TooLarge,
    Broken(String),
}

async fn gather(mut body: Body, limit: u64) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit {
        return Err(BodyError::TooLarge);
    }
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue }; // trailers say nothing here
        if (gathered.len() + data.len()) as u64 > limit {
            return Err(BodyError::TooLarge);
        }
        if gathered.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        gathered.extend_from_slice(&data);
    }
    Ok(gathered.freeze())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
