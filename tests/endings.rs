//! How connections end: nobody loses an answer, and nobody is reset who may be told.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{DEADLINE, hub::TestHub, process::Home};

async fn connect(hub: &TestHub) -> TcpStream {
    TcpStream::connect(hub.address()).await.unwrap()
}

/// The head of a request that has a body of `length` bytes.
fn head(hub: &TestHub, path: &str, key: &str, length: usize) -> String {
    let host = hub.address();
    let key = if key.is_empty() { String::new() } else { format!("x-api-key: {key}\r\n") };
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\n{key}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}

/// All that comes until the other side closes; a reset is an error.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap().expect("a reset");
    String::from_utf8(answer).unwrap()
}

/// One answer with a body of a known length.
async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = async {
        loop {
            answer.push(stream.read_u8().await.expect("no answer"));
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.is_some_and(|length| length.parse() == Ok(body.len())) {
                break;
            }
        }
    };
    timeout(DEADLINE, reading).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_post_followed_by_a_half_close_was_stored_and_not_answered() {
    let hub = TestHub::start().await;
    let body = json!({"topic": "a.b", "data": 1}).to_string();
    let request = head(&hub, "/api/v1/publish", &hub.token("ada", &["a.*"]), body.len()) + &body;
    for _ in 0..3 {
        let mut stream = connect(&hub).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("position"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_a_half_close_cuts_off_is_refused() {
    let hub = TestHub::start().await;
    let mut stream = connect(&hub).await;
    let head = head(&hub, "/api/v1/publish", &hub.token("ada", &["a.*"]), 1000);
    stream.write_all(format!("{head}{{\"topic\"").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn early_refusals_of_large_bodies_reached_clients_as_resets() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    for (path, key, status) in [
        ("/api/v1/publish", "", 401),
        ("/no/such/path", "", 404),
        ("/api/v1/publish", token.as_str(), 413),
    ] {
        let body = vec![b' '; 12 << 20];
        let mut stream = connect(&hub).await;
        stream.write_all(head(&hub, path, key, body.len()).as_bytes()).await.unwrap();
        // As many clients do: all of the body first, then the answer.
        stream.write_all(&body).await.unwrap_or_else(|error| panic!("{status}: {error}"));
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    // After a small one the connection goes on.
    let mut stream = connect(&hub).await;
    for _ in 0..2 {
        let body = " ".repeat(20_000);
        let request = head(&hub, "/api/v1/publish", "", body.len()) + &body;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn an_agent_that_posts_every_ten_seconds_lost_its_connection_unannounced() {
    let hub = TestHub::with(&[("http.header_timeout", "200ms")]).await;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", hub.address());
    let mut agent = connect(&hub).await;
    agent.write_all(request.as_bytes()).await.unwrap();
    answer(&mut agent).await;
    // Who comes after it and says nothing, or only half, is gone meanwhile.
    for text in ["", &request[..20]] {
        let mut slow = connect(&hub).await;
        slow.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut slow).await, "");
    }
    agent.write_all(request.as_bytes()).await.unwrap();
    assert!(answer(&mut agent).await.starts_with("HTTP/1.1 200"));
    // Half a request is no reason to wait longer.
    agent.write_all(&request.as_bytes()[..20]).await.unwrap();
    assert_eq!(rest(&mut agent).await, "");
}

#[tokio::test]
async fn an_idle_connection_ends_in_good_order() {
    let hub = TestHub::with(&[("http.idle_timeout", "100ms")]).await;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", hub.address());
    let mut one = connect(&hub).await;
    one.write_all(request.as_bytes()).await.unwrap();
    assert!(rest(&mut one).await.starts_with("HTTP/1.1 200"));

    // RFC 9113: SETTINGS, then GET / with indexed headers and a literal :authority.
    let mut two = connect(&hub).await;
    let headers = *b"\x82\x86\x84\x01\x09localhost";
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend([0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend(headers);
    two.write_all(&bytes).await.unwrap();
    let mut kinds = Vec::new();
    let reading = async {
        loop {
            let mut head = [0; 9];
            if two.read_exact(&mut head).await.is_err() {
                break;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            two.read_exact(&mut payload).await.unwrap();
            kinds.push(head[3]);
            const PING: u8 = 6;
            if head[3] == PING && head[4] == 0 {
                head[4] = 1; // as peers must
                two.write_all(&[&head[..], &payload].concat()).await.unwrap();
            }
        }
    };
    timeout(DEADLINE, reading).await.expect("it does not end");
    const HEADERS: u8 = 1;
    const GOAWAY: u8 = 7;
    assert!(kinds.contains(&HEADERS) && kinds.contains(&GOAWAY), "{kinds:?}");
}

#[tokio::test]
async fn clients_that_reset_their_connections_filled_the_log_with_warnings() {
    let home = Home::new("");
    let mut hub = home.start().await;
    let token = home.token("ada", "a.*");
    let warnings = || home.log().lines().filter(|line| line.contains("WARN")).count();
    let before = warnings();
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut streams = Vec::new();
    for (request, is_answered) in [
        ("GET / HT".to_owned(), false),
        (
            format!(
                "POST /api/v1/publish HTTP/1.1\r\nhost: localhost\r\nx-api-key: {token}\r\ncontent-length: 99\r\n\r\n{{"
            ),
            false,
        ),
        (
            format!(
                "GET /sse/real-time?topics=a.* HTTP/1.1\r\nhost: localhost\r\nx-api-key: {token}\r\n\r\n"
            ),
            true,
        ),
        (
            format!(
                "GET /ws/real-time?topics=a.* HTTP/1.1\r\nhost: localhost\r\nx-api-key: {token}\r\n{upgrade}\r\n"
            ),
            true,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(), true),
    ] {
        let mut stream = TcpStream::connect(hub.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        if is_answered {
            timeout(DEADLINE, stream.read_u8()).await.expect("no answer").unwrap();
        }
        stream.set_zero_linger().unwrap();
        streams.push(stream);
    }
    drop(streams);
    crate::support::signal(hub.id(), "TERM");
    hub.ends().await;
    assert_eq!(warnings(), before, "{}", home.log());
}

#[tokio::test]
async fn asking_for_the_head_of_a_stream_left_a_connection_that_cut_off_the_next_answer() {
    let hub = TestHub::start().await;
    let token = hub.token("ada", &["a.*"]);
    let mut stream = connect(&hub).await;
    let head = format!(
        "HEAD /sse/real-time?topics=a.* HTTP/1.1\r\nhost: {}\r\nx-api-key: {token}\r\n\r\n",
        hub.address()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(hub.metric("pulsehub_connections").await, 0.0, "nobody reads it");
}

#[tokio::test]
async fn a_refused_upload_was_invited_to_send_all_of_its_body() {
    const GO_ON: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    let hub = TestHub::start().await;
    let body = json!({"topic": "a.b", "data": "x".repeat(2 << 20)}).to_string();
    let token = hub.token("ada", &["a.*"]);
    let asking = |key: &str| {
        head(&hub, "/api/v1/publish", key, body.len())
            .replace("content-type", "expect: 100-continue\r\ncontent-type")
    };
    let mut refused = connect(&hub).await;
    refused.write_all(asking("").as_bytes()).await.unwrap();
    let answer = rest(&mut refused).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // Who is let in still is invited.
    let mut invited = connect(&hub).await;
    invited.write_all(asking(&token).as_bytes()).await.unwrap();
    let mut word = vec![0; GO_ON.len()];
    timeout(DEADLINE, invited.read_exact(&mut word)).await.expect("no invitation").unwrap();
    assert_eq!(String::from_utf8_lossy(&word), GO_ON);
    invited.write_all(body.as_bytes()).await.unwrap();
    let answer = self::answer(&mut invited).await;
    assert!(answer.contains("event_too_large"), "{answer}");
}
