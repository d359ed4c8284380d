//! The peer nats-server, from the Debian package of that name, with its WebSocket.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{Ack, Dialect, Event, Heard, Seat, Site, Started, http};
use crate::{
    frame::{self, Frame},
    process::Process,
};

const PROGRAM: &str = "/usr/sbin/nats-server";

pub(super) fn missing() -> Option<&'static str> {
    (!Path::new(PROGRAM).exists()).then_some("not installed: apt-get install nats-server")
}

/// Starts nats-server with `peers/nats.conf`. Subscribers use its WebSocket, the publisher its own protocol.
pub(super) fn start(site: &Site, folder: &Path) -> Result<Started> {
    let (address, other) = (super::free_address()?, super::free_address()?);
    let config = include_str!("../../peers/nats.conf")
        .replace("{websocket_port}", &address.port().to_string())
        .replace("{port}", &other.port().to_string());
    let file = folder.join("nats.conf");
    std::fs::write(&file, config).context("cannot write nats-server's settings")?;
    let mut command = Command::new(PROGRAM);
    command.arg("--config").arg(&file);
    let mut process = Process::start(&command, site.core, &folder.join("log"))?;
    super::wait_until_open(&mut process, address)?;
    super::wait_until_open(&mut process, other)?;
    Ok(Started::alone(address, other, process, Nats))
}

struct Nats;

impl Dialect for Nats {
    fn upgrade(&self, _: &Seat) -> Vec<u8> {
        http::upgrade("/", "")
    }

    fn join(&self, seat: &Seat) -> Option<Vec<u8>> {
        let text = format!("CONNECT {{\"verbose\":false}}\r\nSUB {} 1\r\nPING\r\n", seat.topics[0]);
        Some(frame::from_client(frame::BINARY, text.as_bytes()))
    }

    fn hear(&self, frame: &Frame<'_>) -> Heard {
        match frame.payload {
            [b'M', b'S', b'G', ..] => Heard::Events,
            [b'P', b'O', b'N', b'G', ..] => Heard::Live,
            [b'P', b'I', b'N', b'G', ..] => {
                Heard::Answer(frame::from_client(frame::BINARY, b"PONG\r\n"))
            }
            [b'I', b'N', b'F', b'O', ..] => Heard::Nothing,
            other => Heard::Broken(other.escape_ascii().to_string()),
        }
    }

    fn greet(&self) -> Vec<u8> {
        b"CONNECT {\"verbose\":false}\r\n".to_vec()
    }

    /// A PING behind the events is answered when they were taken.
    fn publish(&self, events: &[Event], out: &mut Vec<u8>) -> usize {
        for event in events {
            let payload = event.mark.payload(event.bytes);
            let line = format!("PUB {} {}\r\n{payload}\r\n", event.topic, payload.len());
            out.extend(line.as_bytes());
        }
        out.extend(b"PING\r\n");
        1
    }

    fn acknowledged(&self, bytes: &[u8]) -> Result<Option<Ack>> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n") else { return Ok(None) };
        let (count, reply): (_, &[u8]) = match &bytes[..end] {
            b"PONG" => (1, b""),
            b"PING" => (0, b"PONG\r\n"),
            [b'I', b'N', b'F', b'O', ..] => (0, b""),
            other => bail!("nats-server said {}", other.escape_ascii()),
        };
        Ok(Some(Ack { length: end + 2, count, body: Vec::new(), reply }))
    }
}
