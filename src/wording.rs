//! What serde says of a value it cannot read, in the words of our own messages. Its sentences are those of
//! `serde::de::Error`, whose provided methods every format uses.

use std::{borrow::Cow, fmt, marker::PhantomData, str::FromStr};

use serde::{Deserializer, de};

/// The most bytes of a sentence: what others sent must not come back whole.
const LONGEST: usize = 400;

/// `message` of serde, serde_json or toml as a person would say it, to be put behind the name of what is wrong:
/// `must be a list, not the number 7`. What has none of serde's forms stays as it is.
pub fn plain(message: &str) -> String {
    in_words(message, "a table")
}

/// What was wanted where there is something else, without what there is: that may be a secret.
pub fn without_value(message: &str) -> Option<String> {
    let is_shown = ["invalid ", "unknown variant "].iter().any(|kind| message.starts_with(kind));
    let (_, wanted) = message.trim_end().rsplit_once(", expected ").filter(|_| is_shown)?;
    Some(format!("must be {}", expected(wanted, "a table")))
}

/// `group` is what names and values in braces are called where the text comes from.
fn in_words(message: &str, group: &str) -> String {
    let message = message.trim_end();
    let syntax = SYNTAX.iter().find(|(theirs, _)| *theirs == message);
    let syntax = syntax.map(|(_, ours)| (*ours).to_owned());
    let said = said(message, group).or(syntax).unwrap_or_else(|| message.to_owned());
    short(&said, LONGEST).into_owned()
}

/// What the reader of TOML says is wrong with a text, in our words; it does not say what would have been right.
pub fn toml_syntax(message: &str) -> String {
    let wrong = message.split(", expected ").next().unwrap_or_default().trim_end();
    let ours = TOML_SYNTAX.iter().find(|(theirs, _)| *theirs == wrong);
    ours.map_or(wrong, |(_, ours)| ours).to_owned()
}

/// A text of at most about `most` bytes: of a longer one the beginning and the end.
pub fn short(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let begin = &text[..text.floor_char_boundary(most / 2)];
    let end = &text[text.ceil_char_boundary(text.len() - most / 2)..];
    format!("{begin}…{end}").into()
}

/// The same as a whole sentence about what people know as `called`, or about a member of it: `message` may begin with
/// the members that lead there, as [`Object`](crate::json::Object) puts them before it.
pub fn about(called: &str, message: &str) -> String {
    let (mut path, mut rest) = (Vec::new(), message);
    while let Some((name, behind)) =
        rest.strip_prefix('`').and_then(|quoted| quoted.split_once("`: "))
    {
        path.push(name);
        rest = behind;
    }
    let said = in_words(rest, "an object");
    // What is no JSON is no matter of the member where that shows.
    let is_syntax = SYNTAX.iter().any(|(theirs, _)| *theirs == rest);
    let whole = match path.join(".") {
        path if path.is_empty() && said == rest => said,
        path if path.is_empty() || is_syntax => format!("{called} {said}"),
        path if said == rest => format!("`{path}`: {said}"),
        path => format!("`{path}` {said}"),
    };
    short(&whole, LONGEST).into_owned()
}

/// Reads what is written as a text of its own form. Anything else is told what is `wanted`, with an example.
pub fn read_text<'de, D, T>(deserializer: D, wanted: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct WrittenVisitor<T>(&'static str, PhantomData<T>);
    impl<T: FromStr<Err: fmt::Display>> de::Visitor<'_> for WrittenVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(WrittenVisitor(wanted, PhantomData))
}

/// The member that a type does not have, and those it has.
pub fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field `")?.split('`');
    let name = quoted.next()?;
    // In between stand "expected", "or", and commas.
    Some((name, quoted.skip(1).step_by(2).collect()))
}

/// Texts as a list that ends with `or`.
pub fn either<T: std::borrow::Borrow<str>>(texts: &[T]) -> String {
    match texts {
        [] => String::new(),
        [only] => only.borrow().to_owned(),
        [first @ .., last] => format!("{} or {}", first.join(", "), last.borrow()),
    }
}

fn said(message: &str, group: &str) -> Option<String> {
    if let Some((name, known)) = unknown_field(message) {
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        return Some(if known.is_empty() {
            format!("must be empty: it cannot have `{name}`")
        } else {
            format!("cannot have `{name}`, only {}", either(&known))
        });
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let mut quoted = rest.split('`');
        let given = quoted.next()?;
        let known: Vec<_> = quoted.skip(1).step_by(2).collect();
        return Some(format!("must be {}, not {given:?}", either(&known)));
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return Some(format!("needs {name}"));
    }
    if let Some(name) = message.strip_prefix("duplicate field ") {
        return Some(format!("has {name} twice"));
    }
    for kind in ["invalid type: ", "invalid value: ", "invalid length "] {
        let Some((given, wanted)) =
            message.strip_prefix(kind).and_then(|rest| rest.rsplit_once(", expected "))
        else {
            continue;
        };
        let given = match kind {
            "invalid length " if wanted.starts_with("struct ") => "a list".to_owned(),
            "invalid length " => format!("{given} of them"),
            _ => met(given, group),
        };
        let wanted = expected(wanted, group);
        let mend = match &*wanted {
            "a list" if given.starts_with('"') => ": put it into [ ]",
            _ => "",
        };
        return Some(format!("must be {wanted}, not {given}{mend}"));
    }
    None
}

/// What was found, as `serde::de::Unexpected` shows it.
fn met(given: &str, group: &str) -> String {
    for (kind, ours) in
        [("integer `", "the number "), ("floating point `", "the number "), ("boolean `", "")]
    {
        if let Some(value) = given.strip_prefix(kind).and_then(|rest| rest.strip_suffix('`')) {
            return format!("{ours}{value}");
        }
    }
    if let Some(text) = given.strip_prefix("string ") {
        return text.to_owned();
    }
    match given {
        "sequence" => "a list".into(),
        "map" => group.into(),
        "unit value" | "Option value" => "nothing".into(),
        other => other.to_owned(),
    }
}

/// What was wanted, as the types' `expecting` says it.
fn expected(wanted: &str, group: &str) -> String {
    let whole = |most: &str| format!("a whole number from 0 to {most}");
    match wanted {
        "a sequence" => "a list".into(),
        "a map" => group.into(),
        "a boolean" => "true or false".into(),
        "a borrowed string" | "a string" => "a text in quotes".into(),
        "f64" | "f32" => "a number".into(),
        "u8" => whole("255"),
        "u16" => whole("65535"),
        "u32" => whole("4294967295"),
        "u64" | "usize" => "a whole number, at least 0".into(),
        "i64" | "i32" | "isize" => "a whole number".into(),
        other if other.starts_with("struct ") => group.into(),
        other => other.to_owned(),
    }
}

/// What serde_json says of a text that is no JSON.
const SYNTAX: [(&str, &str); 16] = [
    ("EOF while parsing a list", "ends in the middle of a list"),
    ("EOF while parsing an object", "ends in the middle of an object"),
    ("EOF while parsing a string", "ends in the middle of a text"),
    ("EOF while parsing a value", "ends where a value should stand"),
    ("expected `:`", "has no `:` behind a name"),
    ("expected `,` or `]`", "has neither `,` nor `]` behind a value of a list"),
    ("expected `,` or `}`", "has neither `,` nor `}` behind a value of an object"),
    ("expected ident", "has something that is no JSON value"),
    ("expected value", "has something that is no JSON value"),
    ("invalid escape", "has a \\ before something that needs none"),
    ("invalid number", "has a number that is written wrongly"),
    ("number out of range", "has a number that is too large"),
    ("key must be a string", "has something else where a name in double quotes should stand"),
    ("trailing comma", "has a comma with nothing behind it"),
    ("trailing characters", "goes on behind its end"),
    ("recursion limit exceeded", "is nested too deeply"),
];

/// What the reader of TOML says most often.
const TOML_SYNTAX: [(&str, &str); 7] = [
    (
        "string values must be quoted",
        "a text must stand in double quotes; numbers, true and false stand without",
    ),
    ("key with no value", "a key and its value are written `key = value`"),
    ("missing value for key", "a key and its value are written `key = value`"),
    ("unclosed table", "a `[` has no `]`"),
    ("unclosed array", "a `[` has no `]`"),
    ("duplicate key", "this key stands there twice"),
    ("invalid unquoted key", "a key is made of letters, digits, _ and -"),
];

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what cannot be read is looked at")]
    struct Sample {
        count: u16,
        names: Option<Vec<String>>,
        mode: Option<Mode>,
        is_on: Option<bool>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        All,
        Latest,
    }

    #[test]
    fn every_form_of_serde_is_said_in_our_words() {
        for (text, says) in [
            ("{}", "needs `count`"),
            ("[]", "must be a table, not a list"),
            (r#"{"count":-1}"#, "must be a whole number from 0 to 65535, not the number -1"),
            (r#"{"count":1.5}"#, "must be a whole number from 0 to 65535, not the number 1.5"),
            (r#"{"count":"x"}"#, "must be a whole number from 0 to 65535, not \"x\""),
            (r#"{"count":1,"count":2}"#, "has `count` twice"),
            (r#"{"count":1,"names":"x"}"#, "must be a list, not \"x\": put it into [ ]"),
            (r#"{"count":1,"names":{}}"#, "must be a list, not a table"),
            (r#"{"count":1,"names":[null]}"#, "must be a text in quotes, not null"),
            (r#"{"count":1,"is_on":"yes"}"#, "must be true or false, not \"yes\""),
            (r#"{"count":1,"mode":"none"}"#, "must be all or latest, not \"none\""),
            (
                r#"{"count":1,"mod":"all"}"#,
                "cannot have `mod`, only `count`, `names`, `mode` or `is_on`",
            ),
            (r#"{"count""#, "ends in the middle of an object"),
            (r#"{"count":1"#, "ends in the middle of an object"),
            (r#"{"count":"#, "ends where a value should stand"),
            (r#"{"count":1,}"#, "has a comma with nothing behind it"),
            (r#"{"count":1} x"#, "goes on behind its end"),
            (r#"{count:1}"#, "has something else where a name in double quotes"),
            (r#"{"count" 1}"#, "has no `:` behind a name"),
            (r#"{"count":1 "names":[]}"#, "has neither `,` nor `}` behind a value of an object"),
            (r#"{"count":nul}"#, "has something that is no JSON value"),
        ] {
            let error = serde_json::from_str::<Sample>(text).unwrap_err().to_string();
            let said = plain(error.split(" at line").next().unwrap());
            assert!(said.starts_with(says), "{text}: {error} became {said}");
        }
        for (text, says) in [
            ("count = one", "must stand in double quotes"),
            ("count: 1", "written `key = value`"),
            ("[count", "a `[` has no `]`"),
            ("names = [1", "a `[` has no `]`"),
            ("count = 1\ncount = 2", "stands there twice"),
        ] {
            let error = toml::from_str::<Sample>(text).unwrap_err();
            let said = toml_syntax(error.message());
            assert!(said.contains(says), "{text}: {} became {said}", error.message());
        }
        let error = toml::from_str::<Sample>("count = 1\nnames = 7").unwrap_err();
        assert_eq!(plain(error.message()), "must be a list, not the number 7");
        assert_eq!(plain("the disk is full"), "the disk is full");
    }

    #[test]
    fn a_name_of_a_megabyte_came_back_whole() {
        let name = "é".repeat(500_000);
        for text in [
            format!("{{\"{name}\":1}}"),
            format!("{{\"count\":1,\"mode\":\"{name}\"}}"),
            format!("{{\"count\":\"{name}\"}}"),
        ] {
            let error = crate::json::read::<Sample>("the body", text.as_bytes()).unwrap_err();
            assert!(error.message.len() < 500, "{} bytes", error.message.len());
            assert!(error.message.contains('…'), "{}", error.message);
        }
        assert_eq!((&*short("ééé", 3), &*short("ééé", 6)), ("…", "ééé"));
    }
}
