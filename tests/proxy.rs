//! The cluster's proxy, with the very file it is shipped with, before hubs that come and go.

use std::net::SocketAddr;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};

use crate::support::{
    DEADLINE, eventually,
    haproxy::Haproxy,
    hub::{Client, PROTOCOL},
    process::{Home, Process},
};

/// The same on every node, as in a cluster.
const SETTINGS: &str = "secret = \"0123456789abcdef0123456789abcdef\"";

/// Stores one event on the hub at `to`.
async fn publish(to: &str, token: &str, number: u64) -> reqwest::Result<()> {
    let event = json!({"topic": "a.b", "data": {"n": number}});
    let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build()?;
    let url = format!("{to}/api/v1/publish");
    http.post(url).bearer_auth(token).json(&event).send().await?.error_for_status().map(drop)
}

/// A socket through the proxy, opened as a page that came through it does.
async fn subscriber(proxy: &Haproxy, token: &str) -> Client {
    let origin = proxy.url("");
    let headers = [PROTOCOL, ("origin", origin.as_str())];
    let mut client = eventually("a socket through the proxy", async || {
        Client::open(proxy.address(), "/ws/real-time", &headers).await.ok()
    })
    .await;
    client.connect(token).await;
    client.subscribe(json!({"sub": "s", "topics": ["a.*"]})).await;
    client.expect("live").await;
    client
}

fn number(events: &[Value]) -> u64 {
    events[0]["data"]["n"].as_u64().unwrap()
}

#[tokio::test]
async fn sockets_and_streams_pass_the_proxy_and_find_the_node_that_is_left() {
    let homes = [Home::new(SETTINGS), Home::new(SETTINGS)];
    let hubs: [Process; 2] = [homes[0].start().await, homes[1].start().await];
    let addresses = [hubs[0].address(), hubs[1].address()];
    let direct = addresses.map(|address| format!("http://{address}"));
    let token = homes[0].token("ada", "a.*");
    let proxy = Haproxy::before(addresses);

    // Each node's log is its own here, so that the event tells which node a socket is on.
    let mut client = subscriber(&proxy, &token).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let stream = http.get(proxy.url("/sse/real-time?topics=a.*")).bearer_auth(&token).send();
    let stream = timeout(DEADLINE, stream).await.unwrap().unwrap().error_for_status().unwrap();
    publish(&direct[0], &token, 0).await.unwrap();
    publish(&direct[1], &token, 1).await.unwrap();
    let node = number(&client.events("s", 1).await);

    // The stream is not held back: the event comes while the stream stays open.
    let mut body = stream.bytes_stream();
    let mut text = String::new();
    while !text.contains("\ndata: ") {
        let bytes = timeout(DEADLINE, body.next()).await.expect("held back").unwrap().unwrap();
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }

    let (lost, left) = if node == 0 { (0, 1) } else { (1, 0) };
    let mut hubs = hubs.map(Some);
    hubs[lost].take().unwrap().kill();
    while client.next().await.is_some() {}

    // A request that meets the dead node goes to the other one.
    for number in 10..20 {
        publish(&proxy.url(""), &token, number).await.unwrap();
    }
    let mut client = subscriber(&proxy, &token).await;
    publish(&direct[left], &token, 99).await.unwrap();
    assert_eq!(number(&client.events("s", 1).await), 99);
}

#[tokio::test]
async fn a_node_that_is_not_ready_gets_nothing_new() {
    let home = Home::new(SETTINGS);
    let hub = home.start().await;
    let (draining, mut asked) = draining_node().await;
    let proxy = Haproxy::before([draining, hub.address()]);
    // One to find out, one to be sure, one whose answer has certainly been judged when the next comes.
    for _ in 0..4 {
        let line = timeout(DEADLINE, asked.recv()).await.expect("the node is not asked").unwrap();
        assert!(line.starts_with("GET /readyz "), "{line}");
    }
    for _ in 0..10 {
        let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        let answer = http.get(proxy.url("/healthz")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn the_proxy_keeps_tickets_out_of_its_log_and_metrics_to_the_nodes() {
    // Nobody listens there.
    let proxy = Haproxy::before([SocketAddr::from(([127, 0, 0, 1], 1)); 2]);
    let status = async |path: &str| {
        let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        http.get(proxy.url(path)).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("/metrics").await, 404);
    assert_eq!(status("/api/v1/history?ticket=phs_secret").await, 503);
    let log = eventually("the request's line in the log", async || {
        Some(proxy.log()).filter(|log| log.contains("GET /api/v1/history"))
    })
    .await;
    assert!(!log.contains("secret"), "{log}");
}

/// Answers everything as a hub that drains answers /readyz; also gives the lines it was asked with.
async fn draining_node() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match socket.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => break,
                }
            }
            let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            // Who asked may have gone, and so may the test.
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ =
                tell.send(String::from_utf8_lossy(&request).lines().next().unwrap_or("").into());
        }
    });
    (address, told)
}
