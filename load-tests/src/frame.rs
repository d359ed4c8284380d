//! WebSocket frames (RFC 6455, section 5) as a client of many sockets needs them: read in place, written unmasked bytes
//! and all. Fragments count as frames.

/// A text frame's opcode.
pub(crate) const TEXT: u8 = 1;
/// A binary frame's opcode.
pub(crate) const BINARY: u8 = 2;
/// The opcodes of control frames.
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// More than any frame a server under test sends.
const LONGEST: u64 = 64 << 20;

/// One frame, borrowed from the bytes it was read from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
    /// Bytes of the frame with its header.
    pub(crate) length: usize,
}

/// The frame that `bytes` begin with, or nothing if it is not whole yet.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err("a frame with reserved bits");
    }
    if second & 0x80 != 0 {
        return Err("a masked frame from a server");
    }
    let (header, payload) = match second {
        126 => {
            let Some(length) = bytes.get(2..).and_then(<[u8]>::first_chunk) else {
                return Ok(None);
            };
            (4, u64::from(u16::from_be_bytes(*length)))
        }
        127 => {
            let Some(length) = bytes.get(2..).and_then(<[u8]>::first_chunk) else {
                return Ok(None);
            };
            (10, u64::from_be_bytes(*length))
        }
        short => (2, u64::from(short)),
    };
    if payload > LONGEST {
        return Err("a frame longer than 64 MiB");
    }
    let length = header + payload as usize;
    Ok(bytes.get(header..length).map(|payload| Frame { opcode: first & 0x0f, payload, length }))
}

/// A client's frame. The mask is zero, which is a mask, and leaves the payload readable in a trace.
pub(crate) fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0x80);
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A server's frame.
pub(crate) fn from_server(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0);
    frame.extend(payload);
    frame
}

fn header(opcode: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut header = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => header.push(mask | short),
        (_, Ok(middle)) => {
            header.push(mask | 126);
            header.extend(middle.to_be_bytes());
        }
        _ => {
            header.push(mask | 127);
            header.extend((length as u64).to_be_bytes());
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_only_when_it_is_whole_wherever_it_is_cut() {
        for size in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'a'; size];
            let bytes = from_server(TEXT, &payload);
            let cuts = (0..bytes.len().min(20)).chain([bytes.len() - 1]);
            for cut in cuts.filter(|cut| *cut < bytes.len()) {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{size} cut at {cut}");
            }
            let longer = [&bytes[..], b"next"].concat();
            let frame = read(&longer).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.payload), (TEXT, &payload[..]));
            assert_eq!(frame.length, bytes.len());
        }
    }

    #[test]
    fn a_client_masks_and_a_server_does_not() {
        assert_eq!(from_client(PONG, b"x"), [0x8a, 0x81, 0, 0, 0, 0, b'x']);
        assert_eq!(from_server(PONG, b"x"), [0x8a, 1, b'x']);
        assert!(read(&from_client(TEXT, b"x")).is_err());
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        assert!(read(&[0xc1, 0]).is_err());
        let mut endless = vec![0x82, 127];
        endless.extend(u64::MAX.to_be_bytes());
        assert!(read(&endless).is_err());
    }
}
