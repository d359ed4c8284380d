//! What the tests share.

pub(crate) mod checker;
pub(crate) mod dice;
pub(crate) mod diff;
pub(crate) mod flext;
pub(crate) mod hub;
pub(crate) mod load;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod sentinel;
pub(crate) mod small_disk;

use std::time::{Duration, Instant};

use pulsehub::{
    auth,
    event::{Event, PublisherName},
    topic::{Topic, TopicFilter, TopicPattern},
};
use serde_json::value::RawValue;

/// The longest any condition is waited for; long, for a slow machine must not fail a test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// An event of `source`, whose id the producer made.
pub(crate) fn event(topic: &str, source: &str, id: &str, key: Option<&str>, data: &str) -> Event {
    Event {
        topic: Topic::parse(topic).unwrap(),
        id: id.into(),
        id_is_ours: false,
        publisher: PublisherName::key("test"),
        source: source.into(),
        kind: None,
        time: "2026-11-20T12:00:00Z".into(),
        key: key.map(Into::into),
        data: RawValue::from_string(data.to_owned()).unwrap(),
    }
}

/// The union of `patterns`.
pub(crate) fn filter(patterns: &[&str]) -> TopicFilter {
    TopicFilter::new(patterns.iter().map(|text| TopicPattern::parse(text).unwrap()))
}

/// Polls until `condition` gives something; panics with `what` at the deadline.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `[auth]` with the keys in `text` in place of the defaults.
pub(crate) fn auth_config(text: &str) -> auth::Config {
    let defaults = r#"
        issuer = ""
        audience = []
        not_before_leeway = "5s"
        roles_claim = "role"
        subscribe_claim = "subscribe"
        publish_claim = "publish"
        query_token = false
        passes_per_principal = 1000
        wrong_sign_ins = 10
        keys = []
        roles = {}
    "#;
    let mut table: toml::Table = defaults.parse().unwrap();
    table.extend(text.parse::<toml::Table>().unwrap());
    table.try_into().unwrap()
}

/// Sends a signal to a process of the test's own.
pub(crate) fn signal(process: u32, name: &str) {
    let mut kill = std::process::Command::new("kill");
    let sent = kill.args([format!("-{name}"), process.to_string()]).status().unwrap();
    assert!(sent.success());
}
