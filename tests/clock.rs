//! A clock that is wrong: what a hub believes of it, and that it deletes nothing by it.

use std::path::PathBuf;

use pulsehub::time::{Clock, parse_rfc3339};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    eventually,
    process::{Home, Process},
    redis::RedisServer,
};

/// A clock of processes that a test sets forward and back.
struct FalseClock(TempDir);

impl FalseClock {
    fn new() -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.set("+0");
        clock
    }

    /// Moves it from the true time by so much, such as `+2d`.
    fn set(&self, by: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, by).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("time")
    }

    /// A home whose hubs go by it; their monotonic clock stays true.
    fn home(&self, settings: &str) -> Home {
        let mut libraries = std::fs::read_dir("/usr/lib").unwrap().filter_map(|folder| {
            let file = folder.ok()?.path().join("faketime/libfaketimeMT.so.1");
            file.exists().then_some(file)
        });
        let library = libraries.next().expect("faketime is not installed: run tools/setup");
        Home::new(settings)
            .with_variable("LD_PRELOAD", library.to_str().unwrap())
            .with_variable("FAKETIME_TIMESTAMP_FILE", self.file().to_str().unwrap())
            .with_variable("FAKETIME_NO_CACHE", "1")
            .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .with_variable("DONT_FAKE_MONOTONIC", "1")
    }
}

/// Stores one event; the token is made by the clock as it is.
async fn publish(home: &Home, hub: &Process, data: &str) {
    let url = format!("http://{}/api/v1/publish", hub.address());
    let event = json!({"topic": "a.b", "data": data});
    let request = reqwest::Client::new().post(url).bearer_auth(home.token("me", "a.*"));
    let answer = request.json(&event).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
}

async fn history(home: &Home, hub: &Process, query: &str) -> Vec<String> {
    let url = format!("http://{}/api/v1/history?topics=a.b{query}", hub.address());
    let request = reqwest::Client::new().get(url).bearer_auth(home.token("me", "a.*"));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let events = answer["events"].as_array().unwrap_or_else(|| panic!("{answer}"));
    events.iter().map(|event| event["data"].as_str().unwrap().to_owned()).collect()
}

/// Whether the newest event was received within a day of the true time: by a clock two days off it was not.
async fn is_received_now(home: &Home, hub: &Process) -> bool {
    const DAY: u64 = 86_400_000;
    let url = format!("http://{}/api/v1/topics", hub.address());
    let request = reqwest::Client::new().get(url).bearer_auth(home.token("me", "a.*"));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let received = answer["topics"][0]["last_received"].as_str();
    let received = parse_rfc3339(received.unwrap_or_else(|| panic!("{answer}"))).unwrap();
    received.abs_diff(Clock::system().now()) < DAY
}

async fn metric(hub: &Process, name: &str) -> f64 {
    let url = format!("http://{}/metrics", hub.address());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until the hub has stored some of its own events, one a second: retention has had its turn.
async fn retention_has_run(hub: &Process) {
    let before = metric(hub, "pulsehub_events_stored_total").await;
    eventually("events of the hub's own", async || {
        (metric(hub, "pulsehub_events_stored_total").await >= before + 3.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_clock_two_days_ahead_for_a_moment_empties_no_log_and_freezes_nothing() {
    let clock = FalseClock::new();
    let home = clock.home("[journal]\nmax_age = \"1h\"\nsync = \"normal\"\n");
    let hub = home.start().await;
    publish(&home, &hub, "before").await;
    clock.set("+2d");
    eventually("the jump is noticed", async || {
        (metric(&hub, "pulsehub_clock_jumps_total").await == 1.0).then_some(())
    })
    .await;
    publish(&home, &hub, "ahead").await;
    assert!(is_received_now(&home, &hub).await, "a jump is not followed at once");
    retention_has_run(&hub).await;
    assert_eq!(metric(&hub, "pulsehub_clock_unsettled").await, 1.0);
    let ready = reqwest::get(format!("http://{}/readyz", hub.address())).await.unwrap();
    let ready = ready.text().await.unwrap();
    assert!(ready.contains("the clock jumped"), "{ready}");
    assert_eq!(history(&home, &hub, "").await, ["before", "ahead"], "{}", home.log());
    clock.set("+0");
    publish(&home, &hub, "right").await;
    assert!(is_received_now(&home, &hub).await);
    assert_eq!(history(&home, &hub, "&since=1m").await.last().unwrap(), "right");
    eventually("the clock is believed again", async || {
        (metric(&hub, "pulsehub_clock_unsettled").await == 0.0).then_some(())
    })
    .await;
    drop(hub);

    // The same at a start, and behind as well.
    for (by, data) in [("+2d", "started ahead"), ("-2d", "started behind")] {
        clock.set(by);
        let hub = home.start().await;
        publish(&home, &hub, data).await;
        retention_has_run(&hub).await;
        assert_eq!(metric(&hub, "pulsehub_clock_unsettled").await, 1.0);
        drop(hub);
    }
    clock.set("+0");
    let hub = home.start().await;
    publish(&home, &hub, "last").await;
    assert!(is_received_now(&home, &hub).await, "time goes on where it is right again");
    retention_has_run(&hub).await;
    let all = ["before", "ahead", "right", "started ahead", "started behind", "last"];
    assert_eq!(history(&home, &hub, "").await, all);
    assert_eq!(history(&home, &hub, "&since=1m").await.last().unwrap(), "last");
}

/// Signs in with a token; the cookie.
async fn sign_in(home: &Home, hub: &Process) -> String {
    let url = format!("http://{}/api/v1/session", hub.address());
    let request = reqwest::Client::new().post(url).json(&json!({"token": home.token("me", "a.*")}));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

async fn is_signed_in(hub: &Process, cookie: &str) -> bool {
    let url = format!("http://{}/api/v1/session", hub.address());
    let answer = reqwest::Client::new().get(url).header("cookie", cookie).send().await.unwrap();
    answer.status() == 200
}

/// What is known of the series `a.n`.
async fn series(home: &Home, hub: &Process) -> Option<f64> {
    let url = format!("http://{}/api/v1/series/query?name=a.n&from=1h&step=10s", hub.address());
    let request = reqwest::Client::new().get(url).bearer_auth(home.token("me", "a.*"));
    let columns: Value = request.send().await.unwrap().json().await.unwrap();
    columns["values"].get(0)?.as_array()?.iter().find_map(Value::as_f64)
}

#[tokio::test]
async fn a_clock_forty_days_ahead_for_a_moment_signs_nobody_out_and_takes_no_series() {
    let clock = FalseClock::new();
    let home = clock.home("[journal]\nsync = \"normal\"\n[series]\nsave_every = \"1s\"\n");
    let hub = home.start().await;
    let cookie = sign_in(&home, &hub).await;
    let url = format!("http://{}/api/v1/publish", hub.address());
    let event = json!({"topic": "a.metrics", "data": {"n": 7}});
    let request = reqwest::Client::new().post(url).bearer_auth(home.token("me", "a.*"));
    assert_eq!(request.json(&event).send().await.unwrap().status(), 200);
    eventually("the series", async || series(&home, &hub).await).await;
    clock.set("+40d");
    eventually("the jump is noticed", async || {
        (metric(&hub, "pulsehub_clock_jumps_total").await == 1.0).then_some(())
    })
    .await;
    // Whoever signs in makes the store drop what has run out.
    sign_in(&home, &hub).await;
    retention_has_run(&hub).await;
    assert!(is_signed_in(&hub, &cookie).await, "{}", home.log());
    clock.set("+0");
    eventually("the clock is believed again", async || {
        (metric(&hub, "pulsehub_clock_unsettled").await == 0.0).then_some(())
    })
    .await;
    assert!(is_signed_in(&hub, &cookie).await, "{}", home.log());
    assert_eq!(series(&home, &hub).await, Some(7.0));
}

#[tokio::test]
async fn one_node_with_a_clock_ahead_empties_nobodys_redis() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let settings = format!(
        "redis = \"{url}\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n[journal]\nmax_age = \"1h\"\n"
    );
    let (wrong, right) = (FalseClock::new(), FalseClock::new());
    wrong.set("+2d");
    // It comes first, so that retention is its turn.
    let (bad_home, good_home) = (wrong.home(&settings), right.home(&settings));
    let bad = bad_home.start().await;
    retention_has_run(&bad).await;
    let good = good_home.start().await;
    publish(&good_home, &good, "right").await;
    let cookie = sign_in(&good_home, &good).await;
    sign_in(&bad_home, &bad).await;
    assert!(is_signed_in(&good, &cookie).await, "another node's clock signs nobody out");
    publish(&bad_home, &bad, "ahead").await;
    assert!(is_received_now(&good_home, &good).await, "Redis' time is the measure");
    publish(&good_home, &good, "right again").await;
    retention_has_run(&bad).await;
    for _ in 0..2 {
        let all = history(&good_home, &good, "").await;
        assert_eq!(all, ["right", "ahead", "right again"], "{}", bad_home.log());
        assert_eq!(history(&good_home, &good, "&since=1m").await, all);
        retention_has_run(&good).await;
    }
    assert_eq!(metric(&bad, "pulsehub_clock_unsettled").await, 1.0);
    assert_eq!(metric(&good, "pulsehub_clock_unsettled").await, 0.0);
}

#[tokio::test]
async fn a_node_whose_turn_it_was_not_hid_its_clock() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let settings = format!("redis = \"{url}\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n");
    let (wrong, right) = (FalseClock::new(), FalseClock::new());
    wrong.set("-2d");
    let (bad_home, good_home) = (wrong.home(&settings), right.home(&settings));
    // It comes first, so that retention is its turn.
    let good = good_home.start().await;
    retention_has_run(&good).await;
    let bad = bad_home.start().await;
    eventually("the clock is shown", async || {
        (metric(&bad, "pulsehub_clock_unsettled").await == 1.0).then_some(())
    })
    .await;
    let ready = async |hub: &Process| {
        let url = format!("http://{}/readyz", hub.address());
        reqwest::get(url).await.unwrap().text().await.unwrap()
    };
    let said = "the clocks of Redis and of this node disagree";
    assert!(ready(&bad).await.contains(said), "{}", ready(&bad).await);
    assert!(!ready(&good).await.contains(said), "{}", ready(&good).await);
    assert_eq!(metric(&good, "pulsehub_clock_unsettled").await, 0.0);
}
