//! The connection that publishes.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, bail};

use crate::server::{Dialect, Event, Server};

/// Sends what is to be published, and counts the answers.
pub(crate) struct Publisher {
    socket: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    unacknowledged: usize,
    answer: Vec<u8>,
    closed: bool,
}

impl Publisher {
    /// Connects the publisher of that index; they take turns between the server's nodes.
    pub(crate) fn connect(server: &Server, index: usize) -> Result<Self> {
        let address = server.publishers[index % server.publishers.len()];
        let mut socket = TcpStream::connect(address).context("cannot publish")?;
        socket.set_nodelay(true)?;
        socket.write_all(&server.dialect.greet()).context("cannot greet the server")?;
        socket.set_nonblocking(true)?;
        let (inbox, outbox, answer) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { socket, inbox, outbox, unacknowledged: 0, answer, closed: false })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    pub(crate) fn answer(&self) -> &[u8] {
        &self.answer
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether the server closed the connection while nothing was under way, as it may.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn publish(&mut self, events: &[Event], dialect: &dyn Dialect) -> Result<()> {
        self.unacknowledged += dialect.publish(events, &mut self.outbox);
        self.write()
    }

    /// Sends a request that was made before, which is acknowledged once.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<()> {
        self.outbox.extend_from_slice(request);
        self.unacknowledged += 1;
        self.write()
    }

    /// Writes and reads what the socket is ready for.
    pub(crate) fn advance(&mut self, dialect: &dyn Dialect, buffer: &mut [u8]) -> Result<()> {
        self.write()?;
        match self.socket.read(buffer) {
            Ok(0) if self.unacknowledged == 0 => {
                self.closed = true;
                return Ok(());
            }
            Ok(0) => bail!("the server closed the publisher's connection"),
            Ok(count) => self.inbox.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("the publisher could not read"),
        }
        let mut used = 0;
        while let Some(ack) = dialect.acknowledged(&self.inbox[used..])? {
            used += ack.length;
            let left = self.unacknowledged.checked_sub(ack.count);
            self.unacknowledged = left.context("an acknowledgement for nothing")?;
            self.answer = ack.body;
            self.outbox.extend_from_slice(ack.reply);
        }
        self.inbox.drain(..used);
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the publisher could not write"),
            }
        }
        Ok(())
    }
}
