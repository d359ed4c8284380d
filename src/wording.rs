//! What serde says of a value it cannot read, in the words of our own messages. Its sentences are those of
//! `serde::de::Error`, whose provided methods every format uses.

/// `message` of serde, serde_json or toml as a person would say it, to be put behind the name of what is wrong:
/// `is a list, not the number 7`. What has none of serde's forms stays as it is.
pub fn plain(message: &str) -> String {
    let message = message.trim_end();
    let syntax = SYNTAX.iter().find(|(theirs, _)| *theirs == message);
    let syntax = syntax.map(|(_, ours)| (*ours).to_owned());
    said(message).or(syntax).unwrap_or_else(|| message.to_owned())
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
    let said = plain(rest);
    // What is no JSON is no matter of the member where that shows.
    let is_syntax = SYNTAX.iter().any(|(theirs, _)| *theirs == rest);
    match path.join(".") {
        path if path.is_empty() && said == rest => said,
        path if path.is_empty() || is_syntax => format!("{called} {said}"),
        path if said == rest => format!("`{path}`: {said}"),
        path => format!("`{path}` {said}"),
    }
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

fn said(message: &str) -> Option<String> {
    if let Some((name, known)) = unknown_field(message) {
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        return Some(if known.is_empty() {
            format!("has no `{name}`, and nothing else either")
        } else {
            format!("has no `{name}`: there is {}", either(&known))
        });
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let mut quoted = rest.split('`');
        let given = quoted.next()?;
        let known: Vec<_> = quoted.skip(1).step_by(2).collect();
        return Some(format!("is {}, not {given:?}", either(&known)));
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
            _ => met(given),
        };
        return Some(format!("is {}, not {given}", expected(wanted)));
    }
    None
}

/// What was found, as `serde::de::Unexpected` shows it.
fn met(given: &str) -> String {
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
        "map" => "a table or object".into(),
        "unit value" | "Option value" => "nothing".into(),
        other => other.to_owned(),
    }
}

/// What was wanted, as the types' `expecting` says it.
fn expected(wanted: &str) -> String {
    let whole = |most: &str| format!("a whole number from 0 to {most}");
    match wanted {
        "a sequence" => "a list".into(),
        "a map" => "a table or object".into(),
        "a boolean" => "true or false".into(),
        "a borrowed string" | "a string" => "a text".into(),
        "f64" | "f32" => "a number".into(),
        "u8" => whole("255"),
        "u16" => whole("65535"),
        "u32" => whole("4294967295"),
        "u64" | "usize" => "a whole number, at least 0".into(),
        "i64" | "i32" | "isize" => "a whole number".into(),
        other if other.starts_with("struct ") => "a table or object".into(),
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
    ("key must be a string", "has a name that is no text in quotes"),
    ("trailing comma", "has a comma with nothing behind it"),
    ("trailing characters", "goes on behind its end"),
    ("recursion limit exceeded", "is nested too deeply"),
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
            ("[]", "is a table or object, not a list"),
            (r#"{"count":-1}"#, "is a whole number from 0 to 65535, not the number -1"),
            (r#"{"count":1.5}"#, "is a whole number from 0 to 65535, not the number 1.5"),
            (r#"{"count":"x"}"#, "is a whole number from 0 to 65535, not \"x\""),
            (r#"{"count":1,"count":2}"#, "has `count` twice"),
            (r#"{"count":1,"names":"x"}"#, "is a list, not \"x\""),
            (r#"{"count":1,"names":{}}"#, "is a list, not a table or object"),
            (r#"{"count":1,"names":[null]}"#, "is a text, not null"),
            (r#"{"count":1,"is_on":"yes"}"#, "is true or false, not \"yes\""),
            (r#"{"count":1,"mode":"none"}"#, "is all or latest, not \"none\""),
            (
                r#"{"count":1,"mod":"all"}"#,
                "has no `mod`: there is `count`, `names`, `mode` or `is_on`",
            ),
            (r#"{"count""#, "ends in the middle of an object"),
            (r#"{"count":1"#, "ends in the middle of an object"),
            (r#"{"count":"#, "ends where a value should stand"),
            (r#"{"count":1,}"#, "has a comma with nothing behind it"),
            (r#"{"count":1} x"#, "goes on behind its end"),
            (r#"{count:1}"#, "has a name that is no text in quotes"),
            (r#"{"count" 1}"#, "has no `:` behind a name"),
            (r#"{"count":1 "names":[]}"#, "has neither `,` nor `}` behind a value of an object"),
            (r#"{"count":nul}"#, "has something that is no JSON value"),
        ] {
            let error = serde_json::from_str::<Sample>(text).unwrap_err().to_string();
            let said = plain(error.split(" at line").next().unwrap());
            assert!(said.starts_with(says), "{text}: {error} became {said}");
        }
        let error = toml::from_str::<Sample>("count = 1\nnames = 7").unwrap_err();
        assert_eq!(plain(error.message()), "is a list, not the number 7");
        assert_eq!(plain("the disk is full"), "the disk is full");
    }
}
