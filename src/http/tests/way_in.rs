//! Who comes in: tokens, tickets and sessions.

use super::*;

#[tokio::test]
async fn nobody_comes_in_without_good_credentials() {
    let server = Server::new();
    let with = async |name: &str, value: &str| {
        let request = Request::post("/api/v1/tickets").header(name, value);
        server.send(request.body(Body::empty()).unwrap()).await
    };
    let answer = with("accept", "*/*").await;
    answer.assert_problem(401, "unauthorized");
    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"pulsehub\"");
    let answer = with("authorization", "Bearer nonsense").await;
    answer.assert_problem(401, "unauthorized");
    let challenge = answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.contains("invalid_token"), "{challenge}");
    with("authorization", "Basic YTpi").await.assert_problem(401, "unauthorized");
    let short = token("ada", &[], None, 60);
    assert_eq!(with("x-api-key", &short).await.status, StatusCode::CREATED);
    server.state.clock.set(NOW + 60_000);
    with("x-api-key", &short).await.assert_problem(401, "token_expired");
    let both = request("POST", "/api/v1/tickets").header("x-api-key", "other");
    server.send(both.body(Body::empty()).unwrap()).await.assert_problem(400, "credentials_differ");
}

#[tokio::test]
async fn a_ticket_lets_in_once() {
    let server = Server::new();
    let answer = server.send(request("POST", "/api/v1/tickets").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, &answer.json()["expires_in"]), (StatusCode::CREATED, &json!(30)));
    let ticket = answer.json()["ticket"].as_str().unwrap().to_owned();
    let upgrade = Request::get(format!("/ws/real-time?ticket={ticket}")).body(()).unwrap();
    let credential = credentials::collect_upgrade(&upgrade.into_parts().0, false).unwrap().unwrap();
    let principal = server.state.access.authenticate(&credential).await.unwrap();
    assert_eq!(&*principal.name, "ada");
    assert!(server.state.access.authenticate(&credential).await.is_err());
}

#[tokio::test]
async fn a_session_begins_with_a_code_and_ends() {
    let server = Server::new();
    let admin = token("root", &["a.**"], Some("admin"), 3600);
    let credential = crate::access::Credential::Token(admin.into());
    let principal = server.state.access.authenticate(&credential).await.unwrap();
    let code = server.state.access.issue_link(&principal).await.unwrap();
    let body = json!({"code": code.expose_secret()}).to_string();
    let plain = || Request::builder().uri("/api/v1/session").header("host", "hub.example");
    let sign_in = |body: String| {
        let request = plain().method("POST").header("content-type", "application/json");
        server.send(request.body(body.into()).unwrap())
    };
    let untyped = plain().method("POST").body(body.clone().into()).unwrap();
    server.send(untyped).await.assert_problem(415, "unsupported_content_type");
    sign_in("{\"code\":".into()).await.assert_problem(400, "invalid_json");
    let answer = sign_in(body.clone()).await;
    let admins = json!({"user": "root", "admin": true, "expires_in": 3600,
        "subscribe": ["a.**", "**", "hub.**"], "publish": ["a.**", "**"]});
    let (mut said, mut expected) = (answer.json(), admins);
    for list in ["subscribe", "publish"] {
        for session in [&mut said, &mut expected] {
            session[list].as_array_mut().unwrap().sort_by_key(Value::to_string);
        }
    }
    assert_eq!(said, expected);
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    for part in ["pulsehub_session=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=3600"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "{cookie}");
    sign_in(body).await.assert_problem(401, "unauthorized");

    let cookie = cookie.split(';').next().unwrap();
    let with = |method: &str, origin: Option<&str>| {
        let request = plain().method(method).header("cookie", cookie);
        let request = match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        server.send(request.body(Body::empty()).unwrap())
    };
    assert_eq!(with("GET", None).await.json()["user"], "root");
    with("DELETE", Some("https://evil.example")).await.assert_problem(403, "cross_origin");
    with("DELETE", None).await.assert_problem(403, "cross_origin");
    let answer = with("DELETE", Some("https://hub.example")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    with("GET", None).await.assert_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_neighbour_under_the_same_domain_cannot_set_the_cookie() {
    let server = Server::with(&[("http.secure_cookie", "true")]);
    let body = json!({"token": token("ada", &["a.**"], None, 60)}).to_string();
    let request = Request::post("/api/v1/session").header("content-type", "application/json");
    let answer = server.send(request.body(body.into()).unwrap()).await;
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    // What browsers ask of that prefix (RFC 6265bis section 4.1.3.2).
    assert!(cookie.starts_with("__Host-pulsehub_session="), "{cookie}");
    assert!(cookie.contains("; Secure") && cookie.contains("; Path=/;"), "{cookie}");
    assert!(!cookie.contains("Domain"), "{cookie}");
    let own = cookie.split(';').next().unwrap();
    let with = |cookies: String, method: &str| {
        let request = Request::builder().method(method).uri("/api/v1/session");
        let request = request.header("host", "hub.example").header("origin", "https://hub.example");
        server.send(request.header("cookie", cookies).body(Body::empty()).unwrap())
    };
    let both = format!("pulsehub_session=planted; {own}");
    assert_eq!(with(both.clone(), "GET").await.json()["user"], "ada");
    let ended = with(both, "DELETE").await;
    let cookie = ended.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("__Host-pulsehub_session=;"), "{cookie}");
}

#[tokio::test]
async fn a_session_begins_with_a_token_and_lasts_no_longer() {
    let server = Server::new();
    let sign_in = |token: &str| {
        let body = json!({"token": token}).to_string();
        let request = Request::post("/api/v1/session").header("content-type", "application/json");
        server.send(request.body(body.into()).unwrap())
    };
    sign_in("nonsense").await.assert_problem(401, "unauthorized");
    let answer = sign_in(&token("ada", &["a.**"], None, 60)).await;
    assert_eq!((&answer.json()["user"], &answer.json()["expires_in"]), (&json!("ada"), &json!(60)));
    assert_eq!(answer.json()["subscribe"], json!(["a.**"]));
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("Max-Age=60"), "{cookie}");
    let with = || {
        let cookie = cookie.split(';').next().unwrap();
        let request = Request::get("/api/v1/session").header("cookie", cookie);
        server.send(request.header("host", "hub.example").body(Body::empty()).unwrap())
    };
    assert_eq!(with().await.json()["user"], "ada");
    server.state.clock.set(NOW + 60_000);
    with().await.assert_problem(401, "unauthorized");
}

#[tokio::test]
async fn a_foreign_page_signs_nobody_in() {
    let server = Server::new();
    let body = json!({"token": token("ada", &["a.**"], None, 60)}).to_string();
    let sign_in = |origin: Option<&str>| {
        let request = Request::post("/api/v1/session")
            .header("host", "hub.example")
            .header("content-type", "application/json");
        let request = match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        server.send(request.body(body.clone().into()).unwrap())
    };
    for origin in ["https://evil.example", "null"] {
        let answer = sign_in(Some(origin)).await;
        answer.assert_problem(403, "cross_origin");
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
    }
    assert_eq!(sign_in(Some("https://hub.example")).await.status, StatusCode::OK);
    assert_eq!(sign_in(None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_page_of_another_origin_could_connect_but_not_resume() {
    let server = Server::with(&[("http.allowed_origins", "https://dash.example")]);
    // What docs/protocol.md, the guides and client.ts have a client send, by path.
    let sent: [(&str, &str, &[&str]); 12] = [
        ("GET", "/sse/real-time", &["authorization", "last-event-id", "cache-control"]),
        ("GET", "/sse/real-time", &["x-api-key", "last-event-id"]),
        ("POST", "/api/v1/publish", &["authorization", "content-type", "content-encoding"]),
        ("POST", "/api/v1/publish", &["x-api-key", "content-type", "x-request-id"]),
        ("POST", "/api/shop/metrics", &["x-api-key", "content-type"]),
        ("POST", "/api/v1/register", &["authorization", "content-type"]),
        ("POST", "/api/v1/tickets", &["authorization"]),
        ("GET", "/api/v1/history", &["authorization", "x-request-id"]),
        ("GET", "/api/v1/topics", &["x-api-key"]),
        ("POST", "/api/v1/drain", &["authorization", "content-type"]),
        ("DELETE", "/api/v1/drain", &["authorization"]),
        ("DELETE", "/api/v1/instances/shop/one", &["authorization"]),
    ];
    for (method, path, headers) in sent {
        let preflight = Request::builder()
            .method("OPTIONS")
            .uri(path)
            .header("origin", "https://dash.example")
            .header("access-control-request-method", method)
            .header("access-control-request-headers", headers.join(","));
        let answer = server.send(preflight.body(Body::empty()).unwrap()).await;
        let allowed = |name: &str| {
            let list = answer.headers[name].to_str().unwrap().to_ascii_lowercase();
            list.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(answer.headers["access-control-allow-origin"], "https://dash.example");
        assert!(allowed("access-control-allow-methods").contains(&method.to_ascii_lowercase()));
        for header in headers {
            let list = allowed("access-control-allow-headers");
            assert!(list.contains(&(*header).to_owned()), "{method} {path}: {header}");
        }
    }
    let answer = Request::get("/api/v1/history").header("origin", "https://dash.example");
    let answer = server.send(answer.body(Body::empty()).unwrap()).await;
    let exposed = answer.headers["access-control-expose-headers"].to_str().unwrap();
    for header in ["retry-after", "www-authenticate", "allow", "accept-encoding", "x-request-id"] {
        assert!(exposed.contains(header), "{header} is not in {exposed}");
    }
}

#[tokio::test]
async fn a_hub_that_others_reach_has_any_name_unless_some_are_configured() {
    let open = ("listen", "0.0.0.0:8080");
    let named = ("http.allowed_hosts", "hub.example");
    for (flags, name, wanted) in [
        (&[open][..], "hub.internal", 200),
        (&[open, named], "hub.example", 200),
        (&[open, named], "hub.internal", 421),
        (&[], "hub.internal", 421),
    ] {
        let server = Server::with(flags);
        let ask = async |request: http::request::Builder| {
            let request = request.body(Body::empty()).unwrap();
            front(server.state.clone()).oneshot(request).await.unwrap().status().as_u16()
        };
        assert_eq!(ask(Request::get("/healthz").header("host", name)).await, wanted, "{name}");
        // HTTP/2 has it in the address.
        let two = Request::get(format!("http://{name}/healthz")).version(http::Version::HTTP_2);
        assert_eq!(ask(two).await, wanted, "{name}");
    }
}
