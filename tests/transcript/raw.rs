//! What comes back to bytes that no HTTP client would send, or could show.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::scene::Scene;
use crate::support::DEADLINE;

impl Scene {
    /// Sends bytes over a connection of their own, and records all that comes until it ends.
    async fn bytes(&mut self, text: &str) {
        let mut stream = TcpStream::connect(self.hub.address()).await.unwrap();
        self.tell_lines("> ", text);
        stream.write_all(text.as_bytes()).await.unwrap();
        let (head, body) = timeout(DEADLINE, answer(&mut stream)).await.expect("no whole answer");
        let head = String::from_utf8(head).unwrap();
        let mut lines: Vec<&str> = head.lines().filter(|line| !line.is_empty()).collect();
        lines.retain(|line| !line.starts_with("date: ") && !line.starts_with("content-length: "));
        lines[1..].sort_unstable();
        self.tell_lines("< ", &lines.join("\n"));
        match &*body {
            // A close frame (RFC 6455 section 5.5.1).
            [0x88, length, high, low, reason @ ..] if usize::from(*length) == reason.len() + 2 => {
                let code = u16::from_be_bytes([*high, *low]);
                self.tell(&format!("← close {code} {}", std::str::from_utf8(reason).unwrap()));
            }
            body => self.tell_lines("    ", std::str::from_utf8(body).unwrap()),
        }
        self.space();
    }
}

/// Head and body of an answer, or what comes until the connection ends.
async fn answer(stream: &mut TcpStream) -> (Vec<u8>, Vec<u8>) {
    let mut answer = Vec::new();
    loop {
        let is_over = stream.read_buf(&mut answer).await.unwrap() == 0;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let (head, body) = answer.split_at(end.unwrap_or(answer.len()));
        let text = std::str::from_utf8(head).unwrap();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let is_whole = match (length, body) {
            (Some(length), body) => body.len() >= length.parse().unwrap(),
            (None, [0x88, length, reason @ ..]) => reason.len() >= usize::from(*length),
            _ => false,
        };
        if is_over || end.is_some() && is_whole {
            return (head.to_vec(), body.to_vec());
        }
    }
}

#[tokio::test]
async fn bytes_and_what_comes_back() {
    let mut scene = Scene::start("bytes", "[limits]\nheaders = 16\n").await;
    let ada = scene.user("ada", &["a.*"]);

    scene.note("an upgrade");
    let upgrade = |more: &str| {
        format!(
            "GET /ws/real-time HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
    };
    scene.bytes(&upgrade("sec-websocket-protocol: mqtt, other\r\n")).await;
    scene
        .bytes(&upgrade("sec-websocket-protocol: hub.v1\r\norigin: https://evil.example\r\n"))
        .await;
    scene.bytes(&upgrade("").replace("version: 13", "version: 8")).await;

    scene.note("heads");
    scene.bytes("GET /healthz HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    scene.bytes("HEAD /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    scene.bytes("GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    scene
        .bytes(
            "GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: other\r\nconnection: close\r\n\r\n",
        )
        .await;
    scene.bytes("nonsense\r\n\r\n").await;
    let many: String = (0..20).map(|n| format!("x-{n}: y\r\n")).collect();
    scene.bytes(&format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}\r\n")).await;

    scene.note("a body that breaks off");
    let publish = format!(
        "POST /api/v1/publish HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\nx\r\n",
        ada.token
    );
    scene.bytes(&publish).await;

    scene.note("more connections from one address than it may have");
    scene.change("[limits]\nconnections_per_address = 1\n").await;
    let ada = scene.user("ada", &["a.*"]);
    let first = scene.connected("ada", &ada).await;
    scene.bytes("").await;
    drop(first);
    scene.end();
}
