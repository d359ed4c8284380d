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
    /// The server's node it is connected to.
    node: usize,
    stream: u32,
    /// The number of the next event of the stream.
    next: u64,
}

impl Client {
    /// Begins to connect; the upgrade follows when the socket can be written to.
    pub(super) fn connect(
        address: SocketAddr,
        node: usize,
        seat: &Seat,
        dialect: &dyn Dialect,
    ) -> Result<Self> {
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
            node,
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
                    Heard::Answer(answer) => {
                        self.send(&answer)?;
                        // A frame of nats-server may hold events behind its ping.
                        self.events(frame.payload, received, marks, tally)?;
                    }
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
        let Tally { latency, deliveries, .. } = tally;
        let latency = latency.get_mut(self.node).ok_or("a node that is not counted")?;
        marks.find(payload, |mark| {
            if (mark.stream, mark.number) != (stream, next) && fault.is_none() {
                let (wrong, number) = (mark.stream, mark.number);
                fault = Some(format!("{number} of stream {wrong} for {next} of {stream}"));
            }
            next = mark.number + 1;
            *deliveries += 1;
            latency.saturating_record(received.saturating_sub(mark.published));
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{
        mark::Mark,
        server::{Ack, Event, From},
    };

    /// A server that sends bare events.
    struct Bare;

    impl Dialect for Bare {
        fn upgrade(&self, _: &Seat) -> Vec<u8> {
            b"GET / HTTP/1.1\r\n\r\n".to_vec()
        }

        fn join(&self, _: &Seat) -> Option<Vec<u8>> {
            None
        }

        fn hear(&self, _: &frame::Frame<'_>) -> Heard {
            Heard::Events
        }

        fn greet(&self) -> Vec<u8> {
            unreachable!("nobody publishes")
        }

        fn publish(&self, _: &[Event], _: &mut Vec<u8>) -> usize {
            unreachable!("nobody publishes")
        }

        fn acknowledged(&self, _: &[u8]) -> Result<Option<Ack>> {
            unreachable!("nobody publishes")
        }
    }

    /// What a subscriber that expects the numbers from 1 on makes of these, sent in pieces of that size.
    fn receive(numbers: &[u64], piece: usize) -> Tally {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            .to_vec();
        for number in numbers {
            let payload = Mark { stream: 0, number: *number, published: now() }.payload(100);
            bytes.extend(frame::from_server(frame::TEXT, payload.as_bytes()));
        }
        let seat = Seat { topics: vec![], stream: 0, first: 1, user: 0, from: From::Now };
        let mut client = Client::connect(listener.local_addr().unwrap(), 0, &seat, &Bare).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.socket.set_nonblocking(false).unwrap();
        client.write().unwrap();
        let mut tally = Tally::new(1).unwrap();
        for piece in bytes.chunks(piece) {
            server.write_all(piece).unwrap();
            let (mut buffer, before) = (vec![0; 4096], tally.bytes);
            while tally.bytes < before + piece.len() as u64 && client.phase != Phase::Closed {
                client.read(&mut buffer, &Marks::new(), &Bare, &mut tally);
            }
        }
        tally
    }

    #[test]
    fn what_comes_once_and_in_order_is_counted_however_it_is_cut() {
        for piece in [1, 7, 4096] {
            let tally = receive(&[1, 2, 3], piece);
            tally.check().unwrap();
            assert_eq!((tally.deliveries, tally.latency[0].len()), (3, 3));
        }
    }

    #[test]
    fn an_event_lost_doubled_or_out_of_order_is_a_fault() {
        for numbers in [&[1, 3][..], &[1, 1], &[2, 1], &[1, 2, 3, 2]] {
            let fault = receive(numbers, 4096).check().unwrap_err().to_string();
            assert!(fault.contains("of stream 0 for"), "{numbers:?}: {fault}");
        }
    }
}
