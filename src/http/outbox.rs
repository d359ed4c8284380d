//! What waits to be written to a socket: frames, as bytes that other sockets share.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};
use tokio::net::TcpStream;

/// Frames handed to the system in one write.
const SLICES: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// In order, the first perhaps written in part.
    frames: VecDeque<Bytes>,
    /// When a write that is stuck has been stuck for too long.
    stuck_until: Option<Instant>,
}

impl Outbox {
    pub(super) fn push(&mut self, frame: Bytes) {
        self.frames.push_back(frame);
    }

    /// The first, for who writes it by other means.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front();
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
        frame
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Writes everything, or as much as the system accepts before it would block.
    pub(super) fn write(&mut self, stream: &TcpStream) -> io::Result<()> {
        while !self.frames.is_empty() {
            let written = match &*self.frames.make_contiguous() {
                [only] => stream.try_write(only)?,
                several => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let count = several.len().min(SLICES);
                    for (slice, frame) in slices.iter_mut().zip(several) {
                        *slice = IoSlice::new(frame);
                    }
                    stream.try_write_vectored(&slices[..count])?
                }
            };
            self.written(written);
        }
        self.stuck_until = None;
        Ok(())
    }

    /// Notes that the system takes nothing now, and has `timeout` for it.
    pub(super) fn stick(&mut self, timeout: Duration) {
        self.stuck_until.get_or_insert_with(|| Instant::now() + timeout);
    }

    /// When a write that is stuck has been stuck for too long.
    pub(super) fn stuck_until(&self) -> Option<Instant> {
        self.stuck_until
    }

    fn written(&mut self, mut count: usize) {
        self.stuck_until = None;
        while let Some(front) = self.frames.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.frames.pop_front();
        }
        // The buffer is freed: usually nothing waits, and the next socket can reuse memory that is still in the cache.
        self.frames = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_takes_some_of_it_has_its_time_anew() {
        const COUNT: usize = 100;
        const HOUR: Duration = Duration::from_secs(3600);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut outbox = Outbox::default();
        // More than the system keeps for a connection.
        let frame = Bytes::from(vec![0; 1 << 20]);
        (0..COUNT).for_each(|_| outbox.push(frame.clone()));
        stream.writable().await.unwrap();
        assert_eq!(outbox.write(&stream).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        outbox.stick(HOUR);
        let first = outbox.stuck_until().unwrap();
        outbox.stick(2 * HOUR);
        assert_eq!(outbox.stuck_until(), Some(first), "who takes nothing is given no more time");
        let (mut taken, mut buffer) = (0, vec![0; 64 << 10]);
        while outbox.stuck_until().is_some() {
            tokio::select! {
                read = reader.read(&mut buffer) => taken += read.unwrap(),
                ready = stream.writable() => {
                    ready.unwrap();
                    let _ = outbox.write(&stream); // there may be no room after all
                }
            }
        }
        assert!(taken < COUNT << 19, "{taken} bytes were taken before it counted");
    }
}
