//! The floor: what it costs to write a ready-made frame to each socket with one `send()`, and nothing else.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::mpsc::{self, Receiver},
};

use anyhow::{Context as _, Result, bail};

use super::{Ack, Dialect, Event, Heard, PATIENCE, Seat, Site, Started, http};
use crate::{
    frame::{self, Frame},
    process::Process,
};

/// Runs the floor in this process until it is ended: subscribers ask for a WebSocket, one publisher sends payloads.
pub(crate) fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    println!("listening on {}", listener.local_addr()?);
    let (seats, taken) = mpsc::channel();
    let mut taken = Some(taken);
    for stream in listener.incoming() {
        let mut stream = stream.context("cannot accept")?;
        stream.set_nodelay(true)?;
        if is_subscriber(&stream)? {
            let accept = http::ACCEPT;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(answer.as_bytes())?;
            seats.send(stream)?;
        } else {
            let taken = taken.take().context("a second publisher")?;
            std::thread::spawn(move || {
                if let Err(error) = fan_out(stream, &taken) {
                    eprintln!("the floor's publisher ended: {error:#}");
                }
            });
        }
    }
    Ok(())
}

/// Reads the head of the request, byte by byte: what follows belongs to others.
fn is_subscriber(mut stream: &TcpStream) -> Result<bool> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("a request broke off")?;
        head.push(byte[0]);
        if head.len() > 8192 {
            bail!("a request without end");
        }
    }
    Ok(head.starts_with(b"GET "))
}

/// Each message is its length and a payload; each is acknowledged when it is written to everybody.
fn fan_out(publisher: TcpStream, taken: &Receiver<TcpStream>) -> Result<()> {
    let mut answers = publisher.try_clone()?;
    let mut messages = BufReader::with_capacity(1 << 20, publisher);
    let mut seats: Vec<TcpStream> = Vec::new();
    while !messages.fill_buf()?.is_empty() {
        let mut length = [0; 4];
        messages.read_exact(&mut length)?;
        let mut payload = vec![0; u32::from_be_bytes(length) as usize];
        messages.read_exact(&mut payload)?;
        seats.extend(taken.try_iter());
        let frame = frame::from_server(frame::TEXT, &payload);
        for seat in &mut seats {
            seat.write_all(&frame).context("a subscriber left")?;
        }
        answers.write_all(b"k")?;
    }
    Ok(())
}

/// Starts this very program as the floor.
pub(super) fn start(site: &Site, folder: &Path) -> Result<Started> {
    let mut command = Command::new(std::env::current_exe().context("no path of this program")?);
    command.arg("floor");
    let mut process = Process::start(&command, site.core, &folder.join("log"))?;
    let address = process.wait_for("listening on ", PATIENCE)?;
    let address: SocketAddr = address.parse().context("the floor's address")?;
    Ok(Started::alone(address, address, process, Floor))
}

struct Floor;

impl Dialect for Floor {
    fn upgrade(&self, _: &Seat) -> Vec<u8> {
        http::upgrade("/", "")
    }

    fn join(&self, _: &Seat) -> Option<Vec<u8>> {
        None
    }

    fn hear(&self, _: &Frame<'_>) -> Heard {
        Heard::Events
    }

    fn greet(&self) -> Vec<u8> {
        b"POST / HTTP/1.1\r\n\r\n".to_vec()
    }

    /// The frame is what the hub would send, so that both write the same bytes.
    fn publish(&self, events: &[Event], out: &mut Vec<u8>) -> usize {
        let last = events.last().map_or(0, |event| event.mark.number);
        let mut payload =
            format!(r#"{{"type":"events","sub":"a","position":"3f9a1b2c:{last}","events":["#);
        for (index, event) in events.iter().enumerate() {
            let Event { topic, mark, bytes, .. } = event;
            payload.push_str(if index == 0 { "" } else { "," });
            payload.push_str(&format!(
                r#"{{"offset":{},"topic":"{topic}","id":"{:x}-{:x}","source":"publisher","type":"load","time":"2026-11-20T12:00:00.123Z","data":{}}}"#,
                mark.number, mark.stream, mark.number, mark.payload(*bytes)
            ));
        }
        payload.push_str("]}");
        out.extend((payload.len() as u32).to_be_bytes());
        out.extend(payload.as_bytes());
        1
    }

    fn acknowledged(&self, bytes: &[u8]) -> Result<Option<Ack>> {
        Ok((!bytes.is_empty()).then_some(Ack { length: 1, count: 1, body: Vec::new(), reply: b"" }))
    }
}
