//! The answer to a connection that gets no slot, written before a server handles it.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use http_body_util::BodyExt as _;
use tokio::net::TcpStream;

use super::{Problem, connection_slots::NoSlot, linger::linger};

/// Time to hear it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says why there is no slot, and closes.
pub(super) async fn say_no_room(stream: TcpStream, reason: NoSlot) {
    let problem = match reason {
        NoSlot::All => Problem::no_room(),
        NoSlot::Address => Problem::too_many_from_address(),
    };
    linger(stream, &written(problem.into_response()).await, PATIENCE).await;
}

/// An answer as HTTP/1.1 has it on the wire (RFC 9112 section 2.1).
async fn written(answer: Response<Body>) -> Vec<u8> {
    let (head, body) = answer.into_parts();
    // It is in memory: if reading it could fail, the head alone would say enough.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (status, length) = (head.status, body.len());
    let mut words =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n")
            .into_bytes();
    for (name, value) in &head.headers {
        words.extend_from_slice(name.as_str().as_bytes());
        words.extend_from_slice(b": ");
        words.extend_from_slice(value.as_bytes());
        words.extend_from_slice(b"\r\n");
    }
    words.extend_from_slice(b"\r\n");
    words.extend_from_slice(&body);
    words
}
