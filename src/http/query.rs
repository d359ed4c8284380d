//! A request's query, read pair by pair; which names are known is each endpoint's own affair.

use std::str::FromStr;

use http::request::Parts;

use super::Problem;

/// The pairs of the query, decoded, in order.
pub(super) fn pairs(parts: &Parts) -> impl Iterator<Item = (String, String)> {
    let query = parts.uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).into_owned()
}

/// The value of the parameter `name`; `expected` says what it looks like.
pub(super) fn value<T: FromStr>(name: &str, text: &str, expected: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::bad_request(format!("`{name}` is {expected}")))
}
