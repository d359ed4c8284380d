//! The documents name what the code has.

mod reference;

use std::{fs, path::Path};

use crate::transcript::lists::CLOSES;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Whether `name` stands in `document` as code.
#[track_caller]
fn assert_named(document: &str, name: &str) {
    assert!(document.contains(&format!("`{name}`")), "`{name}` is not in the document");
}

#[test]
fn protocol_md_names_every_refusal_error_and_close_code() {
    let document = read("docs/protocol.md");
    // In http/error.rs a line is NAME = STATUS "code" "title".
    let source = read("src/http/error.rs");
    let codes: Vec<&str> = source
        .lines()
        .filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_uppercase()))
        .filter(|line| line.contains(" = ") && line.trim_end().ends_with(';'))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(codes.len() > 20, "{codes:?}");
    codes.iter().for_each(|code| assert_named(&document, code));

    let source = read("src/protocol/error.rs");
    let errors: Vec<&str> = source
        .lines()
        .filter(|line| line.trim_start().starts_with("ErrorCode::"))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(errors.len() >= 11, "{errors:?}");
    errors.iter().for_each(|error| assert_named(&document, error));

    let source = read("src/protocol/close.rs");
    assert_eq!(source.matches("=> 4").count() + source.matches("=> 1").count(), CLOSES.len());
    for close in CLOSES {
        assert!(
            document.contains(&format!("| {} | `{}` |", close.number(), close.name())),
            "{close}"
        );
    }
}

#[test]
fn protocol_md_names_the_setting_of_every_limit() {
    let document = read("docs/protocol.md");
    let (_, limits) = document.split_once("## Limits").unwrap();
    let defaults: toml::Table = toml::from_str(&read("config/pulsehub.toml")).unwrap();
    let own = defaults["limits"].as_table().unwrap();
    let source = read("src/telemetry/limit.rs");
    let names: Vec<&str> = source
        .lines()
        .filter(|line| line.trim_start().starts_with("Limit::"))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        let row = format!("| `{name}` | `");
        assert!(own.contains_key(name) != limits.contains(&row), "`{name}` has no setting, or two");
    }
    let rows = limits.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
    for setting in rows.filter_map(|(_, rest)| rest.split('`').next()) {
        let (table, key) = setting.split_once('.').unwrap();
        assert!(defaults[table].get(key).is_some(), "`{setting}` is not a setting");
    }
}
