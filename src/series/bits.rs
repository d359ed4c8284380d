//! Bits one behind the other, the highest of each byte first.

/// Bits that are written.
#[derive(Debug, Clone, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not written yet.
    left: u32,
}

/// Bits that are read.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// There are many writers, and doubling would waste half.
const GROWTH: usize = 64;

impl BitWriter {
    /// Writes the lowest `count` bits of a number, at most 64; those above are 0.
    pub(super) fn put(&mut self, number: u64, count: u32) {
        let mut rest = count;
        while rest > 0 {
            if self.left == 0 {
                if self.bytes.len() == self.bytes.capacity() {
                    self.bytes.reserve_exact(GROWTH);
                }
                self.bytes.push(0);
                self.left = 8;
            }
            let now = self.left.min(rest);
            let part = (number >> (rest - now)) as u8 & (0xff >> (8 - now));
            if let Some(last) = self.bytes.last_mut() {
                *last |= part << (self.left - now);
            }
            self.left -= now;
            rest -= now;
        }
    }

    /// What was written; the last byte is filled with 0.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How much memory it takes beside itself, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity()
    }
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 64, as a number.
    pub(super) fn take(&mut self, count: u32) -> Option<u64> {
        let mut number = 0;
        let mut rest = count;
        while rest > 0 {
            let byte = *self.bytes.get(self.at / 8)?;
            let left = 8 - (self.at % 8) as u32;
            let now = left.min(rest);
            let part = byte >> (left - now) & (0xff >> (8 - now));
            number = number << now | u64::from(part);
            self.at += now as usize;
            rest -= now;
        }
        Some(number)
    }
}
