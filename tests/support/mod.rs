//! What the tests share.

pub(crate) mod blocks;
pub(crate) mod checker;
pub(crate) mod dice;
pub(crate) mod diff;
pub(crate) mod document;
pub(crate) mod flext;
pub(crate) mod haproxy;
pub(crate) mod hub;
pub(crate) mod kept;
pub(crate) mod load;
pub(crate) mod nginx;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod remote_write;
pub(crate) mod schema;
pub(crate) mod sentinel;
pub(crate) mod small_disk;
pub(crate) mod stream;

use std::time::{Duration, Instant};

use pulsehub::{
    admission::{Admission, Admitted, BatchLimits, OwnEvent},
    auth::{self, Principal},
    broker::Batch,
    event::{Event, PublisherName},
    grants::Grants,
    topic::{OwnTopics, Topic, TopicFilter, TopicPattern},
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

/// The events as a batch for the log, from who may publish on every topic; those on the hub's topics are its own, and
/// come last.
pub(crate) fn admitted(events: Vec<Event>) -> Batch<'static> {
    admit(events).into()
}

/// The same, to be queued.
pub(crate) fn admit(events: Vec<Event>) -> Admitted {
    let everywhere = vec![TopicPattern::parse("**").unwrap()];
    let publisher = Principal {
        publisher: PublisherName::key("test"),
        grants: Grants { publish: everywhere, ..Grants::default() },
        ..Principal::hub()
    };
    let unlimited = BatchLimits { event: usize::MAX, batch: usize::MAX };
    let (own, others) = events.into_iter().partition(|event| event.topic.is_reserved());
    let admission = Admission::new(OwnTopics::default(), unlimited);
    let mut admitted = admission.admit(&publisher, None, others).unwrap();
    let own: Vec<Event> = own;
    admitted.extend(own.into_iter().map(|event| {
        let own = OwnEvent::new(&event.topic, "test", 0, event.data).with_source(&event.source);
        let own = own.with_id(event.id.into());
        match &event.key {
            Some(key) => own.with_key(key),
            None => own,
        }
    }));
    admitted
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
pub(crate) fn auth_config(text: &str) -> auth::AuthConfig {
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
