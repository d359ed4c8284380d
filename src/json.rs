//! JSON from outside where derived readers take too much (arrays for structs) or too little (`50.0` is no
//! integer to them, though many languages have no other way to write 50).

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeSeed, MapAccess, Visitor,
        value::{CowStrDeserializer, MapAccessDeserializer},
    },
};

use crate::wording;

/// A JSON text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JsonError {
    /// What is wrong, with the member it is about.
    pub message: String,
    /// Counts from 1, as does the column.
    pub line: usize,
    /// In bytes.
    pub column: usize,
}

/// Reads `text`, which people know as `called`.
pub fn read<'a, T: Deserialize<'a>>(called: &str, text: &'a [u8]) -> Result<T, JsonError> {
    serde_json::from_slice(text).map_err(|error| JsonError {
        message: wording::about(called, &without_place(&error)),
        line: error.line(),
        column: error.column(),
    })
}

/// The message of serde_json, without the place at its end.
pub fn without_place(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    if message.ends_with(&place) {
        message.truncate(message.len() - place.len());
    }
    message
}

/// A struct that is read from an object only. Derived readers also take an array, its items in the order
/// of the fields, and fail with a member they do not know whose name is no Unicode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                let members = Named { members, last: Cow::Borrowed("") };
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Object)
    }
}

/// Members whose names are read as [`MemberName`]. An error in a member's value follows its name.
struct Named<'de, M> {
    members: M,
    last: Cow<'de, str>,
}

impl<'de, M: MapAccess<'de>> MapAccess<'de> for Named<'de, M> {
    type Error = M::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, M::Error> {
        let Some(MemberName(name)) = self.members.next_key()? else { return Ok(None) };
        self.last = name.clone();
        seed.deserialize(CowStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, M::Error> {
        let value = self.members.next_value_seed(seed);
        value.map_err(|error| de::Error::custom(format_args!("`{}`: {error}", self.last)))
    }
}

/// A whole number, also as `50.0` or `5e1`; a number with a fraction, or beyond the type, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole(pub i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;
        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
                let whole = i64::try_from(number);
                whole
                    .map(Whole)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Whole, E> {
                let refuse = || E::invalid_value(de::Unexpected::Float(number), &self);
                whole(number).map(Whole).ok_or_else(refuse)
            }
        }
        deserializer.deserialize_any(WholeVisitor)
    }
}

/// A member's name; what is no Unicode in it, such as half of a surrogate pair, is replaced, and does not cost the
/// members beside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberName<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for MemberName<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MemberNameVisitor;
        impl<'de> Visitor<'de> for MemberNameVisitor {
            type Value = MemberName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(MemberName(name.into()))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(MemberName(name.to_owned().into()))
            }

            fn visit_borrowed_bytes<E: de::Error>(self, name: &'de [u8]) -> Result<Self::Value, E> {
                Ok(MemberName(String::from_utf8_lossy(name)))
            }

            fn visit_bytes<E: de::Error>(self, name: &[u8]) -> Result<Self::Value, E> {
                Ok(MemberName(String::from_utf8_lossy(name).into_owned().into()))
            }
        }
        deserializer.deserialize_bytes(MemberNameVisitor)
    }
}

/// Reads a whole number of any type, also as `50.0` or `5e1`.
pub fn read_whole<T: std::str::FromStr + TryFrom<i64>>(text: &str) -> Option<T> {
    text.parse().ok().or_else(|| T::try_from(whole(text.parse().ok()?)?).ok())
}

/// The number as an integer, if it has no fraction and every integer up to it is a double.
#[expect(clippy::cast_possible_truncation, reason = "its size is looked at first")]
fn whole(number: f64) -> Option<i64> {
    const MOST: f64 = (1_u64 << 53) as f64;
    (number.fract() == 0.0 && number.abs() <= MOST).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_member() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only what cannot be read is looked at")]
        struct Outer {
            list: Vec<Object<Inner>>,
        }
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only what cannot be read is looked at")]
        struct Inner {
            count: u8,
        }
        for (text, says) in [
            (r#"{"list":7}"#, "`list` must be a list, not the number 7"),
            (
                r#"{"list":[{"count":1},{"count":"x"}]}"#,
                "`list.count` must be a whole number from 0 to 255, not \"x\"",
            ),
            (r#"{"list":[{"count":1,"size":2}]}"#, "`list` cannot have `size`, only `count`"),
            (r#"{"lists":[]}"#, "the body cannot have `lists`, only `list`"),
            ("{}", "the body needs `list`"),
            ("[]", "the body must be an object, not a list"),
            (r#"{"list":[}"#, "the body has something that is no JSON value"),
            (r#"{"list":[]} x"#, "the body goes on behind its end"),
        ] {
            let error = read::<Object<Outer>>("the body", text.as_bytes()).unwrap_err();
            assert_eq!(error.message, says, "{text}");
            assert_eq!(error.line, 1);
        }
    }

    #[test]
    fn integers_are_taken_however_they_are_written() {
        for text in ["50", "50.0", "5e1", "500e-1"] {
            assert_eq!(read_whole::<usize>(text), Some(50), "{text}");
            assert_eq!(serde_json::from_str::<Whole>(text).unwrap(), Whole(50), "{text}");
        }
        for text in ["50.5", "1e300", "\"50\"", "null", "true", "[50]"] {
            assert_eq!(read_whole::<u64>(text), None, "{text}");
            assert!(serde_json::from_str::<Whole>(text).is_err(), "{text}");
        }
        assert_eq!(read_whole::<u64>("-1.0"), None);
        assert_eq!(read_whole::<u64>("18446744073709551615"), Some(u64::MAX));
        assert_eq!((read_whole::<u64>("inf"), read_whole::<u64>("NaN")), (None, None));
    }

    #[test]
    fn an_array_is_no_object() {
        #[derive(Debug, Deserialize)]
        struct Pair<'a> {
            one: u8,
            #[serde(borrow)]
            two: Option<&'a serde_json::value::RawValue>,
        }
        let read = |text| serde_json::from_str::<Object<Pair<'_>>>(text);
        let Object(pair) = read(r#"{"two":[1e400,"\ud800"],"one":1}"#).unwrap();
        assert_eq!((pair.one, pair.two.unwrap().get()), (1, r#"[1e400,"\ud800"]"#));
        assert!(read("[1,2]").is_err() && read("7").is_err());
        assert!(read(r#"{"one":1,"one":2}"#).is_err());
    }
}
