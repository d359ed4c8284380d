//! `GET /api/v1/series` and `GET /api/v1/series/query`: what numbers there are, and what they were.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    AppState, Caller, Problem, answers,
    paging::{self, PageStart},
    query::{PageLimit, Parsed, Query},
    query_limit,
};
use crate::{
    auth::Principal,
    json,
    series::{Aggregate, Columns, Identity, Kind, Labels, Name, QuerySpec},
    time::{Millis, Span, parse_rfc3339, rfc3339},
    topic::TopicPattern,
};

/// What orders series: name, topic, labels.
type SeriesKey = (Name, String, Labels);

/// Which series are asked for.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListAsked {
    prefix: String,
    topic: Option<Parsed<TopicPattern>>,
    after: Option<PageStart<SeriesKey>>,
    limit: PageLimit,
}

/// Of which series which values are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValuesAsked {
    name: Option<String>,
    #[serde(default)]
    labels: Vec<Matchers>,
    from: Option<Parsed<Since>>,
    to: Option<Parsed<Since>>,
    step: Option<Parsed<Span>>,
    agg: Option<Parsed<Aggregate>>,
}

/// What a question reaches back to that does not say.
const DEFAULT_SPAN: Millis = 3_600_000;

#[derive(Serialize)]
struct SeriesAnswer {
    series: Vec<SeriesEntry>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<PageStart<SeriesKey>>,
    /// How many series the hub has, including those that the caller may not read.
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
    Query(ListAsked { prefix, topic, after, limit }): Query<ListAsked>,
) -> Result<Response, Problem> {
    let permit = state.query_limit.ask(&principal).await?;
    let (all, who) = (state.series.clone(), principal.clone());
    let wanted = move |identity: &Identity| {
        identity.name.as_str().starts_with(&prefix)
            && topic.as_ref().is_none_or(|Parsed(pattern)| pattern.matches(&identity.topic))
            && after.as_ref().is_none_or(|PageStart((name, topic, labels))| {
                identity.order() > (name, topic.as_str(), labels)
            })
            && may_read(&who, &identity.topic)
    };
    let (mut found, _permit) = query_limit::work(permit, move || all.names(wanted)).await?;
    let next = paging::cut(&mut found, limit.get(), |last| {
        let Identity { name, topic, labels, .. } = &*last.identity;
        (name.clone(), topic.to_string(), labels.clone())
    });
    let series = found.into_iter().map(|listed| {
        let identity = Arc::unwrap_or_clone(listed.identity);
        let Identity { topic, name, labels, kind, unit } = identity;
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
    Query(asked): Query<ValuesAsked>,
) -> Result<Response, Problem> {
    let now = state.clock.now();
    let name = asked.name.ok_or_else(|| {
        Problem::bad_request("`name` names the series; GET /api/v1/series lists those there are")
    })?;
    let name = Name::new(&name).map_err(|error| Problem::bad_request(error.to_string()))?;
    let labels = asked.labels.iter().flat_map(|Matchers(pairs)| pairs);
    let labels = Labels::new(labels.map(|(name, value)| (&**name, &**value)))
        .map_err(|error| Problem::bad_request(format!("`labels`: {error}")))?;
    let at = |time: Option<Parsed<Since>>| time.map(|Parsed(time)| time.millis(now));
    let (from, to) = (at(asked.from), at(asked.to));
    let step = asked.step.map(|Parsed(step)| step);
    let agg = asked.agg.map(|Parsed(agg)| agg);
    let to = to.unwrap_or(now);
    let from = from.unwrap_or(to.saturating_sub(DEFAULT_SPAN));
    if from >= to {
        return Err(Problem::bad_request("`from` must lie before `to`"));
    }
    if step.is_some_and(|step| step.millis() == 0) {
        return Err(Problem::bad_request("`step` must be at least 1s"));
    }
    let spec = QuerySpec { name, labels, from, to, step, agg };
    let may = |series: &Identity| may_read(&principal, &series.topic);
    let _permit = state.query_limit.ask(&principal).await?;
    let columns: Columns = state.series.query(&spec, now, &may).await?;
    answers::json(&state, &principal, &columns)
}

/// A series is as open as the topic it comes from.
fn may_read(principal: &Principal, topic: &str) -> bool {
    TopicPattern::parse(topic).is_ok_and(|pattern| principal.may_subscribe(&pattern))
}

/// `a=b,c=d`, or a JSON object for values with commas in them.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Matchers(Vec<(String, String)>);

impl TryFrom<String> for Matchers {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const FORM: &str = "must be key=value,key=value or a JSON object of texts";
        if text.starts_with('{') {
            let object: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|_| FORM)?;
            return Ok(Self(object.into_iter().collect()));
        }
        let pairs = text.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').filter(|(_, value)| !value.is_empty())?;
            Some((name.to_owned(), value.to_owned()))
        });
        pairs.collect::<Option<_>>().map(Self).ok_or(FORM)
    }
}

/// A time, or how long ago it was.
enum Since {
    Ago(Span),
    At(Millis),
}

impl Since {
    fn millis(self, now: Millis) -> Millis {
        match self {
            Self::Ago(ago) => now.saturating_sub(ago.millis()),
            Self::At(time) => time,
        }
    }
}

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ago) = text.parse() {
            return Ok(Self::Ago(ago));
        }
        let millis = text.parse::<f64>().ok().map(|seconds| (seconds * 1000.0).round().to_string());
        let millis = millis.and_then(|millis| json::read_whole(&millis));
        millis.map_or_else(|| parse_rfc3339(text), Ok).map(Self::At).map_err(|_| {
            "must be a time such as 2026-11-20T12:00:00Z, seconds since 1970, or how long ago, such as 5m"
        })
    }
}
