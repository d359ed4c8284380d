//! The HTTP/1.1 that requests and answers of the servers need.

use anyhow::{Context as _, Result, bail};

use super::Ack;

/// A fixed key (the one of RFC 6455), so that its answer is known without hashing.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request for a WebSocket; `headers` are whole lines.
pub(super) fn upgrade(path: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
    .into_bytes()
}

/// Appends a POST; `headers` are whole lines.
pub(super) fn post(path: &str, headers: &str, body: &[u8], out: &mut Vec<u8>) {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    out.extend(head.as_bytes());
    out.extend(body);
}

/// The answer to one POST; anything but success is an error.
pub(super) fn acknowledged(bytes: &[u8]) -> Result<Option<Ack>> {
    let Some((status, head, length)) = answer(bytes)? else { return Ok(None) };
    let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
    if !(200..300).contains(&status) {
        bail!("a publish was answered {status}: {}", String::from_utf8_lossy(body));
    }
    Ok(Some(Ack { length: head + length, count: 1, body: body.to_vec(), reply: b"" }))
}

/// The length of a whole answer to an upgrade; one that does not open a WebSocket is an error.
pub(crate) fn upgraded(bytes: &[u8]) -> Result<Option<usize>> {
    let Some((status, head, _)) = answer(bytes)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..head]);
    if status != 101 || !text.contains(ACCEPT) {
        bail!("the upgrade was answered {text:?}");
    }
    Ok(Some(head))
}

/// Status, length of the head, length of the body.
fn answer(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).context("not HTTP")? else {
        return Ok(None);
    };
    let status = response.code.context("an answer without a status")?;
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = match length {
        Some(header) => std::str::from_utf8(header.value)?.trim().parse()?,
        None if matches!(status, 101 | 204) => 0,
        None => bail!("an answer of unknown length"),
    };
    Ok(Some((status, head, length)))
}
