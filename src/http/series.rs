//! `GET /api/v1/series` and `GET /api/v1/series/query`: what numbers there are, and what they were.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use http::request::Parts;
use serde::Serialize;

use super::{AppState, Caller, Problem, answers, query, questions};
use crate::{
    auth::Principal,
    json,
    series::{Agg, Columns, Identity, Kind, Labels, Name, QuerySpec},
    time::{Millis, Span, parse_rfc3339, rfc3339},
    topic::TopicPattern,
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// What a question reaches back to that does not say.
const DEFAULT_SPAN: Millis = 3_600_000;

#[derive(Serialize)]
struct SeriesAnswer {
    series: Vec<SeriesEntry>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many series the hub has, whoever may read them.
    count: usize,
    max: usize,
    /// Samples this node left out since it started, by reason.
    dropped: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct SeriesEntry {
    name: Name,
    topic: String,
    #[serde(serialize_with = "crate::series::as_object")]
    labels: Labels,
    #[serde(rename = "type")]
    kind: Kind,
    unit: Option<Box<str>>,
    newest: NewestSample,
}

#[derive(Serialize)]
struct NewestSample {
    time: String,
    value: f64,
}

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(principal): Caller,
    parts: Parts,
) -> Result<Response, Problem> {
    let asking = state.questions.ask(&principal).await?;
    let (mut prefix, mut topic, mut after) = (String::new(), None, None);
    let mut limit = DEFAULT_LIMIT;
    for (name, value) in query::pairs(&parts) {
        match &*name {
            "prefix" => prefix = value,
            "topic" => topic = Some(query::value::<TopicPattern>("topic", &value, "a pattern")?),
            "after" => after = Some(cursor(&value)?),
            "limit" => limit = query::whole("limit", &value)?,
            _ => {} // as unknown fields are
        }
    }
    if limit == 0 || limit > MAX_LIMIT {
        return Err(Problem::bad_request(format!("`limit` is from 1 to {MAX_LIMIT}")));
    }
    let (all, who) = (state.series.clone(), principal.clone());
    let wanted = move |identity: &Identity| {
        identity.name.as_str().starts_with(&prefix)
            && topic.as_ref().is_none_or(|pattern| pattern.matches(&identity.topic))
            && after.as_ref().is_none_or(|(name, topic, labels)| {
                identity.order() > (name, topic.as_str(), labels)
            })
            && may_read(&who, &identity.topic)
    };
    let (mut found, _asking) = questions::work(asking, move || all.names(wanted)).await?;
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let next = found.last().filter(|_| !is_last).map(|last| {
        // Texts and lists of texts can always be written.
        serde_json::to_string(&last.identity.order()).unwrap_or_default()
    });
    let series = found.into_iter().map(|listed| {
        let Identity { topic, name, labels, kind, unit } = listed.identity;
        let newest = NewestSample { time: rfc3339(listed.newest.time), value: listed.newest.value };
        SeriesEntry { name, topic: topic.to_string(), labels, kind, unit, newest }
    });
    let (count, max) = state.series.room();
    let dropped = state.series.dropped();
    let answer = SeriesAnswer { series: series.collect(), next, count, max, dropped };
    answers::json(&state, &principal, &answer)
}

pub(super) async fn query(
    State(state): State<AppState>,
    Caller(principal): Caller,
    parts: Parts,
) -> Result<Response, Problem> {
    let now = state.clock.now();
    let (mut name, mut labels) = (None, Vec::new());
    let (mut from, mut to, mut step, mut agg) = (None, None, None, None);
    for (parameter, value) in query::pairs(&parts) {
        match &*parameter {
            "name" => name = Some(value),
            "labels" => labels.append(&mut matchers(&value)?),
            "from" => from = Some(moment("from", &value, now)?),
            "to" => to = Some(moment("to", &value, now)?),
            "step" => step = Some(query::value::<Span>("step", &value, "a duration such as 30s")?),
            "agg" => {
                agg = Some(value.parse::<Agg>().map_err(|error| {
                    Problem::bad_request(format!("`agg` {error}, not {value:?}"))
                })?);
            }
            _ => {} // as unknown fields are
        }
    }
    let name = name.ok_or_else(|| {
        Problem::bad_request("`name` names the series; GET /api/v1/series lists those there are")
    })?;
    let name = Name::new(&name).map_err(|error| Problem::bad_request(error.to_string()))?;
    let labels = Labels::new(labels.iter().map(|(name, value)| (&**name, &**value)))
        .map_err(|error| Problem::bad_request(format!("`labels`: {error}")))?;
    let to = to.unwrap_or(now);
    let from = from.unwrap_or(to.saturating_sub(DEFAULT_SPAN));
    if from >= to {
        return Err(Problem::bad_request("`from` lies before `to`"));
    }
    if step.is_some_and(|step| step.millis() == 0) {
        return Err(Problem::bad_request("`step` is at least 1s"));
    }
    let spec = QuerySpec { name, labels, from, to, step, agg };
    let may = |series: &Identity| may_read(&principal, &series.topic);
    let _asking = state.questions.ask(&principal).await?;
    let columns: Columns = state.series.query(&spec, now, &may).await?;
    answers::json(&state, &principal, &columns)
}

/// A series is as open as the topic it comes from.
fn may_read(principal: &Principal, topic: &str) -> bool {
    TopicPattern::parse(topic).is_ok_and(|pattern| principal.may_subscribe(&pattern))
}

fn cursor(text: &str) -> Result<(Name, String, Labels), Problem> {
    let expected = "`after` is what `next` was on the page before";
    serde_json::from_str(text).map_err(|_| Problem::bad_request(expected))
}

/// `a=b,c=d`, or a JSON object for values with commas in them.
fn matchers(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let refuse = || {
        let detail = "`labels` is key=value,key=value or a JSON object of texts";
        Problem::bad_request(detail)
    };
    if text.starts_with('{') {
        let object: BTreeMap<String, String> = serde_json::from_str(text).map_err(|_| refuse())?;
        return Ok(object.into_iter().collect());
    }
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(refuse)?;
            if value.is_empty() {
                return Err(refuse());
            }
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// RFC 3339, seconds since 1970, or how long ago.
fn moment(name: &str, text: &str, now: Millis) -> Result<Millis, Problem> {
    if let Ok(ago) = text.parse::<Span>() {
        return Ok(now.saturating_sub(ago.millis()));
    }
    let millis = text.parse::<f64>().ok().map(|seconds| (seconds * 1000.0).round().to_string());
    let millis = millis.and_then(|millis| json::read_whole(&millis));
    millis.map_or_else(|| parse_rfc3339(text), Ok).map_err(|_| {
        Problem::bad_request(format!(
            "`{name}` is a time such as 2026-11-20T12:00:00Z, seconds since 1970, or how long ago, such as 5m"
        ))
    })
}
