//! The hub goes away in good order and comes back: everybody is told, nobody misses anything.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::hub::{Client, PROTOCOL, TestHub, numbers};

#[tokio::test]
async fn everybody_is_told_when_to_come_back_each_at_a_time_of_their_own() {
    let mut hub = TestHub::start().await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(hub.client("ada", &["a.*"]).await);
    }
    let silent = hub.socket("/ws/real-time", &[PROTOCOL]).await;
    let token = hub.token("ada", &["a.*"]);
    let simple = hub.socket("/ws/real-time?topics=a.*", &[("x-api-key", &token)]).await;
    let stream = hub.http().get(hub.url("/sse/real-time?topics=a.*")).bearer_auth(&token);
    let stream = stream.send().await.unwrap();
    hub.metric_becomes("pulsehub_connections", 9.0).await;
    let told = async {
        let mut delays = BTreeSet::new();
        for client in &mut clients {
            let reconnect = client.expect("reconnect").await;
            delays.insert(reconnect["after_ms"].as_u64().unwrap());
            let (code, reason) = client.expect_close().await;
            assert_eq!(code, 1012);
            assert!(reason.contains("leaving"), "{reason}");
        }
        assert!(delays.len() > 1, "all at once: {delays:?}");
        assert!(delays.iter().all(|delay| *delay < 10_000), "{delays:?}");
        for mut other in [silent, simple] {
            assert_eq!(other.expect_close().await.0, 1012);
        }
        let text = stream.text().await.unwrap(); // it ends
        assert!(text.contains("\nretry: "), "{text}");
    };
    tokio::join!(hub.stop(), told);
}

#[tokio::test]
async fn a_restart_loses_nothing_repeats_nothing_and_makes_no_gap() {
    let mut hub = TestHub::start().await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let first = client.subscribe(json!({"sub": "s", "topics": ["a.*"]})).await;
    client.expect("live").await;
    let event = json!({"topic": "a.b", "id": "once", "data": {"n": 0}});
    let stored = hub.publish(event.clone()).await;
    hub.publish_numbers("a.b", 1..5).await;
    // What was received before the end; the rest comes after the restart.
    let mut seen = Vec::new();
    let mut position = first["position"].clone();
    take(&mut client, &mut seen, &mut position).await;
    let closed = async {
        loop {
            let message = client.next_json().await;
            match message["type"].as_str().unwrap() {
                "events" => {
                    seen.extend(numbers(message["events"].as_array().unwrap()));
                    position = message["position"].clone();
                }
                kind => {
                    assert_eq!(kind, "reconnect");
                    break;
                }
            }
        }
        assert_eq!(client.expect_close().await.0, 1012);
    };
    tokio::join!(hub.stop(), closed);

    hub.start_again().await;
    let again = hub.publish(event).await;
    assert_eq!((&again["duplicates"], &again["offsets"]), (&json!(1), &stored["offsets"]));
    hub.publish_numbers("a.b", 5..8).await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let resume = json!({"sub": "s", "topics": ["a.*"], "resume": position});
    assert_eq!(client.subscribe(resume).await["recovered"], true);
    while seen.len() < 8 {
        take(&mut client, &mut seen, &mut position).await;
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
    client.expect("live").await;
}

async fn take(client: &mut Client, seen: &mut Vec<u64>, position: &mut Value) {
    let message = client.expect("events").await;
    seen.extend(numbers(message["events"].as_array().unwrap()));
    *position = message["position"].clone();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_through_a_restart_delivers_each_event_once_in_order() {
    const EVENTS: u64 = 300;
    let mut hub = TestHub::start().await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let subscribed = client.subscribe(json!({"sub": "s", "topics": ["a.*"]})).await;
    client.expect("live").await;
    let publisher = tokio::spawn({
        let (http, url) = (hub.http().clone(), hub.url("/api/v1/publish"));
        let token = hub.token("publisher", &["a.*"]);
        async move {
            for n in 0..EVENTS {
                let event = json!({"topic": "a.b", "id": n.to_string(), "data": {"n": n}});
                // Again until it is stored: the id makes that safe.
                loop {
                    let request = http.post(&url).bearer_auth(&token).json(&event);
                    if request.send().await.is_ok_and(|answer| answer.status() == 200) {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    let (mut seen, mut position) = (Vec::new(), subscribed["position"].clone());
    while seen.len() < 50 {
        take(&mut client, &mut seen, &mut position).await;
    }
    drop(client);
    hub.stop().await;
    hub.start_again().await;
    let mut client = hub.client("ada", &["a.*"]).await;
    let resume = json!({"sub": "s", "topics": ["a.*"], "resume": position});
    assert_eq!(client.subscribe(resume).await["recovered"], true);
    while (seen.len() as u64) < EVENTS {
        let message = client.next_json().await;
        match message["type"].as_str().unwrap() {
            "events" => seen.extend(numbers(message["events"].as_array().unwrap())),
            kind => assert!(kind == "live" || kind == "ping", "{message}"),
        }
    }
    assert_eq!(seen, (0..EVENTS).collect::<Vec<_>>());
    publisher.await.unwrap();
}
