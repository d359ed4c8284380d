//! Protocol Buffers messages, field by field, borrowed from the bytes they came in: nothing is made that a few bytes could ask
//! for by the thousand (<https://protobuf.dev/programming-guides/encoding/>).

use std::str;

use prost::encoding::{WireType, decode_key, decode_varint};

/// The fields of one message, in the order in which they stand there. Ends behind the first that cannot be read.
#[derive(Clone)]
pub(super) struct ProtobufFields<'a>(&'a [u8]);

/// A field's number and value.
pub(super) type ProtobufField<'a> = (u32, ProtobufValue<'a>);

/// What a field holds, as far as the bytes tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ProtobufValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// A text, bytes, or a message.
    Bytes(&'a [u8]),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// They end within a field, or a field's number or length is none.
    #[error("the message breaks off or is not Protocol Buffers")]
    Broken,
    /// A text is no UTF-8.
    #[error("a text in it is not UTF-8")]
    NotText,
    /// A field of another type than its number has.
    #[error("field {0} is not of the type it should have")]
    WrongType(u32),
}

impl<'a> ProtobufFields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn next_field(&mut self) -> Result<ProtobufField<'a>, ProtobufError> {
        let broken = |_| ProtobufError::Broken;
        let (number, wire) = decode_key(&mut self.0).map_err(broken)?;
        let value = match wire {
            WireType::Varint => ProtobufValue::Varint(decode_varint(&mut self.0).map_err(broken)?),
            WireType::SixtyFourBit => ProtobufValue::Fixed64(u64::from_le_bytes(self.take()?)),
            WireType::ThirtyTwoBit => ProtobufValue::Fixed32(u32::from_le_bytes(self.take()?)),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.0).map_err(broken)?;
                let length = usize::try_from(length).map_err(|_| ProtobufError::Broken)?;
                let (value, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Broken)?;
                self.0 = rest;
                ProtobufValue::Bytes(value)
            }
            // Groups are of a time before those formats.
            WireType::StartGroup | WireType::EndGroup => return Err(ProtobufError::Broken),
        };
        Ok((number, value))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(ProtobufError::Broken)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

impl<'a> Iterator for ProtobufFields<'a> {
    type Item = Result<ProtobufField<'a>, ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The text of a field.
pub(super) fn text<'a>((number, value): ProtobufField<'a>) -> Result<&'a str, ProtobufError> {
    str::from_utf8(bytes((number, value))?).map_err(|_| ProtobufError::NotText)
}

/// The bytes of a field, or the message in it.
pub(super) fn bytes<'a>((number, value): ProtobufField<'a>) -> Result<&'a [u8], ProtobufError> {
    match value {
        ProtobufValue::Bytes(bytes) => Ok(bytes),
        _ => Err(ProtobufError::WrongType(number)),
    }
}

/// A double.
pub(super) fn double((number, value): ProtobufField<'_>) -> Result<f64, ProtobufError> {
    match value {
        ProtobufValue::Fixed64(bits) => Ok(f64::from_bits(bits)),
        _ => Err(ProtobufError::WrongType(number)),
    }
}

/// An integer, negative ones in two's complement as `int32` and `int64` have them.
pub(super) fn integer((number, value): ProtobufField<'_>) -> Result<i64, ProtobufError> {
    match value {
        ProtobufValue::Varint(bits) => Ok(bits.cast_signed()),
        _ => Err(ProtobufError::WrongType(number)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_as_prost_writes_them() {
        use prost::encoding::{bytes, double, fixed32, int64};
        let mut message = Vec::new();
        double::encode(1, &-0.5, &mut message);
        int64::encode(2, &-7, &mut message);
        bytes::encode(3, &"né".as_bytes().to_vec(), &mut message);
        fixed32::encode(4, &9, &mut message);
        let fields: Result<Vec<_>, _> = ProtobufFields::of(&message).collect();
        let fields = fields.unwrap();
        assert_eq!(super::double(fields[0]), Ok(-0.5));
        assert_eq!(integer(fields[1]), Ok(-7));
        assert_eq!(text(fields[2]), Ok("né"));
        assert_eq!(fields[3], (4, ProtobufValue::Fixed32(9)));
        assert_eq!(text(fields[1]), Err(ProtobufError::WrongType(2)));
        let cut = ProtobufFields::of(&message[..message.len() - 1]).collect::<Result<Vec<_>, _>>();
        assert_eq!(cut.unwrap_err(), ProtobufError::Broken);
    }

    proptest! {
        #[test]
        fn any_bytes_are_fields_or_refused(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let fields: Vec<_> = ProtobufFields::of(&message).collect();
            prop_assert!(fields.len() <= message.len());
            let bad = fields.iter().position(Result::is_err);
            prop_assert!(bad.is_none_or(|at| at + 1 == fields.len()));
        }
    }
}
