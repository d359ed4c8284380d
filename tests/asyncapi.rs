//! docs/reference/asyncapi.yaml describes the messages that the hub reads and makes, and no others.

use std::collections::BTreeSet;

use pulsehub::protocol::{ClientMessage, GapReason};
use serde_json::Value;

use crate::{
    support::schema::Schemas,
    transcript::lists::{ERRORS, GAP_REASONS},
};

fn root() -> std::path::PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn document() -> Value {
    let text = std::fs::read_to_string(root().join("docs/reference/asyncapi.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

/// Every example of tests/protocol: whether a client sends it, and the message.
fn examples() -> Vec<(bool, Value)> {
    let files = std::fs::read_dir(root().join("tests/protocol")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let is_clients = path.file_name().unwrap().to_str().unwrap().starts_with("client-");
        (is_clients, serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    };
    files.map(read).collect()
}

#[test]
fn every_message_is_described_and_each_field_of_it() {
    let document = document();
    let schemas = Schemas { document: &document };
    let messages = document["components"]["messages"].as_object().unwrap();
    let mut seen = BTreeSet::new();
    for (is_clients, example) in examples() {
        let name = example["type"].as_str().unwrap();
        let message = messages.get(name).unwrap_or_else(|| panic!("{name} is not described"));
        let faults = schemas.faults(&message["payload"], &example);
        assert!(faults.is_empty(), "{name}: {faults:#?}");
        let operation = if is_clients { "fromClient" } else { "fromHub" };
        let listed = document["operations"][operation]["messages"].to_string();
        assert!(listed.contains(&format!("/messages/{name}\"")), "{name} is not in {operation}");
        assert!(!document["channels"]["realTime"]["messages"][name].is_null(), "{name}");
        seen.insert(name.to_owned());
    }
    // tests/golden.rs sees to it that there is an example of each message.
    assert_eq!(seen, messages.keys().cloned().collect());
}

#[test]
fn what_a_client_may_leave_out_is_described_so() {
    // Only what is required: the hub reads it.
    for text in [
        r#"{"type":"connect","id":1}"#,
        r#"{"type":"subscribe","id":1,"sub":"a","topics":["a.b"]}"#,
        r#"{"type":"unsubscribe","id":1,"sub":"a"}"#,
        r#"{"type":"refresh","id":1,"token":"t"}"#,
        r#"{"type":"publish","id":1,"events":[{"topic":"a.b"}]}"#,
        r#"{"type":"pong"}"#,
    ] {
        assert!(ClientMessage::parse(text).is_ok(), "{text}");
        let message: Value = serde_json::from_str(text).unwrap();
        let document = document();
        let described =
            &document["components"]["messages"][message["type"].as_str().unwrap()]["payload"];
        let required: BTreeSet<_> = described["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        let given: BTreeSet<_> = message.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(required, given, "{text}");
        for name in given.iter().filter(|name| **name != "type") {
            let mut less = message.clone();
            less.as_object_mut().unwrap().remove(*name);
            assert!(ClientMessage::parse(&less.to_string()).is_err(), "{less}");
        }
    }
}

#[test]
fn its_codes_are_those_of_the_hub() {
    let document = document();
    let listed = |name: &str| -> Vec<String> {
        let values = document["components"]["schemas"][name]["enum"].as_array().unwrap();
        values.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed("ErrorCode"), ERRORS.iter().map(|code| code.name()).collect::<Vec<_>>());
    let reasons: Vec<_> = GAP_REASONS.iter().map(|reason: &GapReason| reason.name()).collect();
    assert_eq!(listed("GapReason"), reasons);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}
