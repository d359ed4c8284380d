//! Peers that ask and take nothing of the answer: each is cut off, and nobody waits for it.

use pulsehub::{auth::ApiKeys, store::Store};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{DEADLINE, eventually, hub::TestHub};

const HITS: &str = "pulsehub_limit_hits_total{limit=\"write_timeout\"}";
const PAGE: &str = "/api/v1/history?topics=a.*&after=0&limit=1000";

/// More than the system keeps for a connection whose peer reads nothing.
async fn fill(hub: &TestHub) {
    let load = "x".repeat(200_000);
    for _ in 0..6 {
        let events: Vec<_> = (0..10).map(|_| json!({"topic": "a.b", "data": load})).collect();
        hub.publish(events.into()).await;
    }
}

/// A connection with little room for what it does not read.
async fn connect(hub: &TestHub) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    timeout(DEADLINE, socket.connect(hub.address())).await.unwrap().unwrap()
}

/// Asks over HTTP/1 and reads nothing.
async fn ask(hub: &TestHub, path: &str, key: &str) -> TcpStream {
    let mut stream = connect(hub).await;
    let host = hub.address();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// How much comes until the other side ends the connection.
async fn rest(mut stream: TcpStream) -> usize {
    let (mut all, mut buffer) = (0, vec![0; 64 << 10]);
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            all += count;
        }
    };
    timeout(DEADLINE, reading).await.expect("the connection does not end");
    all
}

#[tokio::test]
async fn a_page_nobody_takes_is_cut_off() {
    let hub = TestHub::with(&[("http.write_timeout", "300ms")]).await;
    fill(&hub).await;
    let stuck = ask(&hub, PAGE, &hub.token("ada", &["a.*"])).await;
    hub.metric_becomes_at_least(HITS, 1.0).await;
    let taken = rest(stuck).await;
    assert!(taken < 8_000_000, "{taken} bytes: the page came whole");
}

#[tokio::test]
async fn small_answers_that_nobody_takes_end_their_connection() {
    let hub = TestHub::with(&[("http.write_timeout", "300ms")]).await;
    let topics = (0..12).map(|n| json!({"topic": format!("a.{n}{}", "x".repeat(150))}));
    hub.publish(topics.collect::<Vec<_>>().into()).await;
    // Each goes out in one piece: what waits is in the connection's buffer, and no body waits to be asked for more.
    let (host, key) = (hub.address(), hub.token("ada", &["a.*"]));
    let request =
        format!("GET /api/v1/topics HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n\r\n");
    let (requests, mut stuck) = (request.repeat(50), connect(&hub).await);
    let asking = async { while stuck.write_all(requests.as_bytes()).await.is_ok() {} };
    timeout(DEADLINE, asking).await.expect("the connection does not end");
    assert_eq!(hub.metric(HITS).await, 1.0);
}

#[tokio::test]
async fn a_stalled_stream_outlived_its_token() {
    let hub = TestHub::with(&[("http.write_timeout", "1h")]).await;
    fill(&hub).await;
    let token = hub.token_for("ada", &["a.*"], None, 2);
    let stuck = ask(&hub, "/sse/real-time?topics=a.*&last=1000", &token).await;
    hub.metric_becomes("pulsehub_connections", 1.0).await;
    hub.metric_becomes("pulsehub_connections", 0.0).await;
    assert!(rest(stuck).await < 12_000_000);
}

#[tokio::test]
async fn a_stalled_stream_outlived_its_revoked_key() {
    let hub = TestHub::with(&[("http.write_timeout", "1h")]).await;
    fill(&hub).await;
    let (id, key) = hub.make_key("shop", &["a.*"]).await;
    let stuck = ask(&hub, "/sse/real-time?topics=a.*&last=1000", &key).await;
    hub.metric_becomes("pulsehub_connections", 1.0).await;
    hub.metric_becomes_at_least("pulsehub_deliveries_total", 5.0).await;
    let store = Store::open(&hub.data(), pulsehub::time::Clock::system()).unwrap();
    assert!(ApiKeys::new(&store).revoke(&id).await.unwrap());
    hub.metric_becomes("pulsehub_connections", 0.0).await;
    assert!(rest(stuck).await < 12_000_000);
}

#[tokio::test]
async fn a_stalled_stream_held_up_a_stop() {
    let mut hub = TestHub::with(&[("http.write_timeout", "1h"), ("http.drain", "10m")]).await;
    fill(&hub).await;
    let stuck = ask(&hub, "/sse/real-time?topics=a.*&last=1000", &hub.token("ada", &["a.*"])).await;
    hub.metric_becomes_at_least("pulsehub_deliveries_total", 5.0).await;
    hub.stop().await;
    assert!(rest(stuck).await < 12_000_000);
}

/// Just enough of HTTP/2 (RFC 9113) to ask and to leave unread.
struct H2(TcpStream);

impl H2 {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const END: u8 = 0x4 | 0x1; // of the headers and of the stream

    /// With a window of so many bytes for every stream.
    async fn open(hub: &TestHub, window: u8) -> Self {
        let mut h2 = Self(TcpStream::connect(hub.address()).await.unwrap());
        h2.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        h2.send(Self::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window]).await;
        h2
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    async fn get(&mut self, stream: u32, path: &str, key: &str) {
        let mut block = Vec::new();
        let headers = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
            ("x-api-key", key),
        ];
        for (name, value) in headers {
            // A literal without indexing (RFC 7541 section 6.2.2).
            block.push(0);
            for text in [name, value] {
                match text.len() {
                    short @ 0..127 => block.push(short as u8),
                    long => {
                        let rest = long - 127;
                        block.push(127);
                        if rest < 128 {
                            block.push(rest as u8);
                        } else {
                            block.extend([(rest % 128) as u8 | 128, (rest / 128) as u8]);
                        }
                    }
                }
                block.extend(text.as_bytes());
            }
        }
        self.send(Self::HEADERS, Self::END, stream, &block).await;
    }

    /// The next frame of this kind on this stream, if it comes.
    async fn expect(&mut self, kind: u8, stream: u32) -> Vec<u8> {
        let reading = async {
            loop {
                let mut head = [0; 9];
                self.0.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                self.0.read_exact(&mut payload).await.unwrap();
                let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                assert!(head[3] != Self::DATA || length <= 100, "data came through no window");
                if (head[3], of) == (kind, stream) {
                    return payload;
                }
            }
        };
        timeout(DEADLINE, reading).await.expect("the frame does not come")
    }
}

#[tokio::test]
async fn an_http2_stream_without_a_window_is_reset_and_the_others_go_on() {
    let hub = TestHub::with(&[("http.write_timeout", "300ms")]).await;
    hub.publish_numbers("a.b", 0..10).await;
    let token = hub.token("ada", &["a.*"]);
    let mut h2 = H2::open(&hub, 0).await;
    for stream in [1, 3] {
        let path = if stream == 1 { PAGE } else { "/api/v1/topics" };
        h2.get(stream, path, &token).await;
        h2.expect(H2::HEADERS, stream).await;
        h2.expect(H2::RST_STREAM, stream).await;
    }
    assert_eq!(hub.metric(HITS).await, 2.0);
    h2.get(5, "/healthz", &token).await;
    h2.expect(H2::HEADERS, 5).await;
    eventually("its end as well", async || (hub.metric(HITS).await == 3.0).then_some(())).await;
}

#[tokio::test]
async fn an_http2_answer_of_which_a_little_is_taken_is_not_thought_gone() {
    let hub = TestHub::with(&[("http.write_timeout", "300ms")]).await;
    let events: Vec<_> = (0..10).map(|n| json!({"topic": format!("a.{n}"), "data": n})).collect();
    hub.publish(events.into()).await;
    // The answer is one piece, of which the first bytes fit: it must not count as taken whole.
    let mut h2 = H2::open(&hub, 100).await;
    h2.get(1, "/api/v1/topics", &hub.token("ada", &["a.*"])).await;
    h2.expect(H2::RST_STREAM, 1).await;
    assert_eq!(hub.metric(HITS).await, 1.0);
}

#[tokio::test]
async fn one_http2_connection_could_send_a_gigabyte_that_nobody_had_read() {
    let hub = TestHub::start().await;
    let mut h2 = H2::open(&hub, 0).await;
    let settings = h2.expect(H2::SETTINGS, 0).await;
    let window = settings.chunks(6).find(|setting| setting[..2] == [0, 4]).unwrap();
    assert_eq!(u32::from_be_bytes(window[2..].try_into().unwrap()), 128 << 10);
    const WINDOW_UPDATE: u8 = 8;
    let more = h2.expect(WINDOW_UPDATE, 0).await;
    // On top of the 65,535 that every connection begins with.
    assert_eq!(u32::from_be_bytes(more.try_into().unwrap()) + 65_535, 256 << 10);
}
