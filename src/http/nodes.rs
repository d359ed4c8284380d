//! For admins of one node or many: the connections of each node, its state, and draining it.

use axum::{Json, body::Body, extract::State, response::Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AppState, Caller, Problem, answers,
    body::{self, Payer},
    paging::PageStart,
    query::{PageLimit, Query},
};
use crate::{
    auth::Principal,
    cluster::{ConnectionPage, NodeQuestion, Standing},
};

/// What stands for every node where one can be named.
const ALL: &str = "all";

/// Connections of one page if the request does not say how many.
const DEFAULT_LIMIT: usize = 1000;

#[derive(Serialize)]
struct Connected {
    connections: Vec<Value>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<PageStart<(Value, Value)>>,
    missing_nodes: usize,
}

/// Which connections are asked for: those of which node, and after which one.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConnectionsAsked {
    after: Option<PageStart<(String, String)>>,
    limit: Option<PageLimit>,
}

/// The connections, and how far each is behind.
pub(super) async fn connections(
    State(state): State<AppState>,
    Caller(principal): Caller,
    Query(ConnectionsAsked { after, limit }): Query<ConnectionsAsked>,
) -> Result<Response, Problem> {
    only_admins(&principal)?;
    let (after, limit) =
        (after.map(|PageStart(key)| key), limit.map_or(DEFAULT_LIMIT, PageLimit::get));
    let _counted = state.query_limit.count(&principal)?;
    let question = NodeQuestion::Connections { after, limit };
    let told = state.cluster.ask::<ConnectionPage>(&question, None).await?;
    let (mut connections, mut is_cut) = (Vec::new(), false);
    for (_, page) in told.given {
        let room = limit - connections.len();
        is_cut = page.is_cut || page.connections.len() > room;
        connections.extend(page.connections.into_iter().take(room));
        if is_cut {
            break; // the connections of other nodes come after the rest of this node's
        }
    }
    let next = connections.last().filter(|_| is_cut);
    let next = next.map(|last| PageStart((last["node"].clone(), last["conn"].clone())));
    let missing_nodes = told.missing.len();
    answers::json(&state, &principal, &Connected { connections, next, missing_nodes })
}

#[derive(Serialize)]
pub(super) struct NodeList {
    nodes: Vec<NodeEntry>,
    missing_nodes: usize,
}

#[derive(Serialize)]
struct NodeEntry {
    node: String,
    /// Nothing more is known of one that did not answer.
    answered: bool,
    #[serde(flatten)]
    standing: Option<Standing>,
}

/// How each node stands.
pub(super) async fn nodes(
    State(state): State<AppState>,
    Caller(principal): Caller,
) -> Result<Json<NodeList>, Problem> {
    only_admins(&principal)?;
    ask(&state, &NodeQuestion::Standing, ALL).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainOrder {
    node: String,
    #[serde(default)]
    stop: bool,
}

/// Sends the clients of one node or of all elsewhere, and ends it then if that is wanted.
pub(super) async fn drain(
    State(state): State<AppState>,
    Caller(principal): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<NodeList>, Problem> {
    only_admins(&principal)?;
    let DrainOrder { node, stop } =
        body::json(&headers, body, &state, Payer::Known(&principal)).await?;
    tracing::info!(user = %principal.name, node, stop, "a drain was asked for");
    ask(&state, &NodeQuestion::Drain { stop }, &node).await
}

/// A node, or `all`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UndrainOrder {
    node: Option<String>,
}

/// Lets one node or all take clients again.
pub(super) async fn undrain(
    State(state): State<AppState>,
    Caller(principal): Caller,
    Query(UndrainOrder { node }): Query<UndrainOrder>,
) -> Result<Json<NodeList>, Problem> {
    only_admins(&principal)?;
    let node =
        node.ok_or_else(|| Problem::bad_request("`node` must be the name of a node, or `all`"))?;
    tracing::info!(user = %principal.name, node, "the end of a drain was asked for");
    ask(&state, &NodeQuestion::Undrain, &node).await
}

async fn ask(
    state: &AppState,
    question: &NodeQuestion,
    node: &str,
) -> Result<Json<NodeList>, Problem> {
    let name = (node != ALL).then_some(node);
    let answers = state.cluster.ask::<Standing>(question, name).await?;
    let missing_nodes = answers.missing.len();
    let entry = |(node, standing)| NodeEntry { node, answered: true, standing: Some(standing) };
    let silent = |node| NodeEntry { node, answered: false, standing: None };
    let nodes: Vec<NodeEntry> = answers
        .given
        .into_iter()
        .map(entry)
        .chain(answers.missing.into_iter().map(silent))
        .collect();
    if nodes.is_empty() {
        return Err(Problem::no_node(node));
    }
    Ok(Json(NodeList { nodes, missing_nodes }))
}

fn only_admins(principal: &Principal) -> Result<(), Problem> {
    if principal.admin { Ok(()) } else { Err(Problem::forbidden(&["admin".to_owned()])) }
}
