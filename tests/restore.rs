//! A data folder that was put back from a copy: positions of the run that the copy never saw are told lost.

use std::path::Path;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    DEADLINE,
    hub::{Client, PROTOCOL, offset},
    process::{Home, Process},
};

const PATTERN: &str = "copy.*";
const SETTINGS: &str = "[journal]\nsync = \"normal\"\n";

#[tokio::test]
async fn a_restored_copy_does_not_take_the_lost_run_for_its_own() {
    let home = Home::new(SETTINGS);
    let hub = home.start().await;
    let token = home.token("ada", PATTERN);
    let shared = publish(&hub, &token, 0..5).await;
    let copy = tempfile::tempdir().unwrap();
    copy_running(&hub, &home.data(), copy.path());
    let lost = publish(&hub, &token, 5..10).await;
    hub.kill();
    std::fs::remove_dir_all(home.data()).unwrap();
    std::fs::create_dir(home.data()).unwrap();
    copy_files(copy.path(), &home.data());

    let hub = home.start().await;
    // As many again, so that offsets alone would not tell.
    publish(&hub, &token, 20..25).await;
    let numbers = async |client: &mut Client, count| -> Vec<u64> {
        let events = client.events("s", count).await;
        events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
    };
    let (mut client, subscribed) = resume(&hub, &token, &lost).await;
    assert_eq!(subscribed["recovered"], false, "{subscribed}");
    let gap = client.expect("gap").await;
    assert_eq!((&gap["reason"], offset(&gap["from"])), (&json!("epoch"), offset(&lost) + 1));
    assert!(offset(&gap["to"]) > offset(&lost), "{gap}");
    assert_eq!(numbers(&mut client, 5).await, [20, 21, 22, 23, 24]);
    client.expect("live").await;

    let (mut client, subscribed) = resume(&hub, &token, &shared).await;
    assert_eq!(subscribed["recovered"], true, "{subscribed}");
    // `events` would fail at a gap.
    assert_eq!(numbers(&mut client, 5).await, [20, 21, 22, 23, 24]);
    client.expect("live").await;

    // The same over HTTP.
    let page = async |after: &Value| {
        let after = after.as_str().unwrap();
        let path = format!("/api/v1/history?topics={PATTERN}&after={after}&limit=100");
        let url = format!("http://{}{path}", hub.address());
        let answer = http().get(url).bearer_auth(&token).send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    let (status, page_of_the_lost) = page(&lost).await;
    assert_eq!((status, &page_of_the_lost["code"]), (StatusCode::GONE, &json!("epoch_changed")));
    let (status, page_of_the_lost) = page(&json!(offset(&lost).to_string())).await;
    assert_eq!((status, &page_of_the_lost["code"]), (StatusCode::GONE, &json!("epoch_changed")));
    let (status, rest) = page(&shared).await;
    assert_eq!((status, rest["events"].as_array().unwrap().len()), (StatusCode::OK, 5));
    assert!(rest["gap"].is_null(), "{rest}");
    hub.kill();
}

#[tokio::test]
async fn a_copy_and_its_original_that_both_go_on_know_each_others_positions_for_lost() {
    let (home, other) = (Home::new(SETTINGS), Home::new(SETTINGS));
    let hub = home.start().await;
    let token = home.token("ada", PATTERN);
    let shared = publish(&hub, &token, 0..5).await;
    std::fs::create_dir(other.data()).unwrap();
    copy_running(&hub, &home.data(), &other.data());
    let copy = other.start().await;
    let ours = publish(&hub, &token, 5..10).await;
    let theirs = publish(&copy, &token, 20..25).await;
    for (hub, position, events) in [(&hub, &shared, 5..10), (&copy, &shared, 20..25)] {
        goes_on(hub, &token, position, events).await;
    }
    is_lost(&copy, &token, &ours).await;
    is_lost(&hub, &token, &theirs).await;

    // Both once more, one killed and one in order: what is their own stays so.
    hub.kill();
    crate::support::signal(copy.id(), "TERM");
    let mut copy = copy;
    assert_eq!(copy.ends().await, Some(0));
    let (hub, copy) = (home.start().await, other.start().await);
    let (ours_again, theirs_again) =
        (publish(&hub, &token, 10..12).await, publish(&copy, &token, 25..27).await);
    goes_on(&hub, &token, &ours, 10..12).await;
    goes_on(&copy, &token, &theirs, 25..27).await;
    goes_on(&hub, &token, &shared, 5..12).await;
    for (hub, foreign) in
        [(&copy, &ours), (&copy, &ours_again), (&hub, &theirs), (&hub, &theirs_again)]
    {
        is_lost(hub, &token, foreign).await;
    }
    for home in [&home, &other] {
        assert!(home.run("check", &[]).contains("journal: good"));
    }
    hub.kill();
    copy.kill();
}

/// Whether a client that resumes there misses nothing.
async fn goes_on(hub: &Process, token: &str, from: &Value, numbers: std::ops::Range<u64>) {
    let (mut client, subscribed) = resume(hub, token, from).await;
    assert_eq!(subscribed["recovered"], true, "{subscribed}");
    // `events` would fail at a gap.
    let events = client.events("s", numbers.clone().count()).await;
    let found: Vec<_> = events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(found, numbers.collect::<Vec<_>>());
    client.expect("live").await;
}

/// Whether a client that resumes there is told that it may have missed something.
async fn is_lost(hub: &Process, token: &str, from: &Value) {
    let (mut client, subscribed) = resume(hub, token, from).await;
    assert_eq!(subscribed["recovered"], false, "{subscribed}");
    assert_eq!(client.expect("gap").await["reason"], "epoch");
}

async fn resume(hub: &Process, token: &str, from: &Value) -> (Client, Value) {
    let mut client = Client::open(hub.address(), "/ws/real-time", &[PROTOCOL]).await.unwrap();
    client.connect(token).await;
    let wanted = json!({"sub": "s", "topics": [PATTERN], "resume": from});
    let subscribed = client.subscribe(wanted).await;
    (client, subscribed)
}

async fn publish(hub: &Process, token: &str, numbers: std::ops::Range<u32>) -> Value {
    let event = |n| json!({"topic": "copy.a", "data": {"n": n}});
    let events: Vec<_> = numbers.map(event).collect();
    let url = format!("http://{}/api/v1/publish", hub.address());
    let answer = http().post(url).bearer_auth(token).json(&events).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json::<Value>().await.unwrap()["position"].clone()
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap()
}

/// All files of one moment, while the hub runs.
fn copy_running(hub: &Process, from: &Path, to: &Path) {
    hub.freeze();
    copy_files(from, to);
    hub.thaw();
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
