//! The HTTP side: one route table, and what every request passes on its way to it.

mod accept;
mod answering;
mod answers;
mod attempts;
mod body;
mod budget;
mod coding;
mod compat;
mod config;
mod connection_slots;
mod conversation;
pub mod credentials;
mod error;
mod forwarded;
mod handshake;
mod history;
mod host;
mod inbox;
mod instances;
mod linger;
mod media;
mod no_room;
mod nodes;
pub mod openapi;
mod operations;
mod outbox;
mod page;
mod paging;
mod pending;
mod projections;
mod proxy_protocol;
mod publish;
mod pulse;
mod query;
mod query_limit;
mod remote_write;
mod series;
pub mod server;
mod sessions;
mod socket;
mod sse;
mod stall;
mod tickets;
mod topics;
mod unread_body;
mod websocket;

use std::{convert::Infallible, sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts as _, Request},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use http::{HeaderName, HeaderValue, Method, Version, header};
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    cors::{AllowOrigin, CorsLayer},
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
    set_header::SetResponseHeaderLayer,
    trace::{DefaultOnResponse, TraceLayer},
};

use self::compat::timetracker;
pub use self::{
    attempts::Attempts,
    budget::Budgets,
    config::{HttpConfig, Origin},
    credentials::{Caller, CredentialsError},
    error::Problem,
    forwarded::{Network, NetworkError},
    projections::owner,
    query_limit::QueryLimit,
};
use crate::{
    access::Access,
    admission::{Admitted, Claim},
    auth::Principal,
    broker::Broker,
    cluster::Cluster,
    event::Event,
    hub::Hub,
    ingest::{IngestConfig, Refusal},
    instances::Instances,
    limits::Limits,
    projections::Projections,
    series::Series,
    session::{Now, Terms},
    telemetry::{Limit, Telemetry},
    time::Clock,
    vitals::Readiness,
};

/// What the endpoints work with; one for all of them.
pub type AppState = Arc<Services>;

/// What the endpoints work with.
pub struct Services {
    /// Where events go.
    pub broker: Broker,
    /// The numbers in them.
    pub series: Series,
    /// Where events come from.
    pub hub: Hub,
    /// Checks credentials.
    pub access: Access,
    /// Who publishes.
    pub instances: Instances,
    /// What is counted.
    pub telemetry: Telemetry,
    /// What time it is.
    pub clock: Clock,
    /// Whether the hub works.
    pub readiness: Readiness,
    /// What is asked that costs.
    pub query_limit: QueryLimit,
    /// Who signs in wrongly.
    pub attempts: Attempts,
    /// What requests and answers hold in memory.
    pub budgets: Budgets,
    /// What can be set.
    pub settings: HttpSettings,
    /// What all sockets go by.
    pub terms: Arc<Terms>,
    /// JSON made of events.
    pub projections: Projections,
    /// All nodes.
    pub cluster: Cluster,
    /// Owns the tasks of sockets.
    pub tasks: TaskTracker,
}

/// The settings the endpoints go by.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// `[http]`
    pub http: HttpConfig,
    /// `[limits]`
    pub limits: Limits,
    /// `[ingest]`
    pub ingest: IngestConfig,
    /// Whether sockets take `?token=`: `auth.query_token`.
    pub query_token: bool,
    /// Wrong sign-ins a minute from one address: `auth.wrong_sign_ins`.
    pub wrong_sign_ins: u32,
    /// What weakens the hub, a sentence each.
    pub warnings: Vec<String>,
    /// Whether only this machine can reach the hub.
    pub is_loopback: bool,
    /// Whether its events are synthetic: see [`demo`](crate::demo).
    pub is_demo: bool,
}

impl Services {
    /// The moment it is, for sessions.
    fn now(&self) -> Now {
        Now {
            instant: Instant::now(),
            wall: self.clock.now(),
            head: self.hub.head(),
            stale: self.broker.health().is_stale,
        }
    }

    /// The events, if they may be published; a limit that was hit is counted.
    fn admit(
        &self,
        principal: &Principal,
        claim: Option<&Claim<'_>>,
        events: Vec<Event>,
    ) -> Result<Admitted, Problem> {
        self.terms.admission.admit(principal, claim, events).map_err(|refused| {
            refused.limit().into_iter().for_each(|limit| self.telemetry.hit(limit));
            refused.into()
        })
    }

    /// Why a body is refused; a limit that was hit is counted.
    fn refuse(&self, refusal: Refusal) -> Problem {
        refusal.limit().into_iter().for_each(|limit| self.telemetry.hit(limit));
        refusal.into()
    }
}

/// Every path there is, and what every request passes on its way there. The layers surround the routes as a whole: each
/// request copies them once, where axum's own `layer` copies them at every step inward.
pub fn endpoints(
    state: AppState,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Sync {
    let telemetry = state.telemetry.clone();
    let cors = cors(&state.settings.http);
    ServiceBuilder::new()
        .map_response(|response: http::Response<_>| response.map(Body::new))
        .map_request(drop_odd_request_id)
        .layer(SetRequestIdLayer::new(REQUEST_ID, NewRequestId))
        .layer(SetSensitiveRequestHeadersLayer::new(SECRET_HEADERS))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_response(DefaultOnResponse::new())
                // A refusal is an answer; failures are logged where they happen.
                .on_failure(()),
        )
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .map_response(move |response| error::count(response, &telemetry))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ))
        .layer(SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        ))
        .layer(cors)
        .layer(CatchPanicLayer::custom(error::panicked))
        .service(routes(state))
}

fn routes(state: AppState) -> Router {
    let compressed = Router::new()
        .route("/api/v1/history", get(history::history))
        .route("/api/v1/topics", get(topics::topics))
        .route("/api/v1/instances", get(instances::list))
        .route("/api/v1/series", get(series::list))
        .route("/api/v1/series/query", get(series::query))
        .route("/api/v1/connections", get(nodes::connections))
        .route("/api/v1/openapi.json", get(openapi::document_of_hub))
        .route("/api/v1/docs", get(openapi::page))
        .route("/metrics", get(operations::metrics))
        .merge(projections::paths(&state.projections))
        .layer(CompressionLayer::new());
    Router::new()
        .route("/api/v1/publish", post(publish::publish))
        .route("/api/v1/write", post(remote_write::write))
        .route("/prometheus/api/v1/write", post(remote_write::write))
        .route("/api/{app}/metrics", post(compat::metrics))
        .route("/api/{app}/events", post(compat::events))
        .route("/api/v1/register", post(timetracker::register))
        .route("/api/v1/validate", post(timetracker::validate))
        .route("/api/v1/heartbeat", post(timetracker::heartbeat))
        .route("/api/v1/data", post(timetracker::data))
        .route("/api/v1/status", get(timetracker::status))
        .route("/api/v1/instances/{app}/{id}", delete(instances::forget))
        .route("/api/v1/instances/{app}/{id}/key", post(instances::rotate_key))
        .route("/api/v1/tickets", post(tickets::issue).delete(tickets::take_back))
        .route("/api/v1/session", get(sessions::whoami).post(sessions::begin).delete(sessions::end))
        .route("/api/v1/nodes", get(nodes::nodes))
        .route("/api/v1/drain", post(nodes::drain).delete(nodes::undrain))
        .route("/", get(page::index))
        .route("/assets/{*path}", get(page::asset))
        .route("/favicon.svg", get(page::asset))
        .route("/ws/real-time", get(websocket::upgrade))
        .route("/sse/real-time", get(sse::stream))
        .route("/healthz", get(operations::health))
        .route("/readyz", get(operations::ready))
        .route("/readyz/publishing", get(operations::ready_publishing))
        .merge(projections::sockets(&state.projections))
        .merge(compressed)
        .fallback(projections::fallback)
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .with_state(state)
}

/// The endpoints as a listener serves them: what it asks of a request's `Host` and of its connection comes before
/// everything.
pub fn front(state: AppState) -> server::Answers {
    let endpoints = Arc::new(endpoints(state.clone()));
    server::Answers::new(service_fn(move |request: Request| {
        let (state, endpoints) = (state.clone(), endpoints.clone());
        async move {
            if let Err(refused) = host::check(&request, &state) {
                state.telemetry.refused(refused.code());
                return Ok(refused.into_response());
            }
            match keep_reserve(request, &state).await {
                Ok(request) => (*endpoints).clone().oneshot(request).await,
                Err(refused) => Ok(refused),
            }
        }
    }))
}

/// Over a reserved connection come only probes of health, and admins.
async fn keep_reserve(request: Request, state: &AppState) -> Result<Request, Response> {
    let from = request.extensions().get::<server::ClientConnection>();
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz" | "/readyz/publishing");
    if is_probe || !from.is_some_and(|from| from.slot.is_reserved()) {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    match Caller::from_request_parts(&mut parts, state).await {
        Ok(Caller(principal)) if principal.admin => Ok(Request::from_parts(parts, body)),
        _ => {
            state.telemetry.hit(Limit::Connections);
            let problem = Problem::no_room();
            state.telemetry.refused(problem.code());
            let mut response = problem.into_response();
            if parts.version != Version::HTTP_2 {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Err(response)
        }
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const SECRET_HEADERS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::SEC_WEBSOCKET_PROTOCOL,
    HeaderName::from_static("x-api-key"),
];

/// The longest request id that is taken over.
const MAX_REQUEST_ID: usize = 64;

/// A request id goes into logs: one that is no plain word is replaced.
fn drop_odd_request_id(mut request: Request) -> Request {
    let is_plain = |id: &HeaderValue| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(plain)
    };
    if request.headers().get(REQUEST_ID).is_some_and(|id| !is_plain(id)) {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

#[derive(Clone, Copy)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &http::Request<B>) -> Option<RequestId> {
        HeaderValue::try_from(uuid::Uuid::now_v7().to_string()).ok().map(RequestId::new)
    }
}

/// Without the query, which may hold a ticket or a token.
fn span<B>(request: &http::Request<B>) -> tracing::Span {
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("");
    let client = request.extensions().get::<server::ClientConnection>().map(|from| from.client);
    let (method, path) = (request.method(), request.uri().path());
    tracing::debug_span!("request", %method, path, id, client = client.map(tracing::field::display))
}

/// What pages of other origins may send, and what scripts there may read: every method, request header and response
/// header that docs/protocol.md, the guides or client.ts have a client use and that the Fetch standard does not allow by
/// itself.
fn cors(config: &HttpConfig) -> CorsLayer {
    let origins = config.allowed_origins.iter().map(|origin| origin.header().clone());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods(CROSS_ORIGIN_METHODS)
        .allow_headers(CROSS_ORIGIN_HEADERS)
        .expose_headers(EXPOSED_HEADERS)
        .max_age(std::time::Duration::from_secs(3600))
}

const CROSS_ORIGIN_METHODS: [Method; 3] = [Method::GET, Method::POST, Method::DELETE];

const CROSS_ORIGIN_HEADERS: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CACHE_CONTROL, // `no-store`, as EventSource and its stand-ins send it
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("x-api-key"),
    REQUEST_ID,
];

const EXPOSED_HEADERS: [HeaderName; 6] = [
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    header::ALLOW,
    header::ACCEPT_ENCODING,
    header::DATE,
    REQUEST_ID,
];

#[cfg(test)]
mod tests;
