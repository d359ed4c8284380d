//! JSON as Python writes it: `NaN`, `Infinity` and `-Infinity` stand bare, which JSON (RFC 8259,
//! section 6) has no words for. Here they are null, and so is a number too large for a double.

use std::borrow::Cow;

use super::{Refusal, parts};
use crate::{protocol::Losses, telemetry::DroppedPart};

/// A body that JSON readers can read.
#[derive(Debug)]
pub struct Lenient<'a> {
    /// The body's text; its own where nothing had to be changed.
    pub text: Cow<'a, str>,
    /// How many numbers became null.
    pub nulled: usize,
}

impl Lenient<'_> {
    /// What was lost by it.
    pub fn losses(&self) -> Losses {
        let mut losses = Losses::default();
        losses.add(DroppedPart::Number, self.nulled, || {
            "a number that JSON cannot say (NaN, Infinity, 1e999) is now null".to_owned()
        });
        losses
    }
}

/// Reads `body`, which may still be no JSON at all.
pub fn read(body: &[u8]) -> Result<Lenient<'_>, Refusal> {
    let text =
        std::str::from_utf8(body).map_err(|error| parts::not_utf8(body, error.valid_up_to()))?;
    let (mut mended, mut kept_to, mut nulled) = (String::new(), 0, 0);
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = body.get(at) {
        let length = match byte {
            b'\\' if in_string => 2,
            b'"' => {
                in_string = !in_string;
                1
            }
            _ if in_string => 1,
            b'N' | b'I' | b'-' | b'0'..=b'9' => match number(&body[at..]) {
                (length, true) => length,
                (length, false) => {
                    mended.push_str(&text[kept_to..at]);
                    mended.push_str("null");
                    (kept_to, nulled) = (at + length, nulled + 1);
                    length
                }
            },
            _ => 1,
        };
        at += length;
    }
    if nulled == 0 {
        return Ok(Lenient { text: Cow::Borrowed(text), nulled });
    }
    mended.push_str(&text[kept_to..]);
    Ok(Lenient { text: Cow::Owned(mended), nulled })
}

/// The length of the number that `rest` begins with, and whether it is a finite one. What is no
/// number after all is left to the JSON reader.
fn number(rest: &[u8]) -> (usize, bool) {
    let word = |word: &str| rest.starts_with(word.as_bytes()).then_some((word.len(), false));
    if let Some(found) = word("NaN").or_else(|| word("Infinity")).or_else(|| word("-Infinity")) {
        return found;
    }
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let length = rest.iter().take_while(|byte| is_part(byte)).count();
    let digits = std::str::from_utf8(&rest[..length]).unwrap_or_default();
    (length.max(1), !digits.parse().is_ok_and(f64::is_infinite))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mended(text: &str) -> (String, usize) {
        let lenient = read(text.as_bytes()).unwrap();
        (lenient.text.into_owned(), lenient.nulled)
    }

    #[test]
    fn what_json_has_no_words_for_becomes_null() {
        let text = r#"{"a":NaN,"b":[Infinity, -Infinity,-1],"c":1e999,"d":-2E+400,"e":1e308}"#;
        let want = r#"{"a":null,"b":[null, null,-1],"c":null,"d":null,"e":1e308}"#;
        assert_eq!(mended(text), (want.to_owned(), 5));
    }

    #[test]
    fn text_stays_as_it_is() {
        let text = r#"{"NaN":"NaN \" -Infinity \\","e":"é 1e999"}"#;
        assert_eq!(mended(text), (text.to_owned(), 0));
        for no_json in ["", "\"\\", "-", "Nan", "1e", "\u{1F600}NaNN", "{\"a\":I}"] {
            assert!(serde_json::from_str::<serde_json::Value>(&mended(no_json).0).is_err());
        }
        let refused = read(b"{\"a\":\n\xff}").unwrap_err();
        assert!(matches!(refused, Refusal::Malformed { line: 2, column: 1, .. }), "{refused:?}");
    }

    proptest! {
        #[test]
        fn good_json_is_never_touched(text in "[\"\\\\a1.eE+NIé -]{0,40}") {
            let json = serde_json::Value::from(text).to_string();
            prop_assert_eq!(mended(&json), (json.clone(), 0));
        }

        #[test]
        fn anything_at_all_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&bytes);
        }
    }
}
