//! The end of a connection that is told something before.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// What is read of who goes on sending.
const MOST_UNREAD: u64 = 256 << 10;

/// Writes `words` and waits until the other side has heard them, but no longer than `patience`, and reads no more than
/// [`MOST_UNREAD`] meanwhile: closing with bytes unread would make the words disappear.
pub(super) async fn say_farewell(mut stream: TcpStream, words: &[u8], patience: Duration) {
    let talk = async {
        stream.write_all(words).await?;
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
        let farewell = tokio::spawn(async move {
            say_farewell(stream, b"no", Duration::from_secs(3600)).await;
        });
        let sending = async { while sender.write_all(&[0; 4096]).await.is_ok() {} };
        timeout(Duration::from_secs(10), sending).await.expect("it reads without end");
        farewell.await.unwrap();
    }
}
