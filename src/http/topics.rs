//! `GET /api/v1/topics`: what there is to read, page by page.

use axum::{extract::State, response::Response};
use http::request::Parts;
use serde::Serialize;

use super::{AppState, Caller, Problem, answers, query};
use crate::{cluster::Question, position::Position, time::rfc3339, topic::TopicPattern};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

#[derive(Serialize)]
struct Answer {
    topics: Vec<Entry>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many nodes did not tell their subscribers.
    missing_nodes: usize,
}

#[derive(Serialize)]
struct Entry {
    topic: String,
    events: u64,
    bytes: u64,
    last: Position,
    last_received: String,
    /// Subscriptions that match it, on all nodes that told.
    subscribers: usize,
    /// How long its events are kept, in seconds.
    kept_for: u64,
}

pub(super) async fn topics(
    State(state): State<AppState>,
    Caller(principal): Caller,
    parts: Parts,
) -> Result<Response, Problem> {
    let (mut prefix, mut after, mut limit) = (String::new(), String::new(), DEFAULT_LIMIT);
    for (name, value) in query::pairs(&parts) {
        match &*name {
            "prefix" => prefix = value,
            "after" => after = value,
            "limit" => limit = query::value("limit", &value, "a whole number")?,
            _ => {} // as unknown fields are
        }
    }
    if limit == 0 || limit > MAX_LIMIT {
        return Err(Problem::bad_request(format!("`limit` is from 1 to {MAX_LIMIT}")));
    }
    let mut found = state.broker.topics().await?;
    found.retain(|info| {
        let name = info.topic.as_str();
        name.starts_with(&prefix)
            && name > after.as_str()
            && principal.may_subscribe(&TopicPattern::from(&info.topic))
    });
    found.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let next = found.last().filter(|_| !is_last).map(|info| info.topic.to_string());
    let epoch = state.broker.epoch();
    let asked = Question::Subscribers(found.iter().map(|info| info.topic.clone()).collect());
    let told = state.cluster.ask::<Vec<usize>>(&asked, None).await?;
    let subscribers = |at| told.given.iter().filter_map(|(_, counts)| counts.get(at)).sum();
    let entry = |(at, info): (usize, &crate::broker::TopicInfo)| Entry {
        topic: info.topic.to_string(),
        events: info.events,
        bytes: info.bytes,
        last: Position { epoch, offset: info.last_offset },
        last_received: rfc3339(info.last_received),
        subscribers: subscribers(at),
        kept_for: info.max_age / 1000,
    };
    let topics = found.iter().enumerate().map(entry).collect();
    answers::json(&state, &principal, &Answer { topics, next, missing_nodes: told.missing.len() })
}
