//! WebSocket frames as the server sends them: unmasked, unfragmented (RFC 6455 section 5.2).
//!
//! Frames are made once and written as they are to every socket that gets them.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// The longest header of an unmasked frame.
pub const MAX_HEADER: usize = 10;

/// The longest reason of a close frame: 125 bytes of control payload less the code.
const MAX_REASON: usize = 123;

const TEXT: OpCode = OpCode::Data(Data::Text);
const CLOSE: OpCode = OpCode::Control(Control::Close);
/// Final, opcode 9, no payload.
const PING: [u8; 2] = [0x89, 0];

/// Appends the header of a text frame with `length` bytes of payload.
pub fn put_text_header(out: &mut Vec<u8>, length: usize) {
    put_header(out, TEXT, length);
}

/// A whole text frame.
pub fn text(payload: &[u8]) -> Bytes {
    frame(TEXT, payload)
}

/// A ping without payload.
pub fn ping() -> Bytes {
    Bytes::from_static(&PING)
}

/// A close frame with `code` and as much of `reason` as fits; a reason that is cut ends with `…`.
pub fn close(code: u16, reason: &str) -> Bytes {
    const CUT: &str = "…";
    let mut payload = code.to_be_bytes().to_vec();
    if reason.len() <= MAX_REASON {
        payload.extend_from_slice(reason.as_bytes());
    } else {
        let end = reason.floor_char_boundary(MAX_REASON - CUT.len());
        payload.extend_from_slice(&reason.as_bytes()[..end]);
        payload.extend_from_slice(CUT.as_bytes());
    }
    frame(CLOSE, &payload)
}

fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(MAX_HEADER + payload.len());
    put_header(&mut out, opcode, payload.len());
    out.extend_from_slice(payload);
    out.into()
}

fn put_header(out: &mut Vec<u8>, opcode: OpCode, length: usize) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to memory cannot fail.
    let _ = header.format(length as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_shortest_length_form() {
        assert_eq!(&text(&[b'x'; 125])[..2], [0x81, 125]);
        assert_eq!(&text(&[b'x'; 126])[..4], [0x81, 126, 0, 126]);
        assert_eq!(&text(&vec![b'x'; 65_535])[..4], [0x81, 126, 255, 255]);
        assert_eq!(&text(&vec![b'x'; 65_536])[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let frame = close(4400, &"ä".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 123);
        assert!(std::str::from_utf8(&frame[4..]).unwrap().ends_with("ä…"));
        assert_eq!(&frame[2..4], 4400u16.to_be_bytes());
    }
}
