//! The log in Redis as the command line reads it, which is no node.

use std::process::{Command, Output};

use pulsehub::{
    broker::{Broker, journal::RetentionRule},
    telemetry::Telemetry,
    time::{Clock, Span},
    topic::TopicPattern,
};
use serde_json::Value;

use super::journal;
use crate::support::{admitted, event, redis::RedisServer};

const START: u64 = 1_800_000_000_000;

async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsehub"));
    command.env_clear().args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn export(url: &str, more: &[&str]) -> Vec<(u64, Value)> {
    let output = run(&[&["export", "--redis", url], more].concat()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["offset"].as_u64().unwrap(), event["data"].clone())
    };
    String::from_utf8(output.stdout).unwrap().lines().map(event).collect()
}

/// How `check` ends, and all it says.
async fn check(url: &str) -> (Option<i32>, String) {
    let output = run(&["check", "--redis", url]).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn what_is_kept_is_exported_and_what_is_damaged_is_found() {
    let redis = RedisServer::start().await;
    let url = &*redis.url();
    let refused = run(&["export", "--redis", url]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("holds no log"), "{refused:?}");

    let clock = Clock::manual(START);
    let short = RetentionRule {
        topics: vec![TopicPattern::parse("short.*").unwrap()],
        max_age: Some(Span::seconds(60)),
        max_bytes: None,
    };
    let mut config = journal();
    config.retention = vec![short];
    let broker = Broker::join(config, redis.server(), clock.clone(), Telemetry::new());
    let broker = broker.await.unwrap();
    let publish = async |topic: &str, data: usize| {
        let event = event(topic, "s", &format!("{topic} {data}"), None, &data.to_string());
        broker.publish(admitted(vec![event])).await.unwrap().position.offset
    };
    let mut kept = Vec::new();
    for n in 0..100 {
        kept.push((publish("a.x", n).await, n.into()));
        publish("short.x", n).await;
    }
    clock.set(START + 61_000);
    broker.maintain().await;
    kept.push((publish("short.x", 100).await, 100.into()));
    assert_eq!(export(url, &[]).await, kept);
    let after = kept[40].0.to_string();
    assert_eq!(export(url, &["--topics", "a.*", "--after", &after]).await, kept[41..100]);
    let (code, said) = check(url).await;
    assert_eq!(code, Some(0), "{said}");
    let head = kept[100].0;
    assert!(
        said.ends_with(&format!("log: good, 201 events in 201 blocks, head at {head}\n")),
        "{said}"
    );

    // A block is gone, another is no block.
    let log = "{pulsehub}:log";
    let gone = format!("{}-0", kept[50].0);
    assert_eq!(redis.ask::<u64>(&["XDEL", log, &gone]).await, 1);
    redis.ask::<String>(&["XADD", log, &format!("{}-0", head + 1), "b", "junk"]).await;
    let (code, said) = check(url).await;
    assert_eq!(code, Some(1), "{said}");
    let next = format!(
        "the entry {}-0 of the log does not begin where the one before ends",
        kept[50].0 + 1
    );
    for fault in
        [&*next, &format!("the entry {}-0 of the log is damaged", head + 1), "beyond the head"]
    {
        assert!(said.contains(fault), "{fault}: {said}");
    }
    let failed = run(&["export", "--redis", url]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("is damaged"), "{failed:?}");
    broker.close().await;
}
