//! For those who run the hub: `/healthz`, `/readyz`, `/metrics`.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde::Serialize;

use super::{AppState, Caller, Problem, accept::quality};
use crate::topic::TopicPattern;

/// The process runs and answers; nothing else is asked.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

#[derive(Serialize)]
struct Ready<'a> {
    accepting: bool,
    publishing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What weakens the hub's promises.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'a str>,
}

/// Whether new connections are welcome, for load balancers. Subscribers are served even while
/// nothing can be published.
pub(super) async fn ready(State(state): State<AppState>) -> Response {
    readiness(&state, |ready| ready.accepting)
}

/// Whether an event published now would be stored and delivered, for alerts.
pub(super) async fn ready_publishing(State(state): State<AppState>) -> Response {
    readiness(&state, |ready| ready.publishing)
}

const CLOCK_IN_DOUBT: &str = "the clock jumped, or is far from the newest event of the log: nothing is \
    removed by its age until it has been steady for 10 min. Run a time service";

const CLOCKS_APART: &str = "the clocks of Redis and of this node disagree by more than a minute: this node removes \
    nothing by its age. Check both";

fn readiness(state: &AppState, is_ready: impl Fn(&Ready<'_>) -> bool) -> Response {
    let now = state.readiness.state(state.clock.elapsed());
    let log = state.broker.health();
    let lasting = log.warnings.iter().chain(&state.settings.warnings);
    let doubt = (!state.clock.is_settled()).then_some(CLOCK_IN_DOUBT);
    let apart = log.is_apart.then_some(CLOCKS_APART);
    let ready = Ready {
        accepting: now.accepting,
        publishing: now.publishing,
        reason: now.reason,
        warnings: lasting.map(String::as_str).chain(doubt).chain(apart).collect(),
    };
    let status = if is_ready(&ready) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

/// OpenMetrics 1.0, or the text format of Prometheus if `Accept` prefers that. It needs no credentials where the settings or a
/// loopback address allow it.
pub(super) async fn metrics(
    State(state): State<AppState>,
    mut parts: Parts,
) -> Result<Response, Problem> {
    let settings = &state.settings;
    if !settings.http.public_metrics && !settings.is_loopback {
        let Caller(principal) = Caller::from_request_parts(&mut parts, &state).await?;
        let may_read = TopicPattern::parse("hub.metrics")
            .is_ok_and(|pattern| principal.may_subscribe(&pattern));
        if !principal.admin && !may_read {
            return Err(Problem::forbidden(&["subscribe hub.metrics".to_owned()]));
        }
    }
    let takes_text = quality(&parts.headers, "text/plain");
    let (text, content_type) =
        if takes_text > quality(&parts.headers, "application/openmetrics-text") {
            (state.telemetry.prometheus_text(), PROMETHEUS_TEXT)
        } else {
            (state.telemetry.openmetrics(), OPENMETRICS)
        };
    let text = text.map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Problem::unavailable("the metrics cannot be written")
    })?;
    let vary = HeaderValue::from_static("accept");
    let content_type = HeaderValue::from_static(content_type);
    Ok(([(header::CONTENT_TYPE, content_type), (header::VARY, vary)], text).into_response())
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
