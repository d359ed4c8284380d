//! The end of a connection that gets a last message first.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{dialect::Dialect, id, protocol::CloseCode};

/// The last message of a socket.
pub(super) struct CloseMessage {
    pub(super) code: CloseCode,
    pub(super) bytes: Vec<u8>,
    /// How long the other side has to take them.
    pub(super) patience: Duration,
}

const PATIENCE: Duration = Duration::from_secs(2);
const EVICTED: &str = "somebody else needs the place of a connection without credentials";

impl CloseMessage {
    /// When to come back, if that is to be a while and `dialect` has words for it, and why it closes.
    pub(super) fn of(code: CloseCode, reason: &str, dialect: Dialect) -> Self {
        // Not everybody at the same moment, where all are closed at once.
        let after_ms = |pause: Duration| pause.as_millis() as u64 + id::random_below(pause);
        let bytes = dialect.close(code, reason, code.pause().map(after_ms));
        Self { code, bytes, patience: PATIENCE }
    }

    /// For who makes room for others. These wait: what can be written at once is.
    pub(super) fn of_evicted(dialect: Dialect) -> Self {
        Self { patience: Duration::ZERO, ..Self::of(CloseCode::Overloaded, EVICTED, dialect) }
    }
}

/// How much is still read from a client that keeps sending.
const MOST_UNREAD: u64 = 256 << 10;

/// Writes `message` and waits until the other side has received it, at most for `patience`. Meanwhile it reads at most
/// [`MOST_UNREAD`] bytes, because closing a socket with unread bytes would discard the message.
pub(super) async fn linger(mut stream: TcpStream, message: &[u8], patience: Duration) {
    let talk = async {
        stream.write_all(message).await?;
        stream.shutdown().await?;
        let (mut rest, mut stream) = ([0; 1024], stream.take(MOST_UNREAD));
        // Each read of a socket is a part of tokio's budget for a turn.
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Heard or not, the connection ends here.
    let _ = timeout(patience, talk).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_sends_on_after_a_refusal_is_read_no_further_than_a_bound() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let lingering = tokio::spawn(async move {
            linger(stream, b"no", Duration::from_secs(3600)).await;
        });
        let sending = async { while sender.write_all(&[0; 4096]).await.is_ok() {} };
        timeout(Duration::from_secs(10), sending).await.expect("it reads without end");
        lingering.await.unwrap();
    }
}
