//! What comes in from a socket. tungstenite reads it and answers control frames, with buffers that
//! are there only while a message is under way: most of the time a client says nothing.

mod frames;

use std::{
    io::{self, Read, Write},
    task::{Context, Poll, ready},
};

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{
    Error, Message, Utf8Bytes,
    error::ProtocolError,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use self::frames::FrameTracker;

/// How much is read at once.
const READ_BUFFER: usize = 4096;

/// Bytes read before others get their turn. An empty frame takes six of them.
const TURN: u16 = 16 << 10;

/// The shortest masked header (RFC 6455 section 5.2), and what longer lengths add to it.
const SHORT_HEADER: usize = 6;
const MEDIUM_HEADER: usize = SHORT_HEADER + 2;
const LONG_HEADER: usize = SHORT_HEADER + 8;

/// What the other side does.
pub(super) enum Arrival {
    Text(Utf8Bytes),
    Binary,
    /// A ping or a pong; a ping is answered by the next [`flush`](Inbox::flush).
    Control,
    /// It closes, which the next [`flush`](Inbox::flush) answers.
    Close,
    /// A message longer than allowed, and why nothing more is read.
    TooLong(String),
    /// Something that is no WebSocket message, and why nothing more is read.
    Broken(String),
    /// Nothing any more.
    Gone,
}

pub(super) struct Inbox {
    reader: Option<Box<WebSocketContext>>,
    /// Bytes given to the reader that no message has accounted for: at 0 the reader holds nothing.
    unread: usize,
    /// Whether the reader may have an answer of its own to write.
    needs_flush: bool,
    /// The longest message.
    limit: usize,
    /// Bytes that may still be read in this turn.
    left: u16,
    /// Finds the fragments among the bytes that the reader is given.
    frames: FrameTracker,
}

impl Inbox {
    /// An inbox for messages of at most `limit` bytes; `read` is what was read already.
    pub(super) fn new(read: Vec<u8>, limit: usize) -> Self {
        let unread = read.len();
        let mut frames = FrameTracker::default();
        frames.pass(&read);
        let reader = (unread > 0).then(|| reader(read, limit));
        Self { reader, unread, needs_flush: false, limit, left: TURN, frames }
    }

    /// From now on messages may have `limit` bytes.
    pub(super) fn allow(&mut self, limit: usize) {
        self.limit = limit;
        if let Some(reader) = &mut self.reader {
            reader.set_config(|config| {
                (config.max_message_size, config.max_frame_size) = (Some(limit), Some(limit));
            });
        }
    }

    /// How many fragments have come since this was last asked: frames that end no message, which
    /// [`poll_next`](Self::poll_next) therefore never shows.
    pub(super) fn take_fragments(&mut self) -> u32 {
        std::mem::take(&mut self.frames.fragments)
    }

    /// What comes next.
    pub(super) fn poll_next(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<Arrival> {
        Poll::Ready(match ready!(self.poll_message(stream, cx)) {
            Ok(Message::Text(text)) => Arrival::Text(text),
            Ok(Message::Binary(_)) => Arrival::Binary,
            Ok(Message::Ping(_) | Message::Pong(_)) => Arrival::Control,
            Ok(Message::Close(_) | Message::Frame(_)) => Arrival::Close,
            Err(Error::Capacity(_)) => {
                let most = self.limit;
                Arrival::TooLong(format!("a message has at most {most} bytes here"))
            }
            // Gone without a word: a break, not a breach.
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Arrival::Gone,
            Err(error @ (Error::Protocol(_) | Error::Utf8(_))) => {
                Arrival::Broken(error.to_string())
            }
            Err(_) => Arrival::Gone,
        })
    }

    fn poll_message(
        &mut self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Message, Error>> {
        loop {
            if self.reader.is_none() {
                ready!(stream.poll_read_ready(cx))?;
            }
            let reader = self.reader.get_or_insert_with(|| reader(Vec::new(), self.limit));
            let (read, left, frames) = (&mut self.unread, &mut self.left, &mut self.frames);
            match reader.read(&mut Direct { stream, read, left, frames }) {
                Ok(message) => {
                    self.needs_flush |= matches!(message, Message::Ping(_) | Message::Close(_));
                    self.unread = self.unread.saturating_sub(shortest(&message));
                    return Poll::Ready(Ok(message));
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.unread == 0 && !self.needs_flush {
                        self.reader = None;
                    }
                    // tungstenite keeps reading while bytes come and no message is complete.
                    if self.left == 0 {
                        self.left = TURN;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    ready!(stream.poll_read_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes the reader's answers. Nothing else may be written before they are whole.
    pub(super) fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        if self.needs_flush
            && let Some(reader) = &mut self.reader
        {
            let (read, left, frames) = (&mut self.unread, &mut self.left, &mut self.frames);
            match reader.flush(&mut Direct { stream, read, left, frames }) {
                Ok(()) => self.needs_flush = false,
                Err(Error::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)), // the close was answered
            }
        }
        Ok(())
    }
}

fn reader(read: Vec<u8>, limit: usize) -> Box<WebSocketContext> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(READ_BUFFER)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    Box::new(WebSocketContext::from_partially_read(read, Role::Server, Some(config)))
}

/// The fewest bytes in which `message` can have come. One that took more, in fragments or with a
/// longer header than it needed, only makes that the reader is kept.
fn shortest(message: &Message) -> usize {
    let payload = match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        // The reader remembers that the other side has closed.
        Message::Close(_) | Message::Frame(_) => return 0,
    };
    let header = match payload {
        0..=125 => SHORT_HEADER,
        126..=0xffff => MEDIUM_HEADER,
        _ => LONG_HEADER,
    };
    header + payload
}

/// The stream without waiting, as tungstenite wants it, for one turn.
struct Direct<'a> {
    stream: &'a TcpStream,
    /// Counts what is read.
    read: &'a mut usize,
    left: &'a mut u16,
    frames: &'a mut FrameTracker,
}

impl Read for Direct<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if *self.left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.stream.try_read(buffer)?;
        *self.read += count;
        *self.left = self.left.saturating_sub(u16::try_from(count).unwrap_or(u16::MAX));
        self.frames.pass(&buffer[..count]);
        Ok(count)
    }
}

impl Write for Direct<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
