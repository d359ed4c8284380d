//! `GET /api/v1/topics`: what there is to read, page by page.

use std::{collections::BTreeSet, sync::Arc};

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    AppState, Caller, Problem, answers,
    query::{PageLimit, Query},
    query_limit,
};
use crate::{
    auth::Principal,
    broker::{TopicIndex, TopicInfo},
    cluster::NodeQuestion,
    position::Position,
    time::rfc3339,
    topic::{Topic, TopicPattern},
};

/// How many topics are examined for one page. If this ends a page early, the page says where to continue.
const SEARCHED: usize = 20_000;

/// Topics looked at at a time: no longer is the writer kept waiting.
const PIECE: usize = 500;

/// What is asked for.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub(super) struct TopicsQuery {
    prefix: String,
    after: String,
    limit: PageLimit,
}

#[derive(Serialize)]
struct TopicsPage {
    topics: Vec<TopicEntry>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many nodes did not tell their subscribers.
    missing_nodes: usize,
}

#[derive(Serialize)]
struct TopicEntry {
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
    Query(TopicsQuery { prefix, after, limit }): Query<TopicsQuery>,
) -> Result<Response, Problem> {
    let permit = state.query_limit.ask(&principal).await?;
    let index = state.broker.topics().index().await?;
    let looked = Search { index, principal: principal.clone(), limit: limit.get() };
    let ((found, next), permit) =
        query_limit::work(permit, move || looked.run(&prefix, after)).await?;
    let found = state.broker.topics().infos(found).await?;
    // The other nodes are waited for without keeping anybody from asking.
    drop(permit);
    let epoch = state.broker.epochs().newest();
    let asked = NodeQuestion::Subscribers(found.iter().map(|info| info.topic.clone()).collect());
    let told = state.cluster.ask::<Vec<usize>>(&asked, None).await?;
    let subscribers = |at| told.given.iter().filter_map(|(_, counts)| counts.get(at)).sum();
    let entry = |(at, info): (usize, &TopicInfo)| TopicEntry {
        topic: info.topic.to_string(),
        events: info.events,
        bytes: info.bytes,
        last: Position { epoch, offset: info.last_offset },
        last_received: rfc3339(info.last_received),
        subscribers: subscribers(at),
        kept_for: info.max_age / 1000,
    };
    let topics = found.iter().enumerate().map(entry).collect();
    answers::json(
        &state,
        &principal,
        &TopicsPage { topics, next, missing_nodes: told.missing.len() },
    )
}

/// A look for topics that somebody may read.
struct Search {
    index: TopicIndex,
    principal: Arc<Principal>,
    limit: usize,
}

impl Search {
    /// The topics that begin with `prefix` and come after `after`; and if there may be more, where to continue.
    fn run(&self, prefix: &str, mut after: String) -> (Vec<Topic>, Option<String>) {
        let (mut found, mut searched) = (Vec::new(), 0);
        for begin in self.beginnings(prefix) {
            loop {
                let piece = self.index.page(&begin, &after, PIECE);
                let is_last = piece.len() < PIECE;
                for topic in piece {
                    if found.len() == self.limit || searched == SEARCHED {
                        return (found, Some(after));
                    }
                    searched += 1;
                    after = topic.to_string();
                    if self.principal.may_subscribe(&TopicPattern::from(&topic)) {
                        found.push(topic);
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        (found, None)
    }

    /// What the topics begin with that the grants may match, in order and apart from each other.
    fn beginnings(&self, prefix: &str) -> Vec<String> {
        let mut all = BTreeSet::new();
        for pattern in &self.principal.grants.subscribe {
            let begin = pattern.beginning();
            if begin.starts_with(prefix) {
                all.insert(begin.to_owned());
            } else if prefix.starts_with(begin) {
                all.insert(prefix.to_owned());
            }
        }
        let mut apart: Vec<String> = Vec::new();
        for begin in all {
            if !apart.last().is_some_and(|last| begin.starts_with(last.as_str())) {
                apart.push(begin);
            }
        }
        apart
    }
}
