//! Frames in a stream of bytes (RFC 6455 section 5.2). tungstenite shows whole messages only, and
//! a message may have fragments without end.

/// Where in which frame the stream is, and the fragments passed so far.
#[derive(Debug, Default)]
pub(super) struct FrameTracker {
    /// Frames that do not end their message.
    pub(super) fragments: u32,
    header: [u8; HEADER as usize],
    /// Bytes of the header that have come.
    filled: u8,
    /// Bytes of mask and payload that are still to come.
    rest: u64,
}

/// A header's longest, without the mask.
const HEADER: u8 = 10;
const MASK: u64 = 4;

impl FrameTracker {
    /// Follows `bytes`, which come next. What is no frame is tungstenite's to refuse.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
            self.rest -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some((byte, after)) = bytes.split_first() else { return };
            bytes = after;
            self.header[usize::from(self.filled)] = *byte;
            self.filled += 1;
            if let Some(payload) = self.payload() {
                let is_masked = self.header[1] & 0x80 != 0;
                self.rest = payload.saturating_add(if is_masked { MASK } else { 0 });
                self.filled = 0;
                if self.header[0] & 0x80 == 0 {
                    self.fragments = self.fragments.saturating_add(1);
                }
            }
        }
    }

    /// The payload's length, once the header is whole.
    fn payload(&self) -> Option<u64> {
        let [_, short, length @ ..] = &self.header;
        match (short & 0x7f, self.filled) {
            (126, 4) => Some(u64::from(u16::from_be_bytes([length[0], length[1]]))),
            (127, HEADER) => Some(u64::from_be_bytes(*length)),
            (126 | 127, _) | (_, 0 | 1) => None,
            (short, _) => Some(u64::from(short)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_found_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for (first, length) in [(0x01, 3_usize), (0x00, 0), (0x89, 5), (0x00, 200), (0x80, 70_000)]
        {
            bytes.push(first);
            match length {
                0..=125 => bytes.push(0x80 | length as u8),
                126..=0xffff => {
                    bytes.push(0x80 | 126);
                    bytes.extend((length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(0x80 | 127);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            bytes.extend([0; 4]);
            bytes.extend(std::iter::repeat_n(0, length));
        }
        for size in [1, 2, 7, 4096, bytes.len()] {
            let mut frames = FrameTracker::default();
            bytes.chunks(size).for_each(|chunk| frames.pass(chunk));
            assert_eq!((frames.fragments, frames.rest, frames.filled), (3, 0, 0), "by {size}");
        }
    }
}
