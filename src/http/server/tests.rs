//! The accept loop over real sockets on port 0.

use axum::{
    Router,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};

use super::*;
use crate::http::Network;

/// The longest any condition is waited for; long, for a slow machine must not fail a test.
const DEADLINE: Duration = Duration::from_secs(30);

struct Running {
    address: SocketAddr,
    telemetry: Telemetry,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn options() -> Options {
    Options {
        max_connections: 10,
        max_per_address: 10,
        max_headers: 20,
        trusted_proxies: [].into(),
        proxy_protocol: false,
        idle_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(30),
        header_timeout: Duration::from_secs(20),
        drain: Duration::from_secs(20),
    }
}

async fn start(options: Options, router: Router) -> Running {
    start_with(options, Answers::new(router)).await
}

async fn start_with(options: Options, answers: Answers) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = Running {
        address: listener.local_addr().unwrap(),
        telemetry: Telemetry::new(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    let (telemetry, tasks) = (running.telemetry.clone(), running.tasks.clone());
    running.tasks.spawn(serve(listener, answers, options, telemetry, tasks, running.stop.clone()));
    running
}

fn hello() -> Router {
    async fn peer(request: Request) -> String {
        request.extensions().get::<ClientConnection>().unwrap().client.ip().to_string()
    }
    let known = async |request: Request| {
        request.extensions().get::<ClientConnection>().unwrap().slot.know();
    };
    Router::new()
        .route("/", get(peer))
        .route("/", post(async || "posted"))
        .route("/known", get(known))
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `text` and reads what comes until the other side closes.
    async fn talk(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        rest(stream).await
    }

    fn hits(&self, limit: &str) -> bool {
        let label = format!("limit=\"{limit}\"");
        self.telemetry.openmetrics().unwrap().contains(&label)
    }
}

async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

const CLOSING: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const KEEPING: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_request_knows_its_peer() {
    let server = start(options(), hello()).await;
    let answer = server.talk(CLOSING).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
}

/// Behind a proxy on this machine that says whose connections it passes on.
fn behind_a_proxy() -> Options {
    let here = Network::try_from("127.0.0.0/8".to_owned()).unwrap();
    Options { trusted_proxies: [here].into(), ..options() }
}

#[tokio::test]
async fn a_proxys_address_was_everybodys() {
    let server = start(behind_a_proxy(), hello()).await;
    let forwarded = CLOSING.replace("host", "X-Forwarded-For: 9.9.9.9, 192.0.2.7\r\nhost");
    assert!(server.talk(&forwarded).await.ends_with("\r\n\r\n192.0.2.7"));
    // Who is not trusted says it of themselves.
    let server = start(options(), hello()).await;
    assert!(server.talk(&forwarded).await.ends_with("\r\n\r\n127.0.0.1"));
}

#[tokio::test]
async fn a_trusted_proxy_says_before_the_first_byte_whose_connection_it_is() {
    let options = Options { proxy_protocol: true, ..behind_a_proxy() };
    let server = start(options, hello()).await;
    let head =
        "\r\n\r\n\0\r\nQUIT\n\u{21}\u{11}\0\u{c}\u{1}\u{2}\u{3}\u{4}\u{7f}\0\0\u{1}\0\u{9}\0\u{50}";
    assert!(server.talk(&format!("{head}{CLOSING}")).await.ends_with("\r\n\r\n1.2.3.4"));
    let mut bare = server.connect().await;
    bare.write_all(CLOSING.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Closed with bytes unread, which may be a reset.
    let _ = timeout(DEADLINE, bare.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"", "without the header nothing is answered");
}

#[tokio::test]
async fn a_proxys_connections_count_for_those_they_are_of() {
    let options = Options { proxy_protocol: true, max_per_address: 1, ..behind_a_proxy() };
    let server = start(options, hello()).await;
    let of = |last: char, request: &str| {
        let address = format!("\u{1}\u{2}\u{3}{last}\u{7f}\0\0\u{1}\0\u{9}\0\u{50}");
        format!("\r\n\r\n\0\r\nQUIT\n\u{21}\u{11}\0\u{c}{address}{request}")
    };
    let mut first = server.connect().await;
    let known = KEEPING.replace("GET /", "GET /known");
    first.write_all(of('\u{4}', &known).as_bytes()).await.unwrap();
    first.read_u8().await.unwrap(); // it is in, and nobody takes its place
    assert!(server.talk(&of('\u{4}', CLOSING)).await.starts_with("HTTP/1.1 429"));
    assert!(server.talk(&of('\u{5}', CLOSING)).await.ends_with("\r\n\r\n1.2.3.5"));
}

#[tokio::test]
async fn who_finds_no_room_is_told_when_to_come_back() {
    let server = start(Options { max_connections: 1, ..behind_a_proxy() }, hello()).await;
    let mut first = server.connect().await;
    first.write_all(KEEPING.replace("GET /", "GET /known").as_bytes()).await.unwrap();
    first.read_u8().await.unwrap(); // it is in
    let answer = server.talk(CLOSING).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 5"), "{answer}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "overloaded");
    assert!(server.hits("connections"));
    drop(first);
    let room = async {
        while !server.talk(CLOSING).await.starts_with("HTTP/1.1 200") {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, room).await.unwrap();
}

#[tokio::test]
async fn a_slot_outlives_its_connection_with_who_took_it() {
    let taken: Arc<parking_lot::Mutex<Option<ClientConnection>>> = Arc::default();
    let take = {
        let taken = taken.clone();
        async move |request: Request| {
            let connection = request.extensions().get::<ClientConnection>().cloned().unwrap();
            connection.slot.know();
            *taken.lock() = Some(connection);
        }
    };
    let router = Router::new().route("/", get(take));
    let server = start(Options { max_connections: 1, ..behind_a_proxy() }, router).await;
    assert!(server.talk(CLOSING).await.starts_with("HTTP/1.1 200"));
    assert!(server.talk(CLOSING).await.starts_with("HTTP/1.1 503"));
    taken.lock().take();
    let room = async { while !server.talk(CLOSING).await.starts_with("HTTP/1.1 200") {} };
    timeout(DEADLINE, room).await.unwrap();
}

#[tokio::test]
async fn who_says_nothing_or_only_half_is_not_waited_for() {
    let options = Options { header_timeout: Duration::from_millis(50), ..options() };
    let server = start(options, hello()).await;
    for text in ["", "P", "GET / HTTP/1.1\r\nhost", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        assert!(!server.talk(text).await.contains("200"), "{text:?}");
    }
}

#[tokio::test]
async fn too_many_header_lines_are_refused() {
    let server = start(options(), hello()).await;
    let lines: String = (0..21).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = server.talk(&format!("GET / HTTP/1.1\r\n{lines}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    timeout(DEADLINE, async {
        while !server.hits("headers") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn strangers_filled_memory_with_headers_four_times_as_long_as_any_token() {
    let server = start(options(), hello()).await;
    let asking = |length| CLOSING.replace("host", &format!("x-y: {}\r\nhost", "z".repeat(length)));
    let answer = server.talk(&asking(9 << 10)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "the longest token fits: {answer}");
    // Held back for its last bytes, it may be no longer than this: what comes behind it is not read.
    let mut stream = server.connect().await;
    stream.write_all(&asking(30 << 10).as_bytes()[..17 << 10]).await.unwrap();
    let mut answer = [0; 12];
    timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("no answer").unwrap();
    assert_eq!(std::str::from_utf8(&answer).unwrap(), "HTTP/1.1 431");
}

#[tokio::test]
async fn a_stop_lets_requests_under_way_end_and_idle_connections_go() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        async move || {
            begun.notify_one();
            go_on.notified().await;
            "done"
        }
    };
    let server = start(options(), Router::new().route("/", get(slow))).await;
    let idle = server.connect().await;
    let mut busy = server.connect().await;
    busy.write_all(KEEPING.as_bytes()).await.unwrap();
    begun.notified().await;
    server.stop.cancel();
    assert_eq!(rest(idle).await, "");
    go_on.notify_one();
    assert!(rest(busy).await.ends_with("done"));
    server.tasks.close();
    timeout(DEADLINE, server.tasks.wait()).await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off() {
    let begun = Arc::new(Notify::new());
    let never = {
        let begun = begun.clone();
        async move || {
            begun.notify_one();
            std::future::pending::<()>().await;
        }
    };
    let options = Options { drain: Duration::from_millis(20), ..options() };
    let server = start(options, Router::new().route("/", get(never))).await;
    let mut stuck = server.connect().await;
    stuck.write_all(KEEPING.as_bytes()).await.unwrap();
    begun.notified().await;
    server.stop.cancel();
    assert_eq!(rest(stuck).await, "");
    server.tasks.close();
    timeout(DEADLINE, server.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_left_stops_its_question_but_not_what_it_sent() {
    struct Dropped(Arc<Notify>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (begun, dropped, go_on) = <(Arc<Notify>, Arc<Notify>, Arc<Notify>)>::default();
    let slow = {
        let (begun, dropped, go_on) = (begun.clone(), dropped.clone(), go_on.clone());
        async move || {
            let _dropped = Dropped(dropped);
            begun.notify_one();
            go_on.notified().await;
            "done"
        }
    };
    let server = start(options(), Router::new().route("/", get(slow.clone()).post(slow))).await;
    let mut asking = server.connect().await;
    asking.write_all(KEEPING.as_bytes()).await.unwrap();
    begun.notified().await;
    asking.shutdown().await.unwrap();
    timeout(DEADLINE, dropped.notified()).await.expect("the question goes on");
    let mut sending = server.connect().await;
    sending.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    begun.notified().await;
    sending.shutdown().await.unwrap();
    // Another connection's question, so that the end was surely seen.
    assert!(server.talk("GET /x HTTP/1.1\r\nconnection: close\r\n\r\n").await.contains("404"));
    go_on.notify_one();
    assert!(rest(sending).await.ends_with("done"));
}

/// What a client of HTTP/2 says first, with empty settings (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn a_refusal_of_head_over_http2_had_a_body() {
    const HEADERS: u8 = 1;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    // HEAD / over http; the method is not in the static table of HPACK.
    let head = b"\x02\x04HEAD\x86\x84\x01\x01x";
    let refusing = tower::service_fn(async |_: Request| Ok(Response::new(Body::from("refused"))));
    let server = start_with(options(), Answers::new(refusing)).await;
    let mut stream = server.connect().await;
    let asked = frame(HEADERS, END_HEADERS | END_STREAM, 1, head);
    stream.write_all(&[PREFACE, &asked].concat()).await.unwrap();
    loop {
        let mut start = [0; 9];
        timeout(DEADLINE, stream.read_exact(&mut start)).await.expect("it hangs").unwrap();
        let [_, high, low, kind, flags, ..] = start;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        stream.read_exact(&mut payload).await.unwrap();
        if kind == HEADERS {
            assert_eq!(flags & END_STREAM, END_STREAM, "what follows is a body");
            break;
        }
    }
}

#[tokio::test]
async fn http2_frames_without_end_end_their_connection() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;
    const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;
    const ENHANCE_YOUR_CALM: u32 = 11;
    // POST / over http, as the static table of HPACK has them.
    let post = b"\x83\x86\x84\x01\x01x";
    let open = frame(HEADERS, END_HEADERS, 1, post);
    let resets = (0..200).flat_map(|n| {
        let reset = frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]);
        [frame(HEADERS, END_HEADERS, 2 * n + 1, post), reset].concat()
    });
    let continuations = frame(CONTINUATION, 0, 1, b"").repeat(100);
    for (what, frames) in [
        ("resets", resets.collect()),
        ("continuations", [frame(HEADERS, 0, 1, post), continuations].concat()),
        ("empty data", [open, frame(DATA, 0, 1, b"").repeat(5000)].concat()),
    ] {
        let server = start(options(), hello()).await;
        let mut stream = server.connect().await;
        stream.write_all(&[PREFACE, &frames].concat()).await.unwrap();
        let mut answer = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect(what).unwrap();
        let mut reason = None;
        let mut rest = &answer[..];
        while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
            let (payload, after) = after.split_at(u32::from_be_bytes([0, *a, *b, *c]) as usize);
            if *kind == GOAWAY {
                reason = payload[4..].first_chunk().map(|code| u32::from_be_bytes(*code));
            }
            rest = after;
        }
        assert_eq!(reason, Some(ENHANCE_YOUR_CALM), "{what}");
    }
}
