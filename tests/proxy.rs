//! The cluster's proxy, with the very file it is shipped with, before hubs that come and go.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::{
    DEADLINE, eventually,
    hub::{Client, PROTOCOL},
    process::{Home, Process},
};

/// The same on every node, as in a cluster.
const SETTINGS: &str = "secret = \"0123456789abcdef0123456789abcdef\"";

/// A running proxy; ended when dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Proxy {
    fn before(hubs: [SocketAddr; 2]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/haproxy.cfg");
        let shipped = std::fs::read_to_string(path).unwrap();
        // Only what this machine does not have: the names of the nodes, and the port for everybody. The
        // proxy inherits a listening socket as its standard input, so that nobody else can get the port.
        let mut settings = shipped.replacen("bind :8080", "bind fd@0", 1);
        for (name, hub) in ["hub-1:8080", "hub-2:8080"].into_iter().zip(hubs) {
            settings = settings.replacen(name, &hub.to_string(), 1);
        }
        assert_eq!(settings.matches("127.0.0.1:").count(), 2, "{settings}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("haproxy")
            .env("PATH", format!("{path}:/usr/sbin"))
            .args(["-db", "-f"])
            .arg(file)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .spawn()
            .expect("haproxy: ./tools/setup installs it");
        Self { child, address, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stores one event on the hub at `to`.
async fn publish(to: &str, token: &str, number: u64) -> reqwest::Result<()> {
    let event = json!({"topic": "a.b", "data": {"n": number}});
    let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build()?;
    let url = format!("{to}/api/v1/publish");
    http.post(url).bearer_auth(token).json(&event).send().await?.error_for_status().map(drop)
}

/// A socket through the proxy, opened as a page that came through it does.
async fn subscriber(proxy: &Proxy, token: &str) -> Client {
    let origin = proxy.url("");
    let headers = [PROTOCOL, ("origin", origin.as_str())];
    let mut client = eventually("a socket through the proxy", async || {
        Client::open(proxy.address, "/ws/real-time", &headers).await.ok()
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
    let proxy = Proxy::before(addresses);

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
