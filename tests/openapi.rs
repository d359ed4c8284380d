//! The description of the HTTP side is that of the routes, and answers are as it says.

use std::collections::{BTreeMap, BTreeSet};

use pulsehub::http::openapi;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{hub::TestHub, remote_write, schema::Schemas};

/// Routes that are no part of it.
const THE_PAGE: [&str; 3] = ["/", "/assets/{*path}", "/favicon.svg"];

#[test]
fn every_route_is_described_and_nothing_else() {
    let source =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http.rs")).unwrap();
    let mut routes = BTreeSet::new();
    for rest in source.split(".route(\"").skip(1) {
        let (path, rest) = rest.split_once('"').unwrap();
        let handlers = rest.split("\n        .").next().unwrap();
        for method in ["get", "post", "delete", "put", "patch"] {
            if handlers.contains(&format!("{method}(")) && !THE_PAGE.contains(&path) {
                routes.insert(format!("{method} {path}"));
            }
        }
    }
    assert!(routes.len() > 25, "{routes:?}");
    let described: BTreeSet<_> =
        openapi::OPERATIONS.iter().map(|it| format!("{} {}", it.method, it.path)).collect();
    assert_eq!(described, routes);
}

#[test]
fn every_reference_leads_to_a_shape_and_every_shape_is_used() {
    let document = openapi::document();
    let text = document.to_string();
    let shapes: BTreeSet<_> =
        document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    let used: BTreeSet<_> = text
        .split("#/components/schemas/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    assert_eq!(used, shapes);
    let ids: BTreeSet<_> =
        text.split("\"operationId\":\"").skip(1).map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.len(), openapi::OPERATIONS.len(), "two operations have one name");
    // Each refusal that is named exists: it has got a status.
    for operation in openapi::OPERATIONS {
        let described = &document["paths"][operation.path][operation.method];
        let said = described["responses"].to_string();
        for code in operation.refusals() {
            assert!(
                said.contains(&format!("`{code}`")),
                "{} {}: {code}",
                operation.method,
                operation.path
            );
        }
    }
}

/// What is asked of the hub, in order: method, path with its query, body.
fn requests() -> Vec<(Method, &'static str, Option<Value>)> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let instance = json!({"app_identifier": "tt", "instance_id": "i", "version": "1", "system_metadata": {"os": "Linux"}});
    vec![
        (
            post.clone(),
            "/api/v1/publish",
            Some(
                json!([{"topic": "a.b", "key": "k", "type": "t", "data": {"n": 1}}, {"topic": "a.c"}]),
            ),
        ),
        (post.clone(), "/api/v1/publish?ack=accepted", Some(json!({"topic": "a.b", "data": 2}))),
        (
            post.clone(),
            "/api/v1/publish",
            Some(json!({"topic": "a.s", "type": "samples", "data": {"samples": [7]}})),
        ),
        (post.clone(), "/api/v1/publish", Some(json!({"topic": "a..b"}))),
        (post.clone(), "/api/v1/write", None),
        (post.clone(), "/prometheus/api/v1/write", None),
        (post.clone(), "/api/app/metrics", Some(json!({"metrics": {"users": {"active": 3}}}))),
        (post.clone(), "/api/app/events", Some(json!({"event_type": "login", "data": {}}))),
        (get.clone(), "/api/v1/history?topics=**&limit=3", None),
        (get.clone(), "/api/v1/history?topics=**&before=1", None),
        (get.clone(), "/api/v1/history", None),
        (get.clone(), "/api/v1/topics?limit=1", None),
        (get.clone(), "/api/v1/topics", None),
        (get.clone(), "/api/v1/series?limit=1", None),
        (get.clone(), "/api/v1/series/query?name=app.users.active", None),
        (get.clone(), "/api/v1/series/query?name=x&agg=odd", None),
        (get.clone(), "/ws/real-time", None),
        (post.clone(), "/api/v1/tickets", None),
        (post.clone(), "/api/v1/tickets", Some(json!({"topics": ["a.*"]}))),
        (delete.clone(), "/api/v1/tickets", Some(json!({"ticket": "phs_x"}))),
        (post.clone(), "/api/v1/session", Some(json!({"token": "nonsense"}))),
        (get.clone(), "/api/v1/session", None),
        (delete.clone(), "/api/v1/session", None),
        (post.clone(), "/api/v1/register", Some(instance.clone())),
        (post.clone(), "/api/v1/register", Some(instance.clone())),
        (post.clone(), "/api/v1/validate", Some(instance)),
        (
            post.clone(),
            "/api/v1/heartbeat",
            Some(json!({"app_identifier": "tt", "instance_id": "i"})),
        ),
        (post.clone(), "/api/v1/heartbeat", Some(json!({"app_identifier": "tt"}))),
        (
            post.clone(),
            "/api/v1/data",
            Some(
                json!({"app_identifier": "tt", "instance_id": "i", "data": [{"key": "k", "value": 1}]}),
            ),
        ),
        (get.clone(), "/api/v1/status", None),
        (get.clone(), "/api/v1/instances?limit=1", None),
        (post.clone(), "/api/v1/instances/tt/i/key", None),
        (get.clone(), "/api/v1/instances", None),
        (delete.clone(), "/api/v1/instances/tt/i", None),
        (delete.clone(), "/api/v1/instances/tt/nobody", None),
        (get.clone(), "/api/v1/connections", None),
        (get.clone(), "/api/v1/nodes", None),
        (post, "/api/v1/drain", Some(json!({"node": "nobody"}))),
        (delete, "/api/v1/drain?node=all", None),
        (get.clone(), "/metrics", None),
        (get.clone(), "/healthz", None),
        (get.clone(), "/readyz", None),
        (get.clone(), "/readyz/publishing", None),
        (get.clone(), "/api/v1/openapi.json", None),
        (get, "/api/v1/docs", None),
    ]
}

#[tokio::test]
async fn real_requests_and_answers_are_as_it_says() {
    let hub = TestHub::start().await;
    let admin = hub.token_for("root", &["**"], Some("admin"), 600);
    let mut client = hub.client("ada", &["**"]).await;
    client.subscribe(json!({"sub": "a", "topics": ["a.**"]})).await;
    let served =
        hub.http().get(hub.url("/api/v1/openapi.json")).bearer_auth(&admin).send().await.unwrap();
    let document: Value = served.json().await.unwrap();
    let schemas = Schemas { document: &document };
    let mut tried = BTreeSet::new();
    for (method, target, body) in requests() {
        let at = format!("{method} {target}");
        let path = target.split('?').next().unwrap();
        let name = method.as_str().to_lowercase();
        let (route, operation) =
            find(&document, path, &name).unwrap_or_else(|| panic!("{at} is not described"));
        tried.insert(format!("{name} {route}"));
        let mut request = hub.http().request(method, hub.url(target)).bearer_auth(&admin);
        if let Some(body) = &body {
            request = request.json(body);
        }
        if path.ends_with("/write") {
            request = request.body(remote_write::body(&[("up", 0, 1.0)]));
            for (name, value) in remote_write::HEADERS {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        if let Some(body) = body.filter(|_| status < 300) {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            assert_eq!(schemas.faults(schema, &body), Vec::<String>::new(), "the body of {at}");
        }
        let parameters = operation["parameters"].to_string();
        for pair in target.split(['?', '&']).skip(1) {
            let name = pair.split('=').next().unwrap();
            assert!(
                parameters.contains(&format!("\"name\":\"{name}\"")),
                "{at}: {name} is not described"
            );
        }
        let described = &operation["responses"][status.to_string()];
        assert!(described.is_object(), "{at}: {status} is not described");
        let media =
            answer.headers().get("content-type").map(|media| media.to_str().unwrap().to_owned());
        let media = media.as_deref().and_then(|media| media.split(';').next());
        let text = answer.text().await.unwrap();
        let Some(media) = media.filter(|_| !text.is_empty()) else {
            assert!(described["content"].is_null(), "{at}: an answer without a body");
            continue;
        };
        let content = &described["content"][media];
        assert!(content.is_object(), "{at}: {media} is not described for {status}");
        if media.ends_with("json") {
            let answer: Value = serde_json::from_str(&text).unwrap();
            let faults = schemas.faults(&content["schema"], &answer);
            assert!(faults.is_empty(), "{at}: {faults:#?}\n{answer:#}");
            if let Some(code) = answer["code"].as_str() {
                let said = described["description"].as_str().unwrap();
                assert!(said.contains(&format!("`{code}`")), "{at}: {code} is not described");
            }
        }
    }
    // A stream has no end to wait for; tests/streams.rs reads it.
    let described: BTreeSet<_> = openapi::OPERATIONS
        .iter()
        .map(|it| format!("{} {}", it.method, it.path))
        .filter(|it| it != "get /sse/real-time")
        .collect();
    assert_eq!(tried, described);
}

#[tokio::test]
async fn the_parameters_described_are_those_that_are_known() {
    let hub = TestHub::start().await;
    let admin = hub.token_for("root", &["**"], Some("admin"), 600);
    let document = openapi::document();
    let mut unlisted = BTreeSet::new();
    for operation in
        openapi::OPERATIONS.iter().filter(|it| it.method == "get" || it.method == "delete")
    {
        let path = operation.path.replace("{app}", "a").replace("{id}", "i");
        let url = hub.url(&format!("{path}?no_such_parameter=1"));
        let method = operation.method.to_uppercase().parse().unwrap();
        let answer = hub.http().request(method, url).bearer_auth(&admin).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let Some((_, known)) =
            text.split_once("there is no parameter `no_such_parameter` here, only ")
        else {
            unlisted.insert(format!("{} {}", operation.method, operation.path));
            continue;
        };
        let known = known.split('"').next().unwrap().replace(" or ", ", ");
        let known: BTreeSet<_> = known.split(", ").collect();
        let described =
            document["paths"][operation.path][operation.method]["parameters"].as_array();
        let described: BTreeSet<_> = described
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(described, known, "{} {}", operation.method, operation.path);
    }
    // A socket refuses with a close code. The others have no parameters: a proxy or a probe may add some of its own.
    let without = [
        "get /ws/real-time",
        "delete /api/v1/instances/{app}/{id}",
        "delete /api/v1/session",
        "delete /api/v1/tickets",
        "get /api/v1/docs",
        "get /api/v1/nodes",
        "get /api/v1/openapi.json",
        "get /api/v1/session",
        "get /api/v1/status",
        "get /healthz",
        "get /metrics",
        "get /readyz",
        "get /readyz/publishing",
    ];
    assert_eq!(unlisted, without.map(str::to_owned).into());
}

/// The operation that a request for `path` is answered by, and its path in the document.
fn find<'a>(document: &'a Value, path: &str, method: &str) -> Option<(&'a str, &'a Value)> {
    let paths = document["paths"].as_object().unwrap();
    let fits = |route: &str| {
        let (route, path): (Vec<_>, Vec<_>) =
            (route.split('/').collect(), path.split('/').collect());
        route.len() == path.len()
            && route.iter().zip(&path).all(|(a, b)| a.starts_with('{') || a == b)
    };
    // A path without a variable goes before one with it, as in the router.
    let found: BTreeMap<usize, &String> = paths
        .keys()
        .filter(|route| fits(route) && paths[*route].get(method).is_some())
        .map(|route| (route.matches('{').count(), route))
        .collect();
    let (_, route) = found.first_key_value()?;
    Some((route, &paths[*route][method]))
}

#[tokio::test]
async fn projections_are_described_to_those_who_may_read_them() {
    let hub = TestHub::start().await;
    let paths = async |token: Option<String>| {
        let mut request = hub.http().get(hub.url("/api/v1/openapi.json"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let document: Value = request.send().await.unwrap().json().await.unwrap();
        document["paths"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>()
    };
    let (stranger, shop) = (paths(None).await, paths(Some(hub.token("shop", &["shop.**"]))).await);
    let flext = paths(Some(hub.token("flext", &["flext.**"]))).await;
    assert_eq!(stranger, shop);
    let more: Vec<_> = flext.difference(&stranger).collect();
    assert_eq!(more, ["/api/stats/"]);
}

#[tokio::test]
async fn the_page_fetches_nothing_and_runs_nothing() {
    let hub = TestHub::start().await;
    let answer = hub.http().get(hub.url("/api/v1/docs")).send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let page = answer.text().await.unwrap();
    assert!(page.len() < 100_000, "{}", page.len());
    for foreign in ["<script", "src=", "http://", "https://", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for operation in openapi::OPERATIONS {
        assert!(page.contains(&format!("<code>{}</code>", operation.path)), "{}", operation.path);
    }
}
