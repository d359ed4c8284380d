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

#[tokio::test]
async fn a_restored_copy_does_not_take_the_lost_run_for_its_own() {
    let home = Home::new("[journal]\nsync = \"normal\"\n");
    let hub = home.start().await;
    let token = home.token("ada", PATTERN);
    let shared = publish(&hub, &token, 0..5).await;
    let copy = tempfile::tempdir().unwrap();
    copy_files(&home.data(), copy.path());
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
    let (status, rest) = page(&shared).await;
    assert_eq!((status, rest["events"].as_array().unwrap().len()), (StatusCode::OK, 5));
    assert!(rest["gap"].is_null(), "{rest}");
    hub.kill();
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

/// As they are, while a hub writes to them: the copy may lack the end.
fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
