//! The paths of projections, which come from the configuration.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{HeaderMap, Method, Uri, request::Parts};
use serde::Deserialize;

use super::{
    AppState, Caller, Problem, answers, credentials, page,
    query::{self, Parsed},
    websocket,
};
use crate::{
    dialect::Form,
    event::AppName,
    hub::{Start, Subscription},
    projections::{Asked, Days, Hours, Path, Projection, ProjectionError, Projections, RowLimit},
    protocol::Mode,
    topic::{TopicFilter, TopicPattern},
    wording,
};

/// A route for the path of each projection.
pub(super) fn paths(projections: &Projections) -> Router<AppState> {
    let mut router = Router::new();
    for (number, projection) in projections.all().iter().enumerate() {
        let Some(path) = &projection.path else { continue };
        let show = move |State(state): State<AppState>, caller: Caller, parts: Parts| async move {
            show(&state, number, &caller, &parts).await
        };
        router = router.route(path.as_str(), get(show));
    }
    router
}

/// A route for the socket of each projection.
pub(super) fn sockets(projections: &Projections) -> Router<AppState> {
    let mut router = Router::new();
    for projection in projections.all() {
        let Some(path) = &projection.socket else { continue };
        let subscription = follow(projection);
        let open = move |State(state): State<AppState>, request: Request| {
            websocket::upgrade_to(state, request, Some(subscription.clone()))
        };
        router = router.route(path.as_str(), get(open));
    }
    router
}

/// What a projection is now; `hours=` or `days=` asks its charts for another span, `limit=` its lists for other rows, and
/// a list's own filters for some of them.
async fn show(
    state: &AppState,
    number: usize,
    Caller(principal): &Caller,
    parts: &Parts,
) -> Result<Response, Problem> {
    let projection = state.projections.all().get(number).ok_or_else(Problem::not_found)?;
    let pattern = TopicPattern::from(&projection.topic);
    credentials::check_readable(principal, &[pattern])?;
    let asked = asked(projection, parts).map_err(Problem::bad_request)?;
    let shown = state.projections.now(projection, asked).await.map_err(|error| {
        // The other errors are temporary, and the publisher logs them once. Logged here, each request would repeat them.
        if matches!(error, ProjectionError::Series(_)) {
            tracing::error!(%error, topic = %projection.topic, "a projection cannot be made");
            return Problem::unavailable("what this is made of cannot be read at present");
        }
        Problem::unavailable(error.to_string())
    })?;
    let mut answer = answers::json(state, principal, &shown.value)?;
    if let Some(failure) = shown.failure {
        *answer.status_mut() = failure;
    }
    Ok(answer)
}

/// What may be asked of every projection, and what of this one.
#[derive(Deserialize)]
struct ProjectionQuery {
    hours: Option<Parsed<Hours>>,
    days: Option<Parsed<Days>>,
    limit: Option<Parsed<RowLimit>>,
    #[serde(flatten)]
    filters: BTreeMap<String, FilterValue>,
}

/// What one parameter says, and what the same says again.
#[derive(Deserialize)]
#[serde(untagged)]
enum FilterValue {
    One(String),
    Several(Vec<String>),
}

fn asked(projection: &Projection, parts: &Parts) -> Result<Asked, String> {
    let ProjectionQuery { hours, days, limit, filters } = query::read(parts)?;
    let known = projection.filters();
    if let Some(name) = filters.keys().find(|name| !known.contains(name.as_str())) {
        let known: Vec<_> = ["hours", "days", "limit"].into_iter().chain(known).collect();
        let known = wording::either(&known);
        return Err(format!("there is no parameter `{name}` here, only {known}"));
    }
    let hours = match (hours, days) {
        (Some(_), Some(_)) => return Err("give `hours` or `days`, not both".to_owned()),
        (hours, days) => hours.map(|it| it.0).or(days.map(|it| it.0.0)),
    };
    let values = |value| match value {
        FilterValue::One(text) => vec![text],
        FilterValue::Several(texts) => texts,
    };
    // A form sends a field that was left empty as well.
    let filters = filters.into_iter().map(|(name, value)| {
        let all = values(value);
        let texts = all.iter().flat_map(|text| text.split(',')).map(str::trim);
        (name, texts.filter(|text| !text.is_empty()).map(str::to_owned).collect::<Vec<_>>())
    });
    let filters = filters.filter(|(_, texts)| !texts.is_empty()).collect();
    Ok(Asked { hours, rows: limit.map(|it| it.0), filters })
}

/// What no route answers: the page, where it has such a screen, or a refusal.
pub(super) async fn fallback(
    State(state): State<AppState>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let is_above = |path: &&str| {
        uri.path().strip_prefix(path.trim_end_matches('/')).is_some_and(|it| it.starts_with('/'))
    };
    let paths = state.projections.all().iter().filter_map(|projection| projection.path.as_ref());
    match paths.map(Path::as_str).find(is_above) {
        Some(path) => Problem::below_projection(path).into_response(),
        None => page::fallback(method, uri, headers).await,
    }
}

/// The newest at once, then each change.
fn follow(projection: &Projection) -> Subscription {
    Subscription {
        form: Form::Data,
        filter: TopicFilter::new([TopicPattern::from(&projection.topic)]),
        mode: Mode::All,
        max_hz: None,
        start: Start::Latest,
        owner: None,
    }
}

/// The paths that are the hub's own; `**` is any rest, also an empty one.
const OWN: [&str; 13] = [
    "",
    "assets/**",
    "favicon.svg",
    "api/v1/**",
    "api/v2/**",
    "v1/**",
    "prometheus/**",
    "ws/**",
    "sse/**",
    "healthz",
    "readyz/**",
    "metrics/**",
    "write",
];

/// Whose a path is, if it is not free for a projection.
pub fn owner(path: &str) -> Option<String> {
    let path = path.trim_matches('/');
    let is_own = |own: &str| match own.strip_suffix("/**") {
        Some(above) => {
            path == above || path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
        }
        None => path == own,
    };
    if OWN.into_iter().any(is_own) {
        return Some("a path of the hub's own".to_owned());
    }
    // A route of ours there would hide the one the application posts to.
    let words: Vec<_> = path.split('/').collect();
    match words[..] {
        ["api", app, "metrics" | "events"] if AppName::parse(app).is_ok() => {
            Some(format!("where an application called {app} posts"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_hub_has_an_owner() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = vec![folder.join("http.rs")];
        files.extend(
            std::fs::read_dir(folder.join("http")).unwrap().map(|file| file.unwrap().path()),
        );
        let mut routes = 0;
        for file in files.iter().filter(|file| file.is_file()) {
            let text = std::fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for rest in code.split(".route(").skip(1) {
                let Some(path) = rest.trim_start().strip_prefix('"') else { continue };
                let path = path.split('"').next().unwrap();
                let path = path.replace("{*", "").replace(['{', '}'], "");
                assert!(
                    owner(&path).is_some(),
                    "{path}, a route in {}, can be taken",
                    file.display()
                );
                routes += 1;
            }
        }
        assert!(routes >= 13, "only {routes} routes were found");
    }

    #[test]
    fn what_is_free_has_no_owner() {
        for path in ["/api/dashboard/metrics", "/api/stats/", "/api/shop/summary", "/metricsx"] {
            assert_eq!(owner(path), None, "{path}");
        }
        assert!(owner("/api/shop/metrics").unwrap().contains("shop"));
        assert!(owner("/metrics/").is_some() && owner("/v1/x").is_some());
    }
}
