//! The form in which chunks are kept: each column the shortest way that loses nothing, and zstd over
//! all of them.

use bytes::Bytes;

use super::column::{BUCKETS, Column, Present};

/// Packs chunks; keeps the compressor's memory between them.
pub(super) struct Packer(zstd::bulk::Compressor<'static>);

/// Why a chunk cannot be packed or read again.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    /// The compressor.
    #[error("compressing failed: {0}")]
    Compress(#[from] std::io::Error),
    /// What is kept is not what was written.
    #[error("a stored chunk cannot be read")]
    Unreadable,
}

const VERSION: u8 = 4;
/// As hubs wrote before they kept when a series had ended.
const ENDLESS: u8 = 3;
/// As hubs wrote before they kept the sum of a counter's values, and what a gauge would have counted.
const ONE_SUM: u8 = 2;
/// As hubs wrote before they knew the time of a bucket's last value.
const TIMELESS: u8 = 1;
const LEVEL: i32 = 1;
/// More than the longest chunk there can be.
const MAX_BYTES: usize = 64 << 10;
/// Values with at most this many decimals are written as whole numbers.
const MAX_DECIMALS: u8 = 6;
/// Up to here every whole number has a double of its own.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

const SAME: u8 = 0;
const CONSTANT: u8 = 1;
const DECIMAL: u8 = 2;
const RAW: u8 = 3;

/// The figures of a bucket.
pub(super) const COLUMNS: usize = 8;

impl Packer {
    /// A packer.
    pub(super) fn new() -> Result<Self, PackError> {
        Ok(Self(zstd::bulk::Compressor::new(LEVEL)?))
    }

    /// The columns are `last` and then those that may be the same as it.
    pub(super) fn pack(
        &mut self,
        present: &Present,
        len: usize,
        columns: [&Column; COLUMNS],
    ) -> Result<Bytes, PackError> {
        let mut out = Vec::with_capacity(512);
        present.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        let last: Vec<f64> = (0..len).map(|rank| columns[0].get(rank, 0.0)).collect();
        put_column(&mut out, &last, None);
        for column in &columns[1..] {
            let values: Vec<f64> =
                last.iter().enumerate().map(|(rank, last)| column.get(rank, *last)).collect();
            put_column(&mut out, &values, Some(&last));
        }
        let mut packed = vec![VERSION];
        packed.extend_from_slice(&self.0.compress(&out)?);
        Ok(packed.into())
    }
}

/// What [`Packer::pack`] was given.
pub(super) fn unpack(packed: &[u8]) -> Result<(Present, [Column; COLUMNS]), PackError> {
    let (version, compressed) = packed.split_first().ok_or(PackError::Unreadable)?;
    let plain = zstd::bulk::decompress(compressed, MAX_BYTES).map_err(|_| PackError::Unreadable)?;
    let mut rest = &plain[..];
    let read = match *version {
        VERSION => read(&mut rest, COLUMNS),
        ENDLESS => read(&mut rest, COLUMNS - 1),
        ONE_SUM => read(&mut rest, COLUMNS - 2),
        // Before the columns, up to which offset samples were in it: the head says that.
        TIMELESS => take_varint(&mut rest).and_then(|_| read(&mut rest, COLUMNS - 3)),
        _ => None,
    };
    read.ok_or(PackError::Unreadable)
}

/// Whether what was packed has one sum: that of a gauge's values, or what a counter has counted.
pub(super) fn has_one_sum(packed: &[u8]) -> bool {
    packed.first().is_some_and(|version| *version < ENDLESS)
}

/// Columns that were not written yet are 0.
fn read(rest: &mut &[u8], written: usize) -> Option<(Present, [Column; COLUMNS])> {
    let mut present = Present::default();
    for word in &mut present {
        *word = u64::from_le_bytes(take(rest)?);
    }
    let len: u32 = present.iter().map(|word| word.count_ones()).sum();
    let mut columns = [const { Column::Constant(0.0) }; COLUMNS];
    for column in columns.iter_mut().take(written) {
        *column = take_column(rest, len as usize)?;
    }
    let is_sound = rest.is_empty() && present[BUCKETS / 64] >> (BUCKETS % 64) == 0;
    is_sound.then_some((present, columns))
}

fn put_column(out: &mut Vec<u8>, values: &[f64], last: Option<&[f64]>) {
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits();
    if last.is_some_and(|last| values.iter().zip(last).all(same)) {
        return out.push(SAME);
    }
    let Some(first) = values.first() else { return out.push(SAME) };
    if values.iter().all(|value| same((value, first))) {
        out.push(CONSTANT);
        return out.extend_from_slice(&first.to_le_bytes());
    }
    if let Some(decimals) = decimals(values) {
        out.extend_from_slice(&[DECIMAL, decimals]);
        let mut before = 0;
        for value in values {
            let whole = whole(*value, decimals).unwrap_or_default();
            put_varint(out, zigzag(whole - before));
            before = whole;
        }
        return;
    }
    // Byte by byte of all values: neighbours have sign and exponent in common.
    out.push(RAW);
    for byte in 0..8 {
        out.extend(values.iter().map(|value| value.to_le_bytes()[byte]));
    }
}

fn take_column(rest: &mut &[u8], len: usize) -> Option<Column> {
    let [kind] = take(rest)?;
    Some(match kind {
        SAME => Column::Same,
        CONSTANT => Column::Constant(f64::from_le_bytes(take(rest)?)),
        DECIMAL => {
            let [decimals] = take(rest)?;
            let scale = scale(decimals)?;
            let mut whole = 0i64;
            let mut values = Vec::with_capacity(len);
            for _ in 0..len {
                whole = whole.checked_add(unzigzag(take_varint(rest)?))?;
                values.push(whole as f64 / scale);
            }
            Column::Own(values)
        }
        RAW => {
            let bytes = rest.split_off(..len.checked_mul(8)?)?;
            let value = |rank| f64::from_le_bytes(std::array::from_fn(|at| bytes[at * len + rank]));
            Column::Own((0..len).map(value).collect())
        }
        _ => return None,
    })
}

/// How many decimals all of the values make do with.
pub(super) fn decimals(values: &[f64]) -> Option<u8> {
    let mut decimals = 0;
    for value in values {
        while whole(*value, decimals).is_none() {
            decimals += 1;
            if decimals > MAX_DECIMALS {
                return None;
            }
        }
    }
    values.iter().all(|value| whole(*value, decimals).is_some()).then_some(decimals)
}

/// The value times a power of ten, if that is whole and gives the very value back.
pub(super) fn whole(value: f64, decimals: u8) -> Option<i64> {
    let scale = scale(decimals)?;
    let whole = (value * scale).round();
    // The number itself is divided again, for it has no second zero.
    let is_exact =
        whole.abs() < MAX_WHOLE && (whole as i64 as f64 / scale).to_bits() == value.to_bits();
    is_exact.then_some(whole as i64)
}

pub(super) fn scale(decimals: u8) -> Option<f64> {
    (decimals <= MAX_DECIMALS).then(|| 10f64.powi(i32::from(decimals)))
}

pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::series::{
        chunk::{Bucket, Chunk},
        sample::Kind,
    };

    fn figure() -> impl Strategy<Value = f64> {
        prop_oneof![
            (-1000i64..1000).prop_map(|n| n as f64),
            (-100_000i64..100_000).prop_map(|n| n as f64 / 100.0),
            -1e100..1e100f64,
            Just(0.1 + 0.2),
            Just(MAX_WHOLE),
            Just(f64::NAN),
            Just(f64::NEG_INFINITY),
            Just(-0.0),
        ]
    }

    proptest! {
        #[test]
        fn a_chunk_comes_back_as_it_was(
            samples in proptest::collection::vec((0..BUCKETS, figure(), figure(), 0..60_000u64), 0..200),
        ) {
            let mut chunk = Chunk::default();
            for (index, value, sum, time) in samples {
                chunk.add(index, Bucket::of(value, sum, time));
            }
            let packed = chunk.pack(&mut Packer::new().unwrap()).unwrap();
            let again = Chunk::unpack(&packed, Kind::Gauge).unwrap();
            let shown = |chunk: &Chunk| format!("{:?}", chunk.buckets().collect::<Vec<_>>());
            prop_assert_eq!(shown(&again), shown(&chunk));
        }

        #[test]
        fn other_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Chunk::unpack(&bytes, Kind::Gauge).is_err());
            for version in [VERSION, ENDLESS, ONE_SUM, TIMELESS] {
                let framed = [&[version], &*zstd::bulk::compress(&bytes, 1).unwrap()].concat();
                let _ = Chunk::unpack(&framed, Kind::Counter).map(|chunk| chunk.buckets().count());
            }
        }
    }

    #[test]
    fn a_chunk_of_before_the_times_of_last_values_is_read() {
        let mut present = Present::default();
        present[0] = 0b101;
        let mut plain = vec![7]; // the offset
        present.iter().for_each(|word| plain.extend_from_slice(&word.to_le_bytes()));
        put_column(&mut plain, &[3.0, 4.5], None);
        plain.extend_from_slice(&[SAME, SAME, SAME]);
        put_column(&mut plain, &[1.0, 1.0], Some(&[3.0, 4.5]));
        let packed = [&[TIMELESS], &*zstd::bulk::compress(&plain, 1).unwrap()].concat();
        let buckets = |kind| -> Vec<_> {
            let chunk = Chunk::unpack(&packed, kind).unwrap();
            chunk.buckets().map(|(at, one)| (at, one.last, one.sum, one.increase)).collect()
        };
        let [first, second] = buckets(Kind::Gauge)[..] else { panic!("two buckets") };
        assert_eq!(
            ((first.0, first.1, first.2), (second.0, second.1, second.2)),
            ((0, 3.0, 3.0), (2, 4.5, 4.5))
        );
        assert!(
            first.3.is_nan() && second.3.is_nan(),
            "what a gauge would have counted nobody kept"
        );
        let [first, second] = buckets(Kind::Counter)[..] else { panic!("two buckets") };
        assert_eq!((first.3, second.3), (3.0, 4.5));
        assert!(first.2.is_nan() && second.2.is_nan(), "nor the sum of a counter's totals");
    }

    #[test]
    fn what_changes_little_is_short() {
        let packed = |value: &dyn Fn(usize) -> f64| {
            let mut chunk = Chunk::default();
            for index in 0..BUCKETS {
                chunk.add(index, Bucket::of(value(index), value(index), 0));
            }
            chunk.pack(&mut Packer::new().unwrap()).unwrap().len()
        };
        assert!(packed(&|_| 0.1 + 0.2) < 60);
        assert!(packed(&|index| (index * 37 % 100) as f64 / 10.0) < BUCKETS * 2);
    }
}
