//! Content codings of request bodies (RFC 9110 section 8.4): decoded to the very end of the input, or refused.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use http::{HeaderMap, header};

/// A coding that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
    /// One block (google/snappy, format_description.txt), as remote write sends it.
    Snappy,
}

/// Why a body cannot be decoded.
#[derive(Debug)]
pub(super) enum CodingError {
    /// More bytes than asked for.
    TooLarge,
    /// It broke off, or what it holds, or what follows its end, is not of that coding.
    Broken,
}

/// A coding that is not known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownCoding;

/// The largest window of zstd that is decoded (RFC 8878 section 3.1.1.1.2): the memory that a frame of a few bytes
/// could ask for.
const WINDOW_LOG: u32 = 23;

impl Coding {
    /// As headers have it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Snappy => "snappy",
        }
    }

    /// The coding that the headers name, in any letter case; None for `identity`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, UnknownCoding> {
        let mut found = None;
        for list in headers.get_all(header::CONTENT_ENCODING) {
            for name in list.to_str().map_err(|_| UnknownCoding)?.split(',').map(str::trim) {
                let coding = match name.to_ascii_lowercase().as_str() {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "zstd" => Self::Zstd,
                    "snappy" => Self::Snappy,
                    _ => return Err(UnknownCoding),
                };
                // One on top of the other is not worth its own limits.
                if found.replace(coding).is_some() {
                    return Err(UnknownCoding);
                }
            }
        }
        Ok(found)
    }

    /// All members or frames of `body`, at most `limit` bytes. `grow` is called for each piece before it is stored.
    pub(super) fn decode<E>(
        self,
        body: &[u8],
        limit: u64,
        mut grow: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Result<Vec<u8>, E>, CodingError> {
        let mut decoder: Box<dyn Read + '_> = match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(body)),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(body);
                let mut decoder = decoder.map_err(|_| CodingError::Broken)?;
                decoder.window_log_max(WINDOW_LOG).map_err(|_| CodingError::Broken)?;
                Box::new(decoder)
            }
            Self::Snappy => return decode_block(body, limit, grow),
        };
        let mut decoded = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            match decoder.read(&mut piece).map_err(|_| CodingError::Broken)? {
                0 => return Ok(Ok(decoded)),
                count if (decoded.len() + count) as u64 > limit => {
                    return Err(CodingError::TooLarge);
                }
                count => {
                    if let Err(refused) = grow(count) {
                        return Ok(Err(refused));
                    }
                    decoded.extend_from_slice(&piece[..count]);
                }
            }
        }
    }
}

/// A block says at its start how long it becomes, and nothing is kept before that is allowed.
fn decode_block<E>(
    body: &[u8],
    limit: u64,
    mut grow: impl FnMut(usize) -> Result<(), E>,
) -> Result<Result<Vec<u8>, E>, CodingError> {
    let broken = |_: snap::Error| CodingError::Broken;
    let length = snap::raw::decompress_len(body).map_err(broken)?;
    if length as u64 > limit {
        return Err(CodingError::TooLarge);
    }
    if let Err(refused) = grow(length) {
        return Ok(Err(refused));
    }
    snap::raw::Decoder::new().decompress_vec(body).map(Ok).map_err(broken)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http::HeaderValue;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::encode_all(plain, 1).unwrap()
    }

    fn decode(coding: Coding, body: &[u8]) -> Result<Vec<u8>, CodingError> {
        coding.decode(body, 100, |_| Ok::<_, ()>(())).map(Result::unwrap)
    }

    #[test]
    fn every_member_is_decoded_and_nothing_may_follow_the_last() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let encode =
                |plain: &[u8]| if coding == Coding::Gzip { gzip(plain) } else { zstd(plain) };
            let two = [encode(b"one,"), encode(b""), encode(b"two")].concat();
            assert_eq!(decode(coding, &two).unwrap(), b"one,two", "{coding:?}");
            for garbage in [&b"\0"[..], b"x", b"{}", b"garbage of some length"] {
                let body = [&two[..], garbage].concat();
                let refused = decode(coding, &body);
                assert!(matches!(refused, Err(CodingError::Broken)), "{coding:?} {garbage:?}");
            }
            for end in 1..two.len() {
                let cut = decode(coding, &two[..end]);
                let whole = cut.as_ref().is_ok_and(|plain| b"one,two".starts_with(plain));
                assert!(cut.is_err() || whole, "{coding:?} cut at {end}: {cut:?}");
            }
            let large = [encode(&[0; 60]), encode(&[0; 60])].concat();
            assert!(matches!(decode(coding, &large), Err(CodingError::TooLarge)), "{coding:?}");
        }
    }

    #[test]
    fn a_block_that_is_cut_or_says_another_length_is_refused_before_it_is_kept() {
        let whole = snap::raw::Encoder::new().compress_vec(&[b'x'; 90]).unwrap();
        assert_eq!(decode(Coding::Snappy, &whole).unwrap(), [b'x'; 90]);
        for end in 0..whole.len() {
            // Nothing at all is a block of nothing.
            let cut = decode(Coding::Snappy, &whole[..end]);
            assert!(cut.is_err() || end == 0, "cut at {end}: {cut:?}");
        }
        let garbage = decode(Coding::Snappy, &[&whole[..], b"x"].concat());
        assert!(matches!(garbage, Err(CodingError::Broken)), "{garbage:?}");
        // Four gigabytes, as five bytes say.
        let refused = Coding::Snappy.decode(b"\xff\xff\xff\xff\x0f", 100, |_| -> Result<(), ()> {
            panic!("it was to be kept")
        });
        assert!(matches!(refused, Err(CodingError::TooLarge)));
    }

    #[test]
    fn a_coding_is_known_in_any_letter_case_and_only_one_is_taken() {
        let of = |lists: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(list));
            }
            Coding::of(&headers)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["Identity"]), Ok(None));
        assert_eq!(of(&["GZIP"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["x-gzip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["identity, Zstd"]), Ok(Some(Coding::Zstd)));
        for unknown in [&["br"][..], &["gzip, gzip"], &["gzip", "zstd"]] {
            assert_eq!(of(unknown), Err(UnknownCoding), "{unknown:?}");
        }
    }
}
