//! Request bodies, read whole: bounded in size before and after decoding, in time, and all of them together in memory.

use std::{net::IpAddr, time::Duration};

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use http::HeaderMap;
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::task::consume_budget;

use super::{
    AppState, Problem,
    attempts::network,
    budget::Charge,
    coding::{Coding, CodingError},
    media,
};
use crate::{
    auth::Principal,
    json::{self, Object},
    telemetry::Limit,
};

/// Who a body is charged to.
pub(super) enum Payer<'a> {
    /// A caller whose credentials are known.
    Known(&'a Principal),
    /// Who signs in, by address.
    Stranger(Option<IpAddr>),
}

/// The whole body, decoded, and what it holds of the budget: to be kept for as long as anything made of it is.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    state: &AppState,
    principal: &Principal,
) -> Result<(Bytes, Charge), Problem> {
    take(headers, body, state, Payer::Known(principal), Limit::Body).await
}

/// A body where little is needed, at most `limits.small_body`.
pub(super) async fn read_small(
    headers: &HeaderMap,
    body: Body,
    state: &AppState,
    payer: Payer<'_>,
) -> Result<(Bytes, Charge), Problem> {
    take(headers, body, state, payer, Limit::SmallBody).await
}

/// A small JSON body of a type of our own.
pub(super) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    state: &AppState,
    payer: Payer<'_>,
) -> Result<T, Problem> {
    if media::content_type(headers).as_deref() != Some("application/json") {
        return Err(Problem::content_type("send JSON as `Content-Type: application/json`"));
    }
    let (bytes, _charge) = read_small(headers, body, state, payer).await?;
    let read = json::read("the body", &bytes).map_err(|error| Problem::invalid_json(&error));
    read.map(|Object(read)| read)
}

async fn take(
    headers: &HeaderMap,
    body: Body,
    state: &AppState,
    payer: Payer<'_>,
    limit: Limit,
) -> Result<(Bytes, Charge), Problem> {
    let coding = Coding::of(headers).map_err(|_| Problem::encoding())?;
    let over = |hit, allowed| {
        state.telemetry.hit(hit);
        Problem::over_limit(hit, allowed)
    };
    let allowed = match limit {
        Limit::SmallBody => state.settings.limits.small_body.0,
        _ => state.settings.limits.body.0,
    };
    let mut charge = match payer {
        Payer::Known(principal) => state.budgets.bodies.begin(principal.identity().clone()),
        Payer::Stranger(address) => {
            let address = address.map(|address| network(address).to_string()).unwrap_or_default();
            state.budgets.stranger_bodies.begin(address.into())
        }
    };
    let refuse = |error| match error {
        BodyError::TooLarge => over(limit, allowed),
        BodyError::Broken(detail) => Problem::bad_body(detail),
        BodyError::NoRoom(problem) => problem,
    };
    let patience = state.settings.http.body_timeout.0;
    let bytes = tokio::time::timeout(patience, collect(body, allowed, &mut charge))
        .await
        .map_err(|_| over(Limit::BodyTimeout, millis(patience)))?
        .map_err(refuse)?;
    let Some(coding) = coding else { return Ok((bytes, charge)) };
    let decode = move |bytes: &[u8]| {
        let decoded = coding.decode(bytes, allowed, |more| charge.grow(more));
        decoded.map(|decoded| decoded.map(|plain| (plain, charge)))
    };
    match parse_above(CODED_LARGE, bytes, decode).await? {
        Ok(decoded) => decoded.map(|(plain, charge)| (plain.into(), charge)),
        Err(CodingError::TooLarge) => Err(refuse(BodyError::TooLarge)),
        Err(CodingError::Broken) => {
            let name = coding.name();
            Err(Problem::bad_body(format!(
                "the body is not whole in {name}, as `Content-Encoding` says it is: compress all of it, or leave \
                 the header out"
            )))
        }
    }
}

/// Coded bodies above this are decoded on a thread of their own: a few kilobytes may become many megabytes.
const CODED_LARGE: usize = 4 * 1024;

/// Bodies above this are read on a thread of their own: reading them here would hold up the
/// sockets that share the thread.
const LARGE: usize = 128 * 1024;

/// What `read` makes of a body.
pub(super) async fn parse<T: Send + 'static>(
    body: Bytes,
    read: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Result<T, Problem> {
    parse_above(LARGE, body, read).await
}

async fn parse_above<T: Send + 'static>(
    large: usize,
    body: Bytes,
    read: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Result<T, Problem> {
    if body.len() <= large {
        return Ok(read(&body));
    }
    tokio::task::spawn_blocking(move || read(&body))
        .await
        .map_err(|_| Problem::unavailable("the hub is shutting down"))
}

enum BodyError {
    TooLarge,
    Broken(String),
    NoRoom(Problem),
}

/// Charged as it arrives, not by the length that a header announces.
async fn collect(mut body: Body, limit: u64, charge: &mut Charge) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit {
        return Err(BodyError::TooLarge);
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // HTTP/2 hands out frames of one byte, or of none, for as long as there are any.
        consume_budget().await;
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue }; // trailers say nothing here
        if (collected.len() + data.len()) as u64 > limit {
            return Err(BodyError::TooLarge);
        }
        charge.grow(data.len()).map_err(BodyError::NoRoom)?;
        if collected.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
