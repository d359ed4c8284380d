//! A request's query as a type: its fields are the parameters there are, and their types say what each may be.

use std::{fmt::Display, str::FromStr};

use axum::extract::{FromRequestParts, Query as Pairs};
use http::request::Parts;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned},
};
use serde_html_form::Deserializer as FormDeserializer;

use super::Problem;
use crate::{json, wording};

/// The query of a request, as an extractor. `T` has `deny_unknown_fields`: a parameter with a typing error is refused
/// by its name, not passed over.
pub(super) struct Query<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(parts).map(Self).map_err(Problem::bad_request)
    }
}

/// The query as a `T`, or what is wrong with it.
pub(super) fn read<T: DeserializeOwned>(parts: &Parts) -> Result<T, String> {
    let query = parts.uri.query().unwrap_or_default();
    let reader = FormDeserializer::from_bytes(query.as_bytes());
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let message = error.inner().to_string();
        if let Some((name, known)) = wording::unknown_field(&message) {
            let known = wording::either(&known);
            return format!("there is no parameter `{name}` here, only {known}");
        }
        if let Some(name) = message.strip_prefix("missing field ") {
            return format!("the parameter {name} is needed");
        }
        // A parameter beside another name of its own.
        if let Some(name) = message.strip_prefix("duplicate field ") {
            return format!("the parameter {name} is given twice");
        }
        // Without the number of the value in a list.
        let name = error.path().iter().next().map(ToString::to_string).unwrap_or_default();
        // The library's word for several values where one is wanted.
        if message == "unsupported value" {
            return format!("the parameter `{name}` is given twice");
        }
        let said = wording::plain(&message);
        if said.starts_with("must ") {
            format!("`{name}` {said}")
        } else {
            format!("`{name}`: {said}")
        }
    })
}

/// The pairs of the query, decoded, in order. None where it cannot be decoded.
pub(super) fn pairs(parts: &Parts) -> Vec<(String, String)> {
    Pairs::try_from_uri(&parts.uri).map(|Pairs(pairs)| pairs).unwrap_or_default()
}

/// A parameter that is on or off.
pub(super) fn boolean(name: &str, text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("`{name}` must be 0, 1, true or false, not {text:?}")),
    }
}

/// A parameter whose type reads its own text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parsed<T>(pub(super) T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// A parameter that has several values, given with commas or more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Several<T>(pub(super) Vec<T>);

impl<T> Default for Several<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Several<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parts = texts.iter().flat_map(|text| text.split(',')).map(str::trim);
        let read = |part: &str| {
            let refuse = |error| de::Error::custom(format!("{part:?}: {error}"));
            part.parse().map_err(refuse)
        };
        parts.filter(|part| !part.is_empty()).map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// How many a page has where nobody says.
pub(super) const DEFAULT_LIMIT: usize = 100;

/// How many a page may have, at most `MOST`; a whole number, which may be written as `50.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageLimit<const MOST: usize = 1000>(usize);

impl<const MOST: usize> PageLimit<MOST> {
    pub(super) const fn get(self) -> usize {
        self.0
    }
}

impl<const MOST: usize> Default for PageLimit<MOST> {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl<'de, const MOST: usize> Deserialize<'de> for PageLimit<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let count: usize = json::read_whole(&text)
            .ok_or_else(|| de::Error::custom(format!("must be a whole number, not {text:?}")))?;
        match count {
            0 if MOST == usize::MAX => Err(de::Error::custom("must be at least 1")),
            1.. if count <= MOST => Ok(Self(count)),
            _ => Err(de::Error::custom(format!("must be from 1 to {MOST}"))),
        }
    }
}
