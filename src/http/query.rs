//! A request's query, read pair by pair; which names are known is each endpoint's own affair.

use std::str::FromStr;

use axum::extract::Query;
use http::request::Parts;

use super::Problem;
use crate::json;

/// The pairs of the query, decoded, in order. None where it cannot be decoded.
pub(super) fn pairs(parts: &Parts) -> Vec<(String, String)> {
    Query::try_from_uri(&parts.uri).map(|Query(pairs)| pairs).unwrap_or_default()
}

/// The value of the parameter `name`; `expected` says what it looks like.
pub(super) fn value<T: FromStr>(name: &str, text: &str, expected: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::bad_request(format!("`{name}` is {expected}")))
}

/// The value of the parameter `name`, a whole number, which may be written as `50.0`.
pub(super) fn whole<T: FromStr + TryFrom<i64>>(name: &str, text: &str) -> Result<T, Problem> {
    let refuse = || Problem::bad_request(format!("`{name}` is a whole number, not {text:?}"));
    json::read_whole(text).ok_or_else(refuse)
}

/// The value of the parameter `name`, which is on or off.
pub(super) fn boolean(name: &str, text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("`{name}` is 0, 1, true or false, not {text:?}")),
    }
}
