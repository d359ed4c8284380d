//! TimeTracker: its client from Python through an outage, with what docs/guides/timetracker.md sets, and what else may
//! come there.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    eventually,
    hub::TestHub,
    program::{python, settings},
    proxy::Proxy,
    redis::RedisServer,
};

/// Posts `body` as somebody who may publish to `patterns`.
async fn post(hub: &TestHub, path: &str, patterns: &[&str], body: Value) -> (StatusCode, Value) {
    post_text(hub, path, patterns, body.to_string()).await
}

async fn post_text(
    hub: &TestHub,
    path: &str,
    patterns: &[&str],
    body: String,
) -> (StatusCode, Value) {
    let request = hub.http().post(hub.url(&format!("/api/v1/{path}")));
    let request = request.header("x-api-key", hub.token("p", patterns)).body(body);
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn history(hub: &TestHub, topics: &str) -> Vec<Value> {
    let request = hub.http().get(hub.url(&format!("/api/v1/history?topics={topics}")));
    let request = request.bearer_auth(hub.token("r", &["**", "hub.**"]));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_client_with_the_key_that_everybody_has_may_publish_where_one_line_allows_it() {
    let open = "{ no-license-required = [\"timetracker.**\"] }";
    for (flags, allowed) in [(&[("auth.open_keys", open)][..], true), (&[], false)] {
        let hub = TestHub::with(flags).await;
        let send = async |path: &str, app: &str| {
            let body = json!({"app_identifier": app, "instance_id": "i", "version": "1"});
            let request = hub.http().post(hub.url(path)).json(&body);
            let answer = request.header("x-api-key", "no-license-required").send().await.unwrap();
            answer.status().as_u16()
        };
        let wanted = if allowed { [201, 403] } else { [401, 401] };
        let register = "/api/v1/register";
        assert_eq!([send(register, "timetracker").await, send(register, "other").await], wanted);
        let both = hub.http().get(hub.url("/api/v1/status"));
        let both =
            both.header("x-api-key", "no-license-required").bearer_auth("no-license-required");
        assert_eq!(both.send().await.unwrap().status(), if allowed { 200 } else { 401 });
        // On other paths it is no credential.
        assert_eq!(send("/api/v1/publish", "timetracker").await, 401);
    }
}

#[tokio::test]
async fn the_client_works_unmodified_through_an_outage_and_nothing_is_stored_twice() {
    let mut hub = TestHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json").display().to_string();
    let stage = async |hub: &TestHub, name: &str| {
        let mut variables = settings("timetracker.md", hub, &["timetracker.**"]);
        variables.push(("STATE".to_owned(), state.clone()));
        variables.push(("STAGE".to_owned(), name.to_owned()));
        let said: Value =
            serde_json::from_str(&python("timetracker.py", &variables).await).unwrap();
        let done = said["done"].as_array().unwrap();
        assert!(done.iter().all(|done| done == true), "{name}: {said}");
        said
    };
    eventually("the hub publishes", async || {
        let ready = hub.http().get(hub.url("/readyz/publishing")).send().await.unwrap();
        ready.status().is_success().then_some(())
    })
    .await;
    let said = stage(&hub, "start").await;
    assert_eq!(said["token"], Value::Null);
    let id = said["instance_id"].as_str().unwrap();
    hub.stop().await;
    stage(&hub, "offline").await;
    hub.start_again().await;
    stage(&hub, "flush").await;
    stage(&hub, "restart").await;

    let usage = history(&hub, "timetracker.usage.*").await;
    let features: Vec<&str> =
        usage.iter().map(|event| event["data"]["metadata"]["feature"].as_str().unwrap()).collect();
    assert_eq!(features, ["dashboard", "dashboard", "dashboard", "reports", "export"]);
    for event in &usage {
        assert_eq!(event["topic"], "timetracker.usage.usage_event");
        assert_eq!((&event["source"], &event["key"]), (&json!(id), &json!(id)));
        assert_eq!(event["data"]["instance_id"], id);
        assert!(event["data"]["received_at"].as_str().unwrap().ends_with('Z'));
    }
    // Kept during the outage: the text stays, and the time is what can be made of it.
    let offline = &usage[3];
    let text = offline["data"]["timestamp"].as_str().unwrap();
    assert!(offline["time"].as_str().unwrap().starts_with(&text[..19]), "{offline}");
    assert!(usage[0]["data"].get("timestamp").is_none());

    let told = history(&hub, "hub.instances.timetracker").await;
    let kinds: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let first = ["instance.registered", "instance.up", "instance.heartbeat"];
    assert_eq!(kinds[..3], first, "{kinds:?}");
    assert_eq!(kinds[3..], ["instance.registered", "instance.heartbeat"], "{kinds:?}");
    assert_eq!(told[0]["data"]["state"], "pending");
    assert_eq!(told[1]["data"]["previous"], "pending");
    let newest = &told[4]["data"];
    assert_eq!((&newest["state"], &newest["heartbeats"]), (&json!("up"), &json!(3)));
    assert_eq!(newest["registration"]["version"], "4.5.0");
    assert_eq!(newest["registration"]["system"]["local_ip"], "127.0.0.1");
    assert_eq!(newest["registration"]["license_id"], "NO-LICENSE-REQUIRED");
}

#[tokio::test]
async fn one_bad_point_costs_no_other_and_is_told() {
    let hub = TestHub::start().await;
    let body = r#"{"app_identifier":"tt","instance_id":"i","data":[
        {"key":"a","value":NaN,"type":"number","metadata":null},
        {"key":7},"x",[[1]],null,{"value":1},
        {"key":"Seite öffnen","value":[[1,[2]]],"timestamp":"31.12.2025"},
        {"key":"b","value":true,"timestamp":"9999-12-31T23:59:59"}]}"#;
    let (status, answer) = post_text(&hub, "data", &["**"], body.to_owned()).await;
    assert_eq!((status.as_u16(), &answer["accepted"]), (200, &json!(3)), "{answer}");
    let dropped = &answer["dropped"];
    assert_eq!(
        (&dropped["number"], &dropped["point"], &dropped["timestamp"]),
        (&json!(1), &json!(5), &json!(2)),
        "{answer}"
    );
    assert!(dropped["reasons"].to_string().contains("`data[1]`: must be a string, not a number"));
    let events = history(&hub, "tt.**").await;
    let topics: Vec<&str> = events.iter().map(|event| event["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["tt.usage.a", "tt.usage.Seite__ffnen", "tt.usage.b"]);
    assert_eq!(events[0]["data"]["value"], Value::Null);
    assert_eq!(events[1]["time"], events[1]["data"]["received_at"]);
    hub.metric_becomes("pulsehub_dropped_total{part=\"point\"}", 5.0).await;

    let nothing = json!({"app_identifier": "tt", "instance_id": "i", "data": [1]});
    let (status, answer) = post(&hub, "data", &["**"], nothing).await;
    assert_eq!(
        (status.as_u16(), &answer["status"], &answer["accepted"]),
        (200, &json!("ok"), &json!(0))
    );
    let many = json!({"app_identifier": "tt", "instance_id": "i", "data": vec![0; 10_001]});
    let (status, problem) = post(&hub, "data", &["**"], many).await;
    assert_eq!((status.as_u16(), &problem["code"]), (413, &json!("batch_too_large")));
}

#[tokio::test]
async fn equal_points_are_one_within_the_window_and_another_instances_are_others() {
    let hub = TestHub::start().await;
    let point = json!({"key": "a", "value": 1, "type": "number", "metadata": {},
        "timestamp": "2025-12-16T12:00:00.5"});
    let send = async |id: &str, points: Value| {
        let body = json!({"app_identifier": "tt", "instance_id": id, "data": points});
        let (status, answer) = post(&hub, "data", &["**"], body).await;
        assert_eq!(status, 200, "{answer}");
        (answer["accepted"].as_u64().unwrap(), answer["duplicates"].as_u64().unwrap())
    };
    assert_eq!(send("one", json!([point, point])).await, (1, 1));
    assert_eq!(send("one", json!([point])).await, (0, 1));
    assert_eq!(send("two", json!([point])).await, (1, 0));
    let live = json!({"key": "a", "value": 1});
    assert_eq!(send("one", json!([live, live])).await, (2, 0), "the same thing, twice");
}

#[tokio::test]
async fn points_without_room_for_their_topics_cost_no_others_and_are_told() {
    keep_what_fits(TestHub::with(&[("journal.max_topics", "2")]).await).await;
}

#[tokio::test]
async fn points_without_room_for_their_topics_cost_no_others_in_redis_either() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    keep_what_fits(TestHub::with(&[("journal.max_topics", "2"), ("redis", &url)]).await).await;
}

/// Sends points to a hub that has room for two topics.
async fn keep_what_fits(hub: TestHub) {
    let send = async |app: &str, keys: &[&str]| {
        let points: Vec<Value> = keys.iter().map(|key| json!({"key": key, "value": key})).collect();
        let body = json!({"app_identifier": app, "instance_id": "i", "data": points});
        post(&hub, "data", &["**"], body).await
    };
    // That instances of many applications are known takes no room from what they send.
    for n in 0..5 {
        let body = json!({"app_identifier": format!("app{n}"), "instance_id": "i"});
        assert_eq!(post(&hub, "register", &["**"], body).await.0, 201);
    }
    let (status, answer) = send("tt", &["a"]).await;
    assert_eq!((status.as_u16(), answer.get("dropped")), (200, None), "{answer}");
    let (status, answer) = send("tt", &["a", "b", "b", "c", "d", "a"]).await;
    assert_eq!(status, 200, "{answer}");
    let (accepted, dropped) =
        (answer["accepted"].as_u64().unwrap(), answer["dropped"]["point"].as_u64().unwrap());
    assert!((3..=4).contains(&accepted) && accepted + dropped == 6, "{answer}");
    assert_eq!(answer["duplicates"], 0);
    assert!(answer["dropped"]["reasons"][0].as_str().unwrap().contains("2 topics"), "{answer}");
    hub.metric_becomes("pulsehub_dropped_total{part=\"point\"}", dropped as f64).await;
    assert_eq!(history(&hub, "tt.**").await.len() as u64, 1 + accepted);
    // With nothing to keep it is refused, and the client keeps it.
    let (status, problem) = send("tt", &["e", "f"]).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("too_many_topics")));
    assert_eq!(problem["topics"].as_array().unwrap().len(), 2, "{problem}");
}

#[tokio::test]
async fn data_without_an_application_are_taken_where_there_is_one_and_never_guessed() {
    let hub = TestHub::start().await;
    let body = json!({"instance_id": "i", "data": [{"key": "a"}]});
    let register = async |app: &str| {
        let body = json!({"app_identifier": app, "instance_id": "i"});
        assert_eq!(post(&hub, "register", &["**"], body).await.0, 201);
    };
    let unclear = async |patterns: &[&str]| {
        let (status, problem) = post(&hub, "data", patterns, body.clone()).await;
        assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("invalid_event")));
        assert_eq!(problem["items"][0]["field"], "app_identifier");
        let message = problem["items"][0]["message"].as_str().unwrap();
        assert!(message.contains("not clear of which application"), "{problem}");
    };
    unclear(&["**"]).await;
    unclear(&["one.**", "two.**"]).await;
    register("one").await;
    assert_eq!(post(&hub, "data", &["**"], body.clone()).await.0, 200);
    register("two").await;
    unclear(&["**"]).await;
    assert_eq!(post(&hub, "data", &["two.**"], body.clone()).await.0, 200);
    let events = history(&hub, "*.usage.*").await;
    let topics: Vec<_> = events.iter().map(|event| event["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["one.usage.a", "two.usage.a"]);
}

#[tokio::test]
async fn who_may_speak_for_an_instance_and_what_is_refused() {
    let hub = TestHub::start().await;
    let register = json!({"app_identifier": "tt", "instance_id": "i"});
    let data = json!({"app_identifier": "tt", "instance_id": "i", "data": [{"key": "a"}]});
    for (path, body, patterns, missing) in [
        ("register", &register, &["tt.usage.**"][..], "publish tt.instances"),
        ("data", &data, &["tt.instances"], "publish tt.usage.a"),
    ] {
        let (status, problem) = post(&hub, path, patterns, body.clone()).await;
        assert_eq!((status.as_u16(), &problem["missing"]), (403, &json!([missing])), "{problem}");
    }
    for (path, body, code) in [
        ("register", json!({"instance_id": "i"}), "invalid_event"),
        ("register", json!({"app_identifier": "dashboard"}), "invalid_event"),
        ("register", json!({"app_identifier": "tt", "instance_id": "a\nb"}), "invalid_event"),
        ("register", json!([]), "invalid_event"),
        ("data", json!({"app_identifier": "tt", "instance_id": "i", "data": {}}), "invalid_event"),
        ("heartbeat", json!({}), "invalid_event"),
        ("validate", json!(1), "invalid_event"),
    ] {
        let (status, problem) = post(&hub, path, &["**"], body.clone()).await;
        assert!(status.is_client_error(), "{path} {body}");
        assert_eq!(problem["code"], code, "{path} {body}: {problem}");
    }
    for path in ["register", "validate", "heartbeat", "data"] {
        let request = hub.http().post(hub.url(&format!("/api/v1/{path}")));
        let refused = request.header("x-api-key", "no-license-required").body("{}");
        assert_eq!(refused.send().await.unwrap().status(), 401, "{path}");
    }
    assert_eq!(hub.http().get(hub.url("/api/v1/status")).send().await.unwrap().status(), 401);
    // Who has no name is given one.
    let (status, answer) =
        post(&hub, "register", &["tt.**"], json!({"app_identifier": "tt"})).await;
    assert_eq!(status, 201);
    assert!(answer["instance_id"].as_str().unwrap().len() > 30, "{answer}");
    assert!(answer.get("token").is_none());
}

#[tokio::test]
async fn a_heartbeat_of_an_unknown_instance_is_taken_where_it_is_clear_whose_it_is() {
    let hub = TestHub::start().await;
    let beat = async |patterns: &[&str], id: &str| {
        post(&hub, "heartbeat", patterns, json!({"instance_id": id})).await
    };
    let (status, answer) = beat(&["tt.**"], "lost").await;
    assert_eq!((status.as_u16(), &answer["state"]), (200, &json!("up")), "{answer}");
    assert_eq!(answer["registered"], false);
    for patterns in [&["tt.**", "other.**"][..], &["**"], &["tt.usage.*"]] {
        let (status, problem) = beat(patterns, "nobody").await;
        assert_eq!((status.as_u16(), &problem["code"]), (404, &json!("unknown_instance")));
    }
    let (status, _) = beat(&["**"], "lost").await;
    assert_eq!(status, 200, "now it is known");
    let told = history(&hub, "hub.instances.*").await;
    assert_eq!(told.len(), 2);
    assert_eq!(told[1]["data"]["registration"], Value::Null);
}

#[tokio::test]
async fn data_without_the_grant_for_instances_are_stored_but_no_sign_of_life() {
    let hub = TestHub::start().await;
    let body = json!({"app_identifier": "tt", "instance_id": "made-up", "data": [{"key": "a"}]});
    let (status, answer) = post(&hub, "data", &["tt.usage.**"], body).await;
    assert_eq!((status.as_u16(), &answer["accepted"]), (200, &json!(1)), "{answer}");
    assert_eq!(answer["dropped"]["instance"], 1, "{answer}");
    assert!(answer["dropped"]["reasons"].to_string().contains("tt.instances"), "{answer}");
    assert!(history(&hub, "hub.instances.*").await.is_empty());
}

#[tokio::test]
async fn points_whose_first_answer_from_redis_was_lost_are_told_as_stored() {
    let redis = RedisServer::start().await;
    let way = Proxy::to(redis.port()).await;
    let url = way.url();
    let hub = TestHub::with(&[("redis", &url), ("cluster.timeout", "5s")]).await;
    let body = json!({"app_identifier": "tt", "instance_id": "i",
        "data": [{"key": "a"}, {"key": "a"}, {"key": "b", "timestamp": "2025-12-16T12:00:00"}]});
    hub.publish(json!({"topic": "before"})).await; // so that Redis knows the script
    way.hold(b":latest:tt.usage.a");
    let stored = async {
        way.is_holding().await;
        eventually("the points in Redis", async || {
            let is_there: u64 = redis.ask(&["EXISTS", "{pulsehub}:latest:tt.usage.a"]).await;
            (is_there == 1).then_some(())
        })
        .await;
        way.lead_to(redis.port()); // which drops the connection, and the answer
    };
    let ((status, answer), ()) = tokio::join!(post(&hub, "data", &["tt.**"], body), stored);
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(3), &json!(0)), "{answer}");
    way.release();
    assert_eq!(history(&hub, "tt.**").await.len(), 3);
    assert_eq!(history(&hub, "hub.instances.*").await.len(), 1);
}
