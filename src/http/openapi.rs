//! The HTTP side as OpenAPI 3.1, and a page that shows it: one entry for each method of each path, beside the route table.
//!
//! Answers are written by hand in places (a page of history is a stream), which no macro
//! sees. So the entries stand in `operations.rs` and the shapes in `schemas.json`, and tests/openapi.rs holds both against
//! the routes and against real answers, in which nothing may be that the shapes do not name.

mod operation;
mod operations;
mod page;

use std::{collections::BTreeSet, sync::LazyLock};

use axum::{
    Json,
    extract::{FromRequestParts as _, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header, request::Parts};
use serde_json::{Map, Value, json};

use self::operation::{OperationAccess, ParameterPlace};
pub use self::{operation::Operation, operations::OPERATIONS};
use super::{AppState, Caller, Problem, credentials, error};
use crate::topic::TopicPattern;

const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// Sections of the document, in order.
const TAGS: [(&str, &str); 7] = [
    ("Publishing", "Events go in."),
    ("Reading", "What is stored, and the numbers in it."),
    (
        "Receiving",
        "Events come out as they happen; docs/protocol.md describes what is said on the socket.",
    ),
    ("Credentials", "Tickets for sockets and streams, and sessions of browsers."),
    ("Instances", "Programs that register and send heartbeats; docs/instances.md."),
    (
        "Projections",
        "JSON made of events, at the paths that the configuration names; docs/projections.md.",
    ),
    ("Operation", "Health, metrics, nodes, and this description."),
];

/// `GET /api/v1/openapi.json`, for anybody: it holds nothing of the configuration but the projections that the caller may
/// read.
pub(super) async fn document_of_hub(
    State(state): State<AppState>,
    mut parts: Parts,
) -> Result<Response, Problem> {
    let caller = match credentials::collect(&parts)? {
        Some(_) => Some(Caller::from_request_parts(&mut parts, &state).await?.0),
        None => state.access.anonymous(),
    };
    let Some(principal) = caller else { return Ok(Json(&*DOCUMENT).into_response()) };
    let mut document = DOCUMENT.clone();
    for projection in state.projections.all() {
        let Some(path) = &projection.path else { continue };
        if principal.may_subscribe(&TopicPattern::from(&projection.topic)) {
            let summary = format!("What {} is now", projection.topic);
            let described = describe_projection(&summary, &projection.filters());
            document["paths"][path.as_str()] = json!({"get": described});
        }
    }
    Ok(Json(document).into_response())
}

/// `GET /api/v1/docs`: the same for people, without a script.
pub(super) async fn page() -> Response {
    let (text, policy) = &*PAGE;
    let mut response = text.as_str().into_response();
    let about = response.headers_mut();
    about.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        about.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// Made once: anybody may ask, as often as they like.
static DOCUMENT: LazyLock<Value> = LazyLock::new(document);
static PAGE: LazyLock<(String, String)> = LazyLock::new(|| page::render(&DOCUMENT));

/// The document of every hub, without projections.
pub fn document() -> Value {
    // It is compiled in, and a test reads it.
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let entry = paths.entry(operation.path).or_insert_with(|| json!({}));
        entry[operation.method] = describe(operation);
    }
    let tags: Vec<_> =
        TAGS.iter().map(|(name, about)| json!({"name": name, "description": about})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pulsehub",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A real-time event hub",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "security": [{"bearer": []}, {"apiKey": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token or an API key."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
                "session": {
                    "type": "apiKey", "in": "cookie", "name": "pulsehub_session",
                    "description": "The hub's own pages only.",
                },
            },
        },
    })
}

/// A projection's path, of which the configuration says what is answered.
fn describe_projection(summary: &str, filters: &BTreeSet<&str>) -> Value {
    let parameter = |name: &str, kind: &str, about: &str| {
        let schema = json!({"type": kind});
        json!({"name": name, "in": "query", "required": false, "schema": schema, "description": about})
    };
    let mut parameters = vec![
        parameter("hours", "integer", "How far back charts in it reach, 1 to 720."),
        parameter("days", "integer", "The same in days, 1 to 30."),
        parameter("limit", "integer", "How many rows lists in it have, 1 to 1000."),
    ];
    let filter = "Only rows of lists in which this has one of these values.";
    parameters.extend(filters.iter().map(|name| parameter(name, "string", filter)));
    json!({
        "tags": ["Projections"],
        "summary": summary,
        "parameters": parameters,
        "responses": {"200": {"description": "JSON of the shape that is configured.", "content": {"application/json": {"schema": {}}}}},
    })
}

/// One operation in the document's words.
fn describe(operation: &Operation) -> Value {
    let parameters: Vec<_> = operation
        .parameters
        .iter()
        .map(|parameter| {
            let place = match parameter.place {
                ParameterPlace::Path => "path",
                ParameterPlace::Query => "query",
                ParameterPlace::Header => "header",
            };
            json!({
                "name": parameter.name,
                "in": place,
                "required": parameter.is_required,
                "description": parameter.about,
                "schema": {"type": parameter.kind},
            })
        })
        .collect();
    let mut answers = Map::new();
    for answer in operation.answers {
        let mut described = json!({"description": answer.about});
        if let Some((media, schema)) = answer.content {
            described["content"] = json!({media: {"schema": named(schema)}});
        }
        answers.insert(answer.status.to_string(), described);
    }
    for code in operation.refusals {
        let Some((status, title)) = error::about(code) else { continue };
        let text = format!("`{code}`: {title}.");
        let entry = answers.entry(status.as_u16().to_string()).or_insert_with(|| {
            json!({
                "description": "",
                "content": {"application/problem+json": {"schema": named("Problem")}},
            })
        });
        let before = entry["description"].as_str().unwrap_or_default();
        let joined = if before.is_empty() { text } else { format!("{before} {text}") };
        entry["description"] = joined.into();
    }
    let mut described = json!({
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.about,
        "operationId": operation.id(),
        "responses": answers,
    });
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if !operation.body.is_empty() {
        let content: Map<_, _> = operation
            .body
            .iter()
            .map(|(media, schema)| ((*media).to_owned(), json!({"schema": schema_of(schema)})))
            .collect();
        // The one body that may be left out asks for what is made without it.
        let is_required = operation.path != "/api/v1/tickets" || operation.method != "post";
        described["requestBody"] = json!({"required": is_required, "content": content});
    }
    if matches!(operation.access, OperationAccess::Open) {
        described["security"] = json!([]);
    }
    described
}

/// A schema by its name; one or an array of them for `A or [A]`.
fn schema_of(text: &str) -> Value {
    match text.strip_suffix(" or a list") {
        Some(name) => json!({"oneOf": [named(name), {"type": "array", "items": named(name)}]}),
        None => named(text),
    }
}

/// A reference to a schema; what begins with a small letter is a type of its own.
fn named(schema: &str) -> Value {
    match schema {
        "any" => json!({}),
        "string" => json!({"type": "string"}),
        _ => json!({"$ref": format!("#/components/schemas/{schema}")}),
    }
}
