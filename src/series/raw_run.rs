//! The form in which raw samples are kept: bits that grow at their end, and a shorter one for a run that is over.
//!
//! A run that grows is as of Pelkonen et al., "Gorilla: A Fast, Scalable, In-Memory Time Series Database", VLDB 2015,
//! section 4.1, with other classes of distances, since times are in milliseconds. One that is over is written as whole
//! numbers of one width where its values have few decimals, if that is shorter. docs/performance.md has the figures beside
//! those of `pco`.

use bytes::Bytes;

use super::{
    bits::{BitReader, BitWriter},
    pack::{PackError, decimals, scale, unzigzag, whole, zigzag},
};
use crate::{ingest::samples::STALE, time::Millis};

/// One sample as it was sent: every bit of the value is kept, be it a NaN, a stale marker or an infinity.
#[derive(Debug, Clone, Copy)]
pub struct RawSample {
    /// When it was.
    pub time: Millis,
    /// What it was.
    pub value: f64,
}

/// Samples in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(super) struct RawRun {
    bits: BitWriter,
    len: u32,
    newest: Coder,
}

/// What the next sample is told by.
#[derive(Debug, Clone, Copy, Default)]
struct Coder {
    time: Millis,
    /// How far the last two lie apart.
    distance: i64,
    value: u64,
    /// Which bits of a value were told last: those before, and how many.
    window: Option<(u32, u32)>,
}

/// A run that grew.
const GROWN: u8 = 1;
/// Whole numbers: values times a power of ten.
const WHOLE: u8 = 2;
/// Beside either: all of it came late.
const LATE: u8 = 0x80;
/// Distances of times that change by less than these (zigzag) are told in so many bits, behind as many ones as come
/// before, and a zero. Others take 64.
const CLASSES: [(u64, u32); 4] = [(1, 0), (65, 6), (65 + 2048, 11), (65 + 2048 + (1 << 17), 17)];
/// Most leading zeros that are told.
const MOST_LEADING: u32 = 31;

impl RawSample {
    /// Whether it says that the series has ended.
    pub fn is_stale(&self) -> bool {
        self.value.to_bits() == STALE
    }
}

impl RawRun {
    /// Adds a sample; of whatever time, but best behind the one before.
    pub(super) fn push(&mut self, sample: RawSample) {
        let RawSample { time, value } = sample;
        let value = value.to_bits();
        if self.len == 0 {
            self.bits.put(time, 64);
            self.bits.put(value, 64);
            self.newest = Coder { time, value, ..Coder::default() };
        } else {
            self.newest.put(&mut self.bits, time, value);
        }
        self.len += 1;
    }

    /// How many samples there are.
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// How much memory it takes beside itself, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bits.size()
    }

    /// What [`read`] reads.
    pub(super) fn bytes(&self, is_late: bool) -> Bytes {
        let mut bytes = Vec::with_capacity(5 + self.bits.bytes().len());
        bytes.push(GROWN | if is_late { LATE } else { 0 });
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(self.bits.bytes());
        bytes.into()
    }
}

impl Coder {
    fn put(&mut self, bits: &mut BitWriter, time: Millis, value: u64) {
        let distance = time.wrapping_sub(self.time) as i64;
        let change = zigzag(distance.wrapping_sub(self.distance));
        let class = CLASSES.iter().position(|(end, _)| change < *end);
        let (ones, start, width) = match class {
            Some(at) => (at as u32, at.checked_sub(1).map_or(0, |at| CLASSES[at].0), CLASSES[at].1),
            None => (CLASSES.len() as u32, 0, 64),
        };
        for _ in 0..ones {
            bits.put(1, 1);
        }
        if class.is_some() {
            bits.put(0, 1);
        }
        bits.put(change - start, width);
        let differs = value ^ self.value;
        (self.time, self.distance, self.value) = (time, distance, value);
        if differs == 0 {
            return bits.put(0, 1);
        }
        let (leading, trailing) =
            (differs.leading_zeros().min(MOST_LEADING), differs.trailing_zeros());
        let fits =
            |(before, count): &(u32, u32)| leading >= *before && 64 - trailing <= before + count;
        let (before, count) = match self.window.filter(fits) {
            Some(window) => {
                bits.put(0b10, 2);
                window
            }
            None => {
                let count = 64 - leading - trailing;
                bits.put(0b11, 2);
                bits.put(leading.into(), 5);
                bits.put((count - 1).into(), 6);
                (leading, count)
            }
        };
        self.window = Some((before, count));
        bits.put(differs >> (64 - before - count), count);
    }

    fn take(&mut self, bits: &mut BitReader<'_>) -> Option<()> {
        let mut ones = 0;
        while ones < CLASSES.len() && bits.take(1)? == 1 {
            ones += 1;
        }
        let width = CLASSES.get(ones).map_or(64, |(_, width)| *width);
        let start = match CLASSES.get(ones) {
            Some(_) => ones.checked_sub(1).map_or(0, |at| CLASSES[at].0),
            None => 0,
        };
        let change = unzigzag(bits.take(width)?.checked_add(start)?);
        self.distance = self.distance.wrapping_add(change);
        self.time = self.time.wrapping_add_signed(self.distance);
        if bits.take(1)? == 0 {
            return Some(());
        }
        if bits.take(1)? == 1 {
            let before = u32::try_from(bits.take(5)?).ok()?;
            self.window = Some((before, u32::try_from(bits.take(6)?).ok()? + 1));
        }
        let (before, count) = self.window?;
        self.value ^= bits.take(count)? << 64u32.checked_sub(before + count)?;
        Some(())
    }
}

/// The shortest form of samples that are in order of time.
pub(super) fn seal(samples: &[RawSample], is_late: bool) -> Bytes {
    let mut run = RawRun::default();
    samples.iter().for_each(|sample| run.push(*sample));
    let grown = run.bytes(is_late);
    match as_whole_numbers(samples) {
        Some(mut bytes) if bytes.len() < grown.len() => {
            bytes[0] |= if is_late { LATE } else { 0 };
            bytes.into()
        }
        _ => grown,
    }
}

/// Whether the samples of a run came behind others that are as old or newer.
pub(super) fn is_late(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|kind| kind & LATE != 0)
}

fn as_whole_numbers(samples: &[RawSample]) -> Option<Vec<u8>> {
    let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    let decimals = decimals(&values)?;
    let times = samples.iter().map(|sample| i64::try_from(sample.time));
    let times: Vec<i64> = times.collect::<Result<_, _>>().ok()?;
    let values: Vec<i64> =
        values.iter().map(|value| whole(*value, decimals)).collect::<Option<_>>()?;
    let mut bytes = vec![WHOLE];
    bytes.extend_from_slice(&u32::try_from(samples.len()).ok()?.to_le_bytes());
    bytes.push(decimals);
    let mut bits = BitWriter::default();
    put_steps(&mut bits, &times);
    put_steps(&mut bits, &values);
    bytes.extend_from_slice(bits.bytes());
    Some(bytes)
}

/// The first number, the least step and how wide what steps are above it is, and that.
fn put_steps(bits: &mut BitWriter, numbers: &[i64]) {
    let steps = || numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let least = steps().min().unwrap_or_default();
    let widest = steps().map(|step| step.wrapping_sub(least) as u64).max().unwrap_or_default();
    let width = 64 - widest.leading_zeros();
    bits.put(numbers.first().copied().unwrap_or_default() as u64, 64);
    bits.put(least as u64, 64);
    bits.put(width.into(), 7);
    steps().for_each(|step| bits.put(step.wrapping_sub(least) as u64, width));
}

fn take_steps(bits: &mut BitReader<'_>, len: usize) -> Option<Vec<i64>> {
    let mut number = bits.take(64)? as i64;
    let least = bits.take(64)? as i64;
    let width = u32::try_from(bits.take(7)?).ok().filter(|width| *width <= 64)?;
    let mut numbers = Vec::with_capacity(len);
    numbers.push(number);
    for _ in 1..len {
        number = number.wrapping_add(least).wrapping_add(bits.take(width)? as i64);
        numbers.push(number);
    }
    Some(numbers)
}

/// Adds the samples of a run to `samples`, in its order.
pub(super) fn read(bytes: &[u8], samples: &mut Vec<RawSample>) -> Result<(), PackError> {
    read_run(bytes, samples).ok_or(PackError::Unreadable)
}

fn read_run(bytes: &[u8], samples: &mut Vec<RawSample>) -> Option<()> {
    let (kind, rest) = bytes.split_first()?;
    let kind = kind & !LATE;
    let (len, mut rest) = rest.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    // Every sample takes a bit at least, but where all steps are the same.
    if len == 0 || len > MOST_SAMPLES {
        return None;
    }
    if kind == GROWN {
        let mut bits = BitReader::new(rest);
        let mut coder = Coder { time: bits.take(64)?, value: bits.take(64)?, ..Coder::default() };
        samples.push(RawSample { time: coder.time, value: f64::from_bits(coder.value) });
        for _ in 1..len {
            coder.take(&mut bits)?;
            samples.push(RawSample { time: coder.time, value: f64::from_bits(coder.value) });
        }
        return Some(());
    }
    let decimals = *rest.split_off_first().filter(|_| kind == WHOLE)?;
    let scale = scale(decimals)?;
    let mut bits = BitReader::new(rest);
    let (times, values) = (take_steps(&mut bits, len)?, take_steps(&mut bits, len)?);
    for (time, value) in times.into_iter().zip(values) {
        samples.push(RawSample { time: u64::try_from(time).ok()?, value: value as f64 / scale });
    }
    Some(())
}

/// More than the longest run has.
const MOST_SAMPLES: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(samples: &[RawSample]) -> Vec<(Millis, u64)> {
        samples.iter().map(|sample| (sample.time, sample.value.to_bits())).collect()
    }

    fn read_all(bytes: &[u8]) -> Vec<(Millis, u64)> {
        let mut samples = Vec::new();
        read(bytes, &mut samples).unwrap();
        bits(&samples)
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-100_000i64..100_000).prop_map(|n| n as f64 / 100.0),
            4 => (0..1000u32).prop_map(f64::from),
            2 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(f64::from_bits(STALE)),
            1 => Just(f64::NEG_INFINITY),
            1 => Just(-0.0),
        ]
    }

    fn samples(value: impl Strategy<Value = f64>) -> impl Strategy<Value = Vec<RawSample>> {
        let distance = prop_oneof![8 => 995u64..1005, 4 => 0u64..100_000, 1 => any::<u64>()];
        proptest::collection::vec((distance, value), 1..300).prop_map(|steps| {
            let mut time = 1_795_176_000_000u64;
            let mut next = |(distance, value)| {
                time = time.wrapping_add(distance) & (u64::MAX >> 1);
                RawSample { time, value }
            };
            steps.into_iter().map(&mut next).collect()
        })
    }

    proptest! {
        #[test]
        fn every_bit_of_every_sample_comes_back(
            any_values in samples(value()),
            few_decimals in samples((-1000i64..1000).prop_map(|n| n as f64 / 10.0)),
        ) {
            for samples in [any_values, few_decimals] {
                let mut run = RawRun::default();
                samples.iter().for_each(|sample| run.push(*sample));
                prop_assert_eq!(run.len(), samples.len());
                prop_assert_eq!(read_all(&run.bytes(true)), bits(&samples));
                prop_assert_eq!(read_all(&seal(&samples, false)), bits(&samples));
            }
        }

        #[test]
        fn other_bytes_are_no_samples_and_no_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            for kind in [0, GROWN, WHOLE] {
                let framed = [&[kind, 9, 0, 0, 0], &bytes[..]].concat();
                let _ = read(&framed, &mut Vec::new());
            }
            let huge = [&[WHOLE, 255, 255, 255, 255], &bytes[..]].concat();
            prop_assert!(read(&huge, &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn what_changes_little_takes_little() {
        let made = |value: &dyn Fn(u64) -> f64| -> Vec<RawSample> {
            (0..120)
                .map(|n| RawSample { time: 1_795_176_000_000 + n * 1000, value: value(n) })
                .collect()
        };
        assert!(seal(&made(&|_| 1.0), false).len() < 45);
        assert!(seal(&made(&|n| (n * 37 % 50 + n * 50) as f64), false).len() < 120 + 40);
        assert!(seal(&made(&|n| (n * 37 % 41) as f64 / 100.0), false).len() < 120 + 40);
    }
}
