//! LocaNext: its exporter from Python with what docs/guides/locanext.md sets, and what else may come there.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    eventually,
    hub::TestHub,
    program::{python, settings},
};

async fn history(hub: &TestHub, topics: &str) -> Vec<Value> {
    let request = hub.http().get(hub.url(&format!("/api/v1/history?topics={topics}")));
    let answer: Value =
        request.bearer_auth(hub.token("r", &["**"])).send().await.unwrap().json().await.unwrap();
    answer["events"].as_array().unwrap().clone()
}

/// Posts `body` as somebody who may publish to `patterns`.
async fn post(hub: &TestHub, path: &str, patterns: &[&str], body: &str) -> (StatusCode, Value) {
    let request = hub.http().post(hub.url(path)).bearer_auth(hub.token("p", patterns));
    let answer = request.body(body.to_owned()).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn the_exporter_works_unmodified_and_all_of_it_is_there_after_a_restart() {
    let mut hub = TestHub::start().await;
    let mut dashboard = hub.client("d", &["locanext.**"]).await;
    dashboard.subscribe(json!({"sub": "a", "topics": ["locanext.**"]})).await;
    dashboard.expect("live").await;
    let said = python("locanext.py", &settings("locanext.md", &hub, &["locanext.**"])).await;
    let answers: Vec<Value> = serde_json::from_str(&said).unwrap();
    assert_eq!(answers.len(), 9);
    assert_eq!(answers[0]["topic"], "locanext.metrics");
    assert_eq!(answers[3]["topic"], "locanext.events.file_upload");
    assert_eq!(answers[8]["dropped"]["number"], 2, "{said}");
    assert!(answers[..8].iter().all(|answer| answer.get("dropped").is_none()), "{said}");

    let live = dashboard.events("a", 9).await;
    hub.stop().await;
    hub.start_again().await;
    let said = python("locanext.py", &settings("locanext.md", &hub, &["locanext.**"])).await;
    assert!(said.contains("locanext.events.error"));
    let events = history(&hub, "locanext.**").await;
    assert_eq!(events.len(), 18);
    assert_eq!(events[..9], live);

    let metrics = &events[0];
    assert_eq!((&metrics["type"], &metrics["source"]), (&json!("metrics"), &json!("locanext")));
    assert_eq!(metrics["data"]["metrics"]["translation_metrics"]["total_rows"], 150_000);
    let naive = metrics["data"]["timestamp"].as_str().unwrap();
    assert_eq!(metrics["time"], format!("{naive}Z"), "a time without a zone is UTC");
    assert_eq!(
        (&events[3]["type"], &events[3]["data"]["project_id"]),
        (&json!("file_upload"), &json!(42))
    );
    assert_eq!(events[6]["data"]["source"], "Übersetzung");
    let odd = json!({"test": true, "ratio": null, "most": null, "name": "x", "list": [[1]], "none": null});
    assert_eq!(events[8]["data"]["metrics"], odd);
    hub.metric_becomes("pulsehub_dropped_total{part=\"number\"}", 2.0).await;
}

#[tokio::test]
async fn each_number_is_a_series_named_after_its_group() {
    let hub = TestHub::start().await;
    let body = r#"{"metrics":{"user_metrics":{"active_users":15,"name":"x"},"test":true}}"#;
    assert_eq!(post(&hub, "/api/locanext/metrics", &["**"], body).await.0, 200);
    let names = eventually("the series", async || {
        let request = hub.http().get(hub.url("/api/v1/series?prefix=locanext."));
        let answer = request.bearer_auth(hub.token("r", &["**"])).send().await.unwrap();
        let text = answer.text().await.unwrap();
        text.contains("locanext.test").then_some(text)
    })
    .await;
    assert!(names.contains("\"locanext.user_metrics.active_users\""), "{names}");
    assert!(!names.contains("user_metrics.name"), "{names}");
}

#[tokio::test]
async fn an_application_that_is_no_token_is_refused_with_a_sentence() {
    let hub = TestHub::start().await;
    for (app, reason) in [
        ("a.b", "one token"),
        ("a%20b", "one token"),
        ("%C3%A4", "one token"),
        ("v1", "uses that word itself"),
        ("v2", "uses that word itself"),
        ("hub", "uses that word itself"),
        ("stats", "uses that word itself"),
    ] {
        for end in ["metrics", "events"] {
            let path = format!("/api/{app}/{end}");
            let body = r#"{"metrics":{},"event_type":"x"}"#;
            let (status, problem) = post(&hub, &path, &["**"], body).await;
            // What has a route of its own by now is refused there.
            assert!(status.is_client_error(), "{path}: {problem}");
            if problem["code"] == "bad_request" {
                assert!(problem["detail"].as_str().unwrap().contains(reason), "{problem}");
            }
        }
    }
    let (status, problem) = post(&hub, "/api/%FF/metrics", &["**"], "{}").await;
    assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("bad_request")), "{problem}");
    assert!(history(&hub, "**").await.is_empty());
}

#[tokio::test]
async fn the_grant_is_that_of_the_topic_the_event_lands_in() {
    let hub = TestHub::start().await;
    let event = r#"{"event_type":"user.login","data":{}}"#;
    let (status, problem) = post(&hub, "/api/loca/events", &["loca.metrics"], event).await;
    assert_eq!(
        (status.as_u16(), &problem["missing"]),
        (403, &json!(["publish loca.events.user.login"]))
    );
    let (status, answer) = post(&hub, "/api/loca/events", &["loca.events.user.*"], event).await;
    assert_eq!((status.as_u16(), &answer["topic"]), (200, &json!("loca.events.user.login")));
    let request = hub.http().post(hub.url("/api/loca/events")).body(event);
    assert_eq!(request.send().await.unwrap().status(), 401);
    let request = hub.http().post(hub.url("/api/loca/events")).body(event);
    let request = request.bearer_auth(hub.token("p", &["**"])).header("content-type", "text/csv");
    assert_eq!(request.send().await.unwrap().status(), 415);
}

#[tokio::test]
async fn a_million_names_are_too_many_for_one_event_and_are_refused_by_name() {
    let hub = TestHub::start().await;
    let with = |names: usize| {
        let metrics: Vec<String> = (0..names).map(|n| format!("\"m{n}\":{n}")).collect();
        format!(r#"{{"metrics":{{"g":{{{}}}}}}}"#, metrics.join(","))
    };
    let (status, problem) = post(&hub, "/api/loca/metrics", &["**"], &with(1_000_000)).await;
    assert_eq!((status.as_u16(), &problem["code"]), (413, &json!("body_too_large")), "{problem}");
    let (status, problem) = post(&hub, "/api/loca/metrics", &["**"], &with(50_000)).await;
    assert_eq!((status.as_u16(), &problem["code"]), (413, &json!("event_too_large")), "{problem}");
    let (status, _) = post(&hub, "/api/loca/metrics", &["**"], &with(5_000)).await;
    assert_eq!(status, 200);
    hub.metric_becomes("pulsehub_limit_hits_total{limit=\"event\"}", 1.0).await;
}
