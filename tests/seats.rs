//! Connections that ask for nothing: they keep nobody else out.

use std::net::SocketAddr;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{
    DEADLINE,
    hub::{Client, PROTOCOL, TestHub, numbers},
    process::Home,
};

/// A connection from another address of this machine.
async fn connect(to: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    timeout(DEADLINE, socket.connect(to)).await.unwrap().unwrap()
}

/// The status of the answer to a GET; the connection stays.
async fn get(stream: &mut TcpStream, path: &str, key: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("no answer").unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

/// Fills a hub of 1,024 descriptors with idle connections, then sees that all others are served.
async fn flood(address: impl Fn(usize) -> [u8; 4], limit: &str) {
    pulsehub::descriptors::raise(); // the connections' other ends are this process's
    let home = Home::new("[http]\nheader_timeout = \"10m\"\nidle_timeout = \"10m\"\n");
    let hub = home.start_with_descriptors(1024).await;
    let token = home.token("ada", "a.*");
    let mut client = Client::open(hub.address(), "/ws/real-time", &[PROTOCOL]).await.unwrap();
    client.connect(&token).await;
    client.subscribe(json!({"sub": "s", "topics": ["a.*"]})).await;
    client.expect("live").await;
    let mut idle = Vec::new();
    for n in 0..1100 {
        idle.push(connect(hub.address(), address(n)).await);
    }
    for from in [[127, 0, 0, 1], [127, 9, 9, 9]] {
        for path in ["/healthz", "/readyz", "/api/v1/topics"] {
            assert_eq!(get(&mut connect(hub.address(), from).await, path, &token).await, 200);
        }
    }
    let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
    let url = format!("http://{}", hub.address());
    let event = json!({"topic": "a.b", "data": {"n": 7}});
    let publish = http.post(format!("{url}/api/v1/publish")).bearer_auth(&token).json(&event);
    assert_eq!(publish.send().await.unwrap().status(), 200);
    assert_eq!(numbers(&client.events("s", 1).await), [7]);
    let metrics = http.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let hits = format!("pulsehub_limit_hits_total{{limit=\"{limit}\"}}");
    assert!(metrics.contains(&hits), "{metrics}");
}

#[tokio::test]
async fn idle_connections_from_one_address_locked_everybody_out() {
    flood(|_| [127, 0, 0, 1], "connections_per_address").await;
}

#[tokio::test]
async fn idle_connections_from_many_addresses_locked_everybody_out() {
    flood(|n| [127, 0, 1 + (n / 200) as u8, 1 + (n % 200) as u8], "connections").await;
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_told_so() {
    let hub = TestHub::with(&[("limits.connections_per_address", "2")]).await;
    let token = hub.token("ada", &["a.*"]);
    let mut users = Vec::new();
    for _ in 0..2 {
        let mut user = connect(hub.address(), [127, 0, 0, 2]).await;
        assert_eq!(get(&mut user, "/api/v1/topics", &token).await, 200);
        users.push(user);
    }
    let mut third = connect(hub.address(), [127, 0, 0, 2]).await;
    let mut answer = String::new();
    timeout(DEADLINE, third.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 5"), "{answer}");
    assert!(answer.contains("too_many_connections"), "{answer}");
    let mut other = connect(hub.address(), [127, 0, 0, 3]).await;
    assert_eq!(get(&mut other, "/healthz", "").await, 200);
}

#[tokio::test]
async fn a_silent_socket_that_loses_its_place_is_told_to_come_back() {
    let hub = TestHub::with(&[("limits.connections", "16")]).await;
    let mut silent = hub.socket("/ws/real-time", &[PROTOCOL]).await;
    let mut others = Vec::new();
    for n in 0..14 {
        others.push(connect(hub.address(), [127, 0, 0, 2 + n % 2]).await);
    }
    let after_ms = silent.expect("reconnect").await["after_ms"].as_u64().unwrap();
    assert!((5000..10_000).contains(&after_ms), "{after_ms}");
    assert_eq!(silent.expect_close().await.0, 1013);
}

#[tokio::test]
async fn a_hub_full_of_its_users_still_answers_probes_and_admins() {
    // Two of sixteen are reserved.
    let hub = TestHub::with(&[("limits.connections", "16")]).await;
    let token = hub.token("ada", &["a.*"]);
    let mut users = Vec::new();
    for n in 0..14 {
        let mut user = connect(hub.address(), [127, 0, 0, 2 + n % 2]).await;
        assert_eq!(get(&mut user, "/api/v1/topics", &token).await, 200);
        users.push(user);
    }
    let root = hub.token_for("root", &[], Some("admin"), 60);
    for (path, key, status) in [
        ("/healthz", "", 200),
        ("/readyz", "", 200),
        ("/api/v1/topics", token.as_str(), 503),
        ("/api/v1/nodes", root.as_str(), 200),
    ] {
        let mut more = connect(hub.address(), [127, 0, 0, 4]).await;
        assert_eq!(get(&mut more, path, key).await, status, "{path}");
    }
    drop(users.pop());
    crate::support::eventually("room", async || {
        let mut more = connect(hub.address(), [127, 0, 0, 4]).await;
        (get(&mut more, "/api/v1/topics", &token).await == 200).then_some(())
    })
    .await;
    crate::support::eventually("the count of refusals", async || {
        let refused = hub.metric("pulsehub_refusals_total{code=\"overloaded\"}").await;
        (refused >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_came_too_often_behind_a_proxy_was_reset_amid_the_upload_and_not_counted() {
    let hub = TestHub::with(&[
        ("limits.connections_per_address", "1"),
        ("http.trusted_proxies", "127.0.0.0/8"),
    ])
    .await;
    let token = hub.token("ada", &["a.*"]);
    let lines = format!("host: localhost\r\nx-forwarded-for: 192.0.2.7\r\nx-api-key: {token}\r\n");
    let mut first = TcpStream::connect(hub.address()).await.unwrap();
    let stream = format!("GET /sse/real-time?topics=a.* HTTP/1.1\r\n{lines}\r\n");
    first.write_all(stream.as_bytes()).await.unwrap();
    timeout(DEADLINE, first.read_u8()).await.expect("no answer").unwrap();
    let body = vec![b' '; 12 << 20];
    let mut second = TcpStream::connect(hub.address()).await.unwrap();
    let head =
        format!("POST /api/v1/publish HTTP/1.1\r\n{lines}content-length: {}\r\n\r\n", body.len());
    second.write_all(head.as_bytes()).await.unwrap();
    second.write_all(&body).await.expect("a reset");
    let mut answer = String::new();
    timeout(DEADLINE, second.read_to_string(&mut answer)).await.unwrap().expect("a reset");
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    let refused = "pulsehub_refusals_total{code=\"too_many_connections\"}";
    assert_eq!(hub.metric(refused).await, 1.0);
}

#[tokio::test]
async fn a_stream_keeps_its_place_by_good_credentials_only() {
    let anonymous = "[auth.anonymous]\nsubscribe = [\"a.*\"]\npublish = []\n";
    let hub = TestHub::with_file(&format!("[limits]\nconnections = 16\n{anonymous}")).await;
    let open = async |key: Option<String>| {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = http.get(hub.url("/sse/real-time?topics=a.*"));
        let request = key.into_iter().fold(request, |request, key| request.bearer_auth(key));
        let stream = request.send().await.unwrap();
        assert_eq!(stream.status(), 200);
        stream
    };
    let mut known = open(Some(hub.token("ada", &["a.*"]))).await;
    let stranger = open(None).await;
    let mut others = Vec::new();
    for n in 0..14 {
        others.push(connect(hub.address(), [127, 0, 0, 2 + n % 2]).await);
    }
    let _ = timeout(DEADLINE, stranger.text()).await.expect("it keeps its place");
    hub.publish_numbers("a.b", 0..1).await;
    let mut text = String::new();
    while !text.contains("{\"n\":0}") {
        let piece = timeout(DEADLINE, known.chunk()).await.unwrap().unwrap();
        text += std::str::from_utf8(&piece.expect("it lost its place")).unwrap();
    }
}
