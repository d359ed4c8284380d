//! One subscriber: connect, upgrade, join, then check what arrives.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::Tally;
use crate::{
    frame,
    mark::{Marks, now},
    server::{Dialect, Heard, Seat, upgraded},
};

/// How far a subscriber is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Upgrading,
    Joining,
    Live,
    Closed,
}

pub(super) struct Client {
    socket: TcpStream,
    phase: Phase,
    /// Received, and not a whole frame yet.
    inbox: Vec<u8>,
    /// To be sent when the socket takes it: first of all the upgrade, when it is connected.
    outbox: Vec<u8>,
    join: Option<Vec<u8>>,
    stream: u32,
    /// The number of the next event of the stream.
    next: u64,
}

impl Client {
    /// Begins to connect; the upgrade follows when the socket can be written to.
    pub(super) fn connect(address: SocketAddr, seat: &Seat, dialect: &dyn Dialect) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)
            .context("no socket (is the limit of open files too low?)")?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(nix::Error::EINPROGRESS as i32) => {
                return Err(error).context("cannot connect a subscriber");
            }
            _ => {}
        }
        Ok(Self {
            socket: socket.into(),
            phase: Phase::Upgrading,
            inbox: Vec::new(),
            outbox: dialect.upgrade(seat),
            join: dialect.join(seat),
            stream: seat.stream,
            next: seat.first,
        })
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn expected(&self) -> u64 {
        self.next
    }

    pub(super) fn wants_to_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Writes what the socket takes.
    pub(super) fn write(&mut self) -> Result<()> {
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("a subscriber could not write"),
            }
        }
        self.outbox = Vec::new(); // thousands of subscribers keep no empty buffers
        Ok(())
    }

    /// Reads once, and takes note of every event.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        marks: &Marks,
        dialect: &dyn Dialect,
        tally: &mut Tally,
    ) {
        let count = match self.socket.read(buffer) {
            Ok(0) => return self.close(tally, "the server closed the connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => return self.close(tally, &error.to_string()),
        };
        let received = now();
        tally.bytes += count as u64;
        let mut inbox = std::mem::take(&mut self.inbox);
        let bytes = if inbox.is_empty() {
            &buffer[..count]
        } else {
            inbox.extend_from_slice(&buffer[..count]);
            &inbox[..]
        };
        let used = match self.take(bytes, received, marks, dialect, tally) {
            Ok(used) => used,
            Err(fault) => return self.close(tally, &fault),
        };
        if inbox.is_empty() {
            self.inbox = buffer[used..count].to_vec();
        } else if used == inbox.len() {
            self.inbox = Vec::new();
        } else {
            inbox.drain(..used);
            self.inbox = inbox;
        }
    }

    /// Takes all whole messages from `bytes`, and tells how many bytes those were.
    fn take(
        &mut self,
        bytes: &[u8],
        received: u64,
        marks: &Marks,
        dialect: &dyn Dialect,
        tally: &mut Tally,
    ) -> Result<usize, String> {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let length = upgraded(bytes).map_err(|error| format!("{error:#}"))?;
            let Some(length) = length else { return Ok(0) };
            used = length;
            self.phase = Phase::Live;
            if let Some(join) = self.join.take() {
                self.phase = Phase::Joining;
                self.send(&join)?;
            }
        }
        while let Some(frame) = frame::read(&bytes[used..])? {
            used += frame.length;
            match frame.opcode {
                frame::PING => self.send(&frame::from_client(frame::PONG, frame.payload))?,
                frame::PONG => {}
                frame::CLOSE => return Err(format!("closed: {}", frame.payload.escape_ascii())),
                _ => match dialect.hear(&frame) {
                    Heard::Events => self.events(frame.payload, received, marks, tally)?,
                    Heard::Live => self.phase = Phase::Live,
                    Heard::Answer(answer) => self.send(&answer)?,
                    Heard::Broken(fault) => return Err(fault),
                    Heard::Nothing => {}
                },
            }
        }
        Ok(used)
    }

    fn events(
        &mut self,
        payload: &[u8],
        received: u64,
        marks: &Marks,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let (stream, mut next, mut fault) = (self.stream, self.next, None);
        marks.find(payload, |mark| {
            if (mark.stream, mark.number) != (stream, next) && fault.is_none() {
                let (wrong, number) = (mark.stream, mark.number);
                fault = Some(format!("{number} of stream {wrong} for {next} of {stream}"));
            }
            next = mark.number + 1;
            tally.deliveries += 1;
            tally.latency.saturating_record(received.saturating_sub(mark.published));
        })?;
        self.next = next;
        fault.map_or(Ok(()), Err)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.outbox.extend_from_slice(bytes);
        self.write().map_err(|error| format!("{error:#}"))
    }

    fn close(&mut self, tally: &mut Tally, fault: &str) {
        self.phase = Phase::Closed;
        tally.fault(|| fault.to_owned());
    }
}
