//! Reading the past: history and topics.

use std::future::poll_fn;

use super::*;
use crate::{
    auth::Principal,
    dialect::Form,
    event::PublisherName,
    http::query_limit,
    hub::{CursorItem, Start, Subscription, TaskWaker},
    protocol::Mode,
    topic::TopicFilter,
};

#[tokio::test]
async fn history_pages_both_ways() {
    let server = Server::new();
    let events = |topic: &str, numbers: std::ops::Range<u32>| {
        let lines: Vec<_> =
            numbers.map(|n| format!(r#"{{"topic":"{topic}","data":{n}}}"#)).collect();
        format!("[{}]", lines.join(","))
    };
    server.publish(events("a.b", 0..5)).await;
    server.publish(events("a.other", 0..3)).await;
    server.state.clock.set(NOW + 60_000);
    server.publish(events("a.b", 5..10)).await;
    let page = async |query: &str| {
        let answer = server.get(&format!("/api/v1/history?topics=a.b&{query}")).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()
    };
    let numbers = |page: &Value| -> Vec<u64> {
        let events = page["events"].as_array().unwrap();
        events.iter().map(|event| event["data"].as_u64().unwrap()).collect()
    };
    let newest = page("limit=4").await;
    assert_eq!(numbers(&newest), [6, 7, 8, 9]);
    assert_eq!(newest["position"], server.state.broker.head().to_string());
    assert_eq!(newest["next"], newest["position"]);
    assert_eq!(newest.get("trimmed_through"), None);
    let first = newest["first"].as_str().unwrap();
    let older = page(&format!("limit=4&before={first}")).await;
    assert_eq!(numbers(&older), [2, 3, 4, 5]);
    let oldest = page(&format!("limit=4&before={}", older["first"].as_str().unwrap())).await;
    assert_eq!(numbers(&oldest), [0, 1]);

    let forward = page("limit=4&after=0").await;
    assert_eq!(numbers(&forward), [0, 1, 2, 3]);
    let next = page(&format!("limit=100&after={}", forward["next"].as_str().unwrap())).await;
    assert_eq!(numbers(&next), [4, 5, 6, 7, 8, 9]);
    let end = page(&format!("after={}", next["next"].as_str().unwrap())).await;
    assert_eq!((numbers(&end), &end["next"]), (vec![], &next["next"]));
    assert_eq!(numbers(&page("since=30s").await), [5, 6, 7, 8, 9]);
    assert_eq!(numbers(&page("since=2m&before=3").await), [0, 1]);
    let both = server.get("/api/v1/history?topics=a.b&topics=a.other,a.x&limit=100").await.json();
    assert_eq!(both["events"].as_array().unwrap().len(), 13);
}

#[tokio::test]
async fn one_user_cannot_keep_all_others_from_asking() {
    let server = Server::with(&[("limits.questions", "4")]);
    let ask = async |name: &str| {
        let principal = Principal { publisher: PublisherName::token("", name), ..Principal::hub() };
        server.state.query_limit.ask(&principal).await
    };
    // Two are worked on, and two wait.
    let mut asking = vec![ask("ada").await.unwrap(), ask("ada").await.unwrap()];
    let (mut third, mut fourth) = (Box::pin(ask("ada")), Box::pin(ask("ada")));
    assert!(futures_util::poll!(&mut third).is_pending());
    assert!(futures_util::poll!(&mut fourth).is_pending());
    let path = "/api/v1/series/query?name=a";
    let refused = server.get(path).await;
    assert_eq!(refused.assert_problem(429, "too_many_questions")["limit"]["allowed"], 4);
    assert_eq!(refused.headers["retry-after"], "1");
    let text = server.state.telemetry.openmetrics().unwrap();
    assert!(text.contains("pulsehub_limit_hits_total{limit=\"questions\"} 1"), "{text}");
    // Others are worked on meanwhile, and wait only for each other.
    let _bobs = [ask("bob").await.unwrap(), ask("bob").await.unwrap()];
    let authorization = format!("Bearer {}", token("eve", &["a.**"], None, 3600));
    let request = Request::builder().uri(path).header("authorization", authorization);
    let other = server.send(request.body(Body::empty()).unwrap());
    let mut other = std::pin::pin!(other);
    assert!(futures_util::poll!(&mut other).is_pending());
    drop((third, fourth));
    asking.pop();
    assert_eq!(other.await.status, 200);
    assert!(ask("ada").await.is_ok(), "what was answered no longer counts");
}

#[tokio::test]
async fn a_page_of_history_is_bounded_in_bytes_and_loses_nothing() {
    let server = Server::with(&[("limits.body", "4 KiB"), ("limits.event", "2 KiB")]);
    for n in 0..10 {
        let data = "x".repeat(1000);
        server.publish(format!(r#"{{"topic":"a.b","id":"{n}","data":"{data}"}}"#)).await;
    }
    let ids = |page: &Value| -> Vec<u64> {
        let events = page["events"].as_array().unwrap();
        events.iter().map(|event| event["offset"].as_u64().unwrap()).collect()
    };
    let (mut seen, mut after) = (Vec::new(), "0".to_owned());
    while seen.len() < 10 {
        let page = server.get(&format!("/api/v1/history?topics=a.b&after={after}")).await.json();
        assert!((1..4).contains(&ids(&page).len()));
        seen.extend(ids(&page));
        after = page["next"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    let (mut seen, mut before) = (Vec::new(), "11".to_owned());
    while seen.len() < 10 {
        let page = server.get(&format!("/api/v1/history?topics=a.b&before={before}")).await.json();
        seen.splice(0..0, ids(&page));
        before = page["first"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn history_says_what_retention_took_and_refuses_what_it_cannot_answer() {
    let server = Server::with(&[("journal.max_age", "1m"), ("journal.recent_bytes", "0 B")]);
    server.publish(r#"[{"topic":"a.b"},{"topic":"a.b"}]"#).await;
    server.state.clock.set(NOW + 90_000);
    server.publish(r#"{"topic":"a.b"}"#).await;
    server.state.broker.maintain().await;
    let page = server.get("/api/v1/history?topics=a.b&after=0").await.json();
    assert!(page["trimmed_through"].is_string(), "{page}");
    let trimmed: crate::position::Position =
        page["trimmed_through"].as_str().unwrap().parse().unwrap();
    assert_eq!((page["events"].as_array().unwrap().len(), trimmed.offset), (1, 2));
    let refused = async |query: &str, status, code: &str| {
        let answer = server.get(&format!("/api/v1/history?{query}")).await;
        answer.assert_problem(status, code)
    };
    refused("", 400, "bad_request").await;
    refused("topics=a..b", 400, "bad_request").await;
    refused("topics=a.b&limit=0", 400, "bad_request").await;
    refused("topics=a.b&limit=10001", 400, "bad_request").await;
    refused("topics=a.b&since=yesterday", 400, "bad_request").await;
    refused("topics=a.b&after=x", 400, "bad_request").await;
    let problem = refused("topics=a.b,b", 403, "forbidden").await;
    assert_eq!(problem["missing"], json!(["subscribe b"]));
    let problem = refused("topics=a.b&after=1:2", 410, "epoch_changed").await;
    assert_eq!(problem["head"], server.state.broker.head().to_string());
}

#[tokio::test]
async fn topics_are_those_one_may_read() {
    let server = Server::new();
    let all = token("all", &["**"], None, 3600);
    let publish = Request::post("/api/v1/publish").header("x-api-key", &all);
    let batch =
        r#"[{"topic":"a.c"},{"topic":"b"},{"topic":"a.b"},{"topic":"a.b"},{"topic":"a.z"}]"#;
    server.send(publish.body(batch.into()).unwrap()).await;
    let page = server.get("/api/v1/topics?limit=2").await.json();
    let names = |page: &Value| -> Vec<String> {
        let topics = page["topics"].as_array().unwrap();
        topics.iter().map(|topic| topic["topic"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(&page), &page["next"]), (vec!["a.b".into(), "a.c".into()], &json!("a.c")));
    let entry = &page["topics"][0];
    assert_eq!(
        (&entry["events"], &entry["last_received"]),
        (&json!(2), &json!("2026-11-20T12:00:00.000Z"))
    );
    let rest = server.get("/api/v1/topics?limit=2&after=a.c").await.json();
    assert_eq!((names(&rest), rest.get("next")), (vec!["a.z".into()], None));
    assert_eq!(names(&server.get("/api/v1/topics?prefix=a.z").await.json()), ["a.z"]);
    server.get("/api/v1/topics?limit=x").await.assert_problem(400, "bad_request");
}

#[tokio::test]
async fn a_list_of_topics_looked_at_all_there_are() {
    let flags = [("journal.max_topics", "100000"), ("limits.batch", "50000")];
    let server = Server::with(&flags);
    let all = token("all", &["**"], None, 3600);
    for batch in 0..3 {
        let topics = (0..10_000).map(|n| format!(r#"{{"topic":"b.t{batch}{n:05}.x"}}"#));
        let body = format!("[{}]", topics.collect::<Vec<_>>().join(","));
        let publish = Request::post("/api/v1/publish").header("x-api-key", &all);
        assert_eq!(server.send(publish.body(body.into()).unwrap()).await.status, 200);
    }
    server.publish(r#"[{"topic":"a.b"},{"topic":"a.c"}]"#).await;
    let get = async |patterns: &[&str], query: &str| {
        let request = Request::get(format!("/api/v1/topics?{query}"));
        let request = request.header("x-api-key", token("ada", patterns, None, 3600));
        server.send(request.body(Body::empty()).unwrap()).await.json()
    };
    let count = |page: &Value| page["topics"].as_array().unwrap().len();
    // Whose grants say where to look is answered at once, and the others go on from page to page.
    let page = get(&["a.*"], "").await;
    assert_eq!((count(&page), page.get("next")), (2, None));
    let page = get(&["c.*", "b.nothing"], "").await;
    assert_eq!((count(&page), page.get("next")), (0, None));
    let page = get(&["*.t209999.*"], "").await;
    let next = page["next"].as_str().unwrap();
    assert_eq!(count(&page), 0, "so many are not looked at for one page");
    let page = get(&["*.t209999.*"], &format!("after={next}")).await;
    assert_eq!((count(&page), page.get("next")), (1, None));
    // Page by page nothing is missing.
    let (mut seen, mut after) = (0, String::new());
    loop {
        let page = get(&["b.**", "b.t0.x"], &format!("limit=1000&after={after}")).await;
        seen += count(&page);
        match page.get("next") {
            Some(next) => after = next.as_str().unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 30_000);
}

#[tokio::test]
async fn history_of_more_patterns_than_a_subscription_may_have_is_refused() {
    let server = Server::with(&[("limits.patterns", "2")]);
    assert_eq!(server.get("/api/v1/history?topics=a.b,a.c").await.status, 200);
    for query in ["topics=a.b,a.c,a.d", "topics=a.b,a.c&topics=a.d"] {
        let answer = server.get(&format!("/api/v1/history?{query}")).await;
        let problem = answer.assert_problem(400, "bad_request");
        assert_eq!(problem["detail"], "`topics` must name at most 2 patterns");
    }
    let metrics = server.state.telemetry.openmetrics().unwrap();
    assert!(metrics.contains("limit_hits_total{limit=\"patterns\"} 2"), "{metrics}");
}

#[tokio::test]
async fn every_list_is_a_question_of_which_one_user_has_only_so_many() {
    let server = Server::with(&[("limits.questions", "1")]);
    let ada = Principal { publisher: PublisherName::token("", "ada"), ..Principal::hub() };
    let _asking = server.state.query_limit.ask(&ada).await.unwrap();
    for path in ["/api/v1/topics", "/api/v1/instances", "/api/v1/series"] {
        server.get(path).await.assert_problem(429, "too_many_questions");
    }
    let admin = Request::get("/api/v1/connections");
    let admin = admin.header("x-api-key", token("ada", &[], Some("admin"), 60));
    let answer = server.send(admin.body(Body::empty()).unwrap()).await;
    answer.assert_problem(429, "too_many_questions");
}

#[tokio::test]
async fn who_asks_for_connections_kept_a_place_that_others_wait_for() {
    let server = Server::new();
    let mut asking = Vec::new();
    for name in ["bob", "bob", "eve", "eve"] {
        let publisher = PublisherName::token("", name);
        let principal = Principal { publisher, ..Principal::hub() };
        asking.push(server.state.query_limit.ask(&principal).await.unwrap());
    }
    // All places are taken: it would wait for one.
    let admin = Request::get("/api/v1/connections");
    let admin = admin.header("x-api-key", token("ada", &[], Some("admin"), 60));
    let answer = server.send(admin.body(Body::empty()).unwrap());
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), answer).await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn who_asked_and_left_left_work_behind_that_nobody_counted() {
    let server = Server::with(&[("limits.questions", "1")]);
    let ada = Principal { publisher: PublisherName::token("", "ada"), ..Principal::hub() };
    let asking = server.state.query_limit.ask(&ada).await.unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let work = query_limit::work(asking, move || ended.recv());
    assert!(futures_util::FutureExt::now_or_never(work).is_none());
    assert!(server.state.query_limit.ask(&ada).await.is_err(), "it goes on");
    end.send(()).unwrap();
    let free = async {
        while server.state.query_limit.ask(&ada).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), free).await.unwrap();
}

#[tokio::test]
async fn a_rare_match_was_looked_for_in_all_of_memory_before_others_had_a_turn() {
    let server = Server::new();
    let event = format!(r#"{{"topic":"a.common","data":"{}"}}"#, "x".repeat(2000));
    let batch = format!("[{}]", vec![event; 500].join(","));
    for _ in 0..4 {
        assert_eq!(server.publish(batch.clone()).await.status, 200);
    }
    // A hub that begins now: all of it lies before what its views hold.
    let config = config::Config::load(None, [], &[]).unwrap();
    let hub = Hub::new(server.state.broker.clone(), config.hub, Telemetry::new());
    let subscription = Subscription {
        form: Form::Events,
        filter: TopicFilter::new([TopicPattern::parse("a.rare").unwrap()]),
        mode: Mode::All,
        max_hz: None,
        start: Start::Since(0),
        owner: None,
    };
    let (mut cursor, _) =
        hub.subscribe(subscription, Arc::new(TaskWaker::default())).await.unwrap();
    let mut turns = 0;
    let item = poll_fn(|cx| {
        turns += 1; // it wakes itself: nobody else does
        cursor.poll_next(cx)
    });
    assert!(matches!(item.await, CursorItem::Live { .. }));
    assert!(turns >= 6, "4 MB in {turns} turns");
}
