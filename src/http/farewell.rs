//! The end of a connection that is told something before.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Writes `words` and waits until the other side has heard them, but no longer than `patience`:
/// closing with bytes unread would make the words disappear.
pub(super) async fn say_farewell(mut stream: TcpStream, words: &[u8], patience: Duration) {
    let talk = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Heard or not, the connection ends here.
    let _ = timeout(patience, talk).await;
}
