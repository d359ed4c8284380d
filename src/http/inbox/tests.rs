//! The inbox on a real stream, with frames written by hand.

use std::{future::poll_fn, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use super::*;

/// The longest any condition is waited for; long, for a slow machine must not fail a test.
const DEADLINE: Duration = Duration::from_secs(30);
const LIMIT: usize = 70_000;

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const CONTINUES: u8 = 0x00;
const TEXT_ENDS: u8 = 0x80;
const PING: u8 = 0x89;

struct Pair {
    client: TcpStream,
    server: TcpStream,
    inbox: Inbox,
}

impl Pair {
    async fn new(read: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        Self { client, server, inbox: Inbox::new(read.to_vec(), LIMIT) }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }

    async fn next(&mut self) -> Arrival {
        let next = poll_fn(|cx| self.inbox.poll_next(&self.server, cx));
        timeout(DEADLINE, next).await.unwrap()
    }

    async fn text(&mut self) -> String {
        text(self.next().await)
    }

    /// The texts that can be read without waiting.
    async fn texts(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        poll_fn(|cx| {
            while let Poll::Ready(next) = self.inbox.poll_next(&self.server, cx) {
                texts.push(text(next));
            }
            Poll::Ready(())
        })
        .await;
        texts
    }
}

fn text(incoming: Arrival) -> String {
    match incoming {
        Arrival::Text(text) => text.to_string(),
        _ => panic!("something else came"),
    }
}

/// A frame as a client sends it, under a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn holds_nothing_between_messages_of_any_length() {
    let mut pair = Pair::new(b"").await;
    for length in [0, 1, 125, 126, 5_000, 60_000, 65_536, LIMIT] {
        let sent = "x".repeat(length);
        pair.send(&frame(TEXT, sent.as_bytes())).await;
        assert_eq!(pair.text().await, sent);
        assert!(pair.texts().await.is_empty());
        assert!(pair.inbox.reader.is_none(), "after {length} bytes");
    }
}

#[tokio::test]
async fn keeps_what_has_come_of_a_message() {
    let second = [frame(TEXT_BEGINS, b"sec"), frame(TEXT_ENDS, b"ond")].concat();
    let whole = [frame(TEXT, b"first"), second].concat();
    let (read, rest) = whole.split_at(3); // came with the upgrade
    let mut pair = Pair::new(read).await;
    let mut texts = pair.texts().await;
    for byte in rest {
        assert!(!texts.contains(&"second".to_owned()));
        pair.send(&[*byte]).await;
        timeout(DEADLINE, pair.server.readable()).await.unwrap().unwrap();
        texts.extend(pair.texts().await);
    }
    while texts.len() < 2 {
        texts.push(pair.text().await); // the last bytes may still be on their way
    }
    assert_eq!(texts, ["first", "second"]);
}

#[tokio::test]
async fn frames_without_end_take_one_turn_at_a_time() {
    const COUNT: u32 = 20_000;
    let pair = Pair::new(b"").await;
    let mut bytes = frame(TEXT_BEGINS, b"x");
    bytes.extend(frame(CONTINUES, b"").repeat(COUNT as usize - 1));
    let Pair { mut client, server, mut inbox } = pair;
    let sending = tokio::spawn(async move {
        client.write_all(&bytes).await.unwrap();
        client
    });
    let mut all = 0;
    while all < COUNT {
        let turn = poll_fn(|cx| {
            assert!(inbox.poll_next(&server, cx).is_pending());
            match inbox.take_fragments() {
                0 => Poll::Pending,
                fragments => Poll::Ready(fragments),
            }
        });
        let fragments = timeout(DEADLINE, turn).await.unwrap();
        assert!(
            fragments as usize <= (usize::from(TURN) + READ_BUFFER) / SHORT_HEADER,
            "{fragments} in a turn"
        );
        all += fragments;
    }
    assert_eq!(all, COUNT);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_ping_is_answered_before_the_reader_goes() {
    let mut pair = Pair::new(b"").await;
    pair.send(&frame(PING, b"hey")).await;
    assert!(matches!(pair.next().await, Arrival::Control));
    pair.inbox.flush(&pair.server).unwrap();
    let mut answer = [0; 5];
    timeout(DEADLINE, pair.client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"\x8a\x03hey");
    assert!(pair.texts().await.is_empty());
    assert!(pair.inbox.reader.is_none());
}
