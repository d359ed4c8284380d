//! What is asked of a request before anybody looks at what it wants.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    eventually,
    hub::{PROTOCOL, TestHub},
    process::Home,
};

/// The status of the answer to these header lines, sent as they are.
async fn status(hub: &TestHub, lines: &str) -> u16 {
    status_of(hub, "/healthz", lines).await
}

async fn status_of(hub: &TestHub, target: &str, lines: &str) -> u16 {
    let mut stream = TcpStream::connect(hub.address()).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_page_that_had_its_name_lead_to_this_machine_reads_nothing() {
    let hub = TestHub::with(&[("http.allowed_hosts", "hub.example")]).await;
    let port = hub.address().port();
    for (lines, wanted) in [
        (format!("host: 127.0.0.1:{port}\r\n"), 200),
        (format!("host: localhost:{port}\r\n"), 200),
        ("host: Hub.example\r\n".to_owned(), 200),
        (format!("host: evil.example:{port}\r\n"), 421),
        (String::new(), 400),
        ("host: localhost\r\nhost: localhost\r\n".to_owned(), 400),
        ("host: localhost\r\nhost: evil.example\r\n".to_owned(), 400),
        ("host: a b\r\n".to_owned(), 400),
        ("host: user@localhost\r\n".to_owned(), 400),
    ] {
        assert_eq!(status(&hub, &lines).await, wanted, "{lines}");
    }
    // What stands before the path says it as well (RFC 9112 section 3.2.2).
    for (name, wanted) in [("localhost", 200), ("evil.example", 400)] {
        let target = format!("http://{name}/healthz");
        assert_eq!(status_of(&hub, &target, "host: localhost\r\n").await, wanted, "{target}");
    }
    assert_eq!(hub.metric("pulsehub_refusals_total{code=\"foreign_host\"}").await, 1.0);
}

#[tokio::test]
async fn settings_that_weaken_the_hub_are_named_in_readyz() {
    let flags = [("journal.sync", "normal"), ("auth.query_token", "true")];
    let hub = TestHub::with(&flags).await;
    let ready = hub.http().get(hub.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200, "weak, but it works");
    let ready: Value = ready.json().await.unwrap();
    for (key, _) in flags {
        let warnings = ready["warnings"].as_array().unwrap();
        let names = |warning: &&Value| warning.as_str().unwrap().contains(key);
        assert_eq!(warnings.iter().filter(names).count(), 1, "{key}: {ready}");
    }
}

#[tokio::test]
async fn wrong_sign_ins_are_slowed_after_ten() {
    let hub = TestHub::start().await;
    let sign_in = async |token: &str| {
        let request = hub.http().post(hub.url("/api/v1/session")).json(&json!({"token": token}));
        request.send().await.unwrap()
    };
    for _ in 0..11 {
        assert_eq!(
            sign_in(&hub.token("ada", &["a.*"])).await.status(),
            200,
            "right ones do not count"
        );
    }
    for _ in 0..10 {
        assert_eq!(sign_in("phk_wrong_secret").await.status(), 401);
    }
    let refused = sign_in(&hub.token("ada", &["a.*"])).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "too_many_sign_ins");
    assert_eq!(hub.metric("pulsehub_limit_hits_total{limit=\"wrong_sign_ins\"}").await, 1.0);
    // Who shows credentials with each request is not hindered.
    let tickets = hub.http().post(hub.url("/api/v1/tickets"));
    let answer = tickets.bearer_auth(hub.token("ada", &["a.*"])).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["cross-origin-opener-policy"], "same-origin");
    assert_eq!(answer.headers()["cross-origin-resource-policy"], "same-origin");
}

#[tokio::test]
async fn each_refused_sign_in_is_one_line_of_the_log_with_the_same_fields() {
    let home = Home::new("");
    let hub = home.start().await;
    let url = format!("http://{}/api/v1/session", hub.address());
    for said in [json!({"token": "hunter2"}), json!({"code": "hunter2"})] {
        assert_eq!(
            reqwest::Client::new().post(&url).json(&said).send().await.unwrap().status(),
            401
        );
    }
    let lines = eventually("both lines", async || {
        let log = home.log();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains("a sign-in was refused"))
            .map(str::to_owned)
            .collect();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    for (line, way) in lines.iter().zip(["token", "link"]) {
        for field in [" WARN ", " client=127.0.0.1 ", &format!(" way=\"{way}\" "), " reason="] {
            assert!(line.contains(field), "{field}: {line}");
        }
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[tokio::test]
async fn one_client_behind_a_proxy_kept_all_others_from_signing_in() {
    let hub = TestHub::with(&[("http.trusted_proxies", "127.0.0.0/8")]).await;
    let sign_in = async |client: &str| {
        let request = hub.http().post(hub.url("/api/v1/session")).json(&json!({"token": "wrong"}));
        request.header("x-forwarded-for", client).send().await.unwrap().status()
    };
    for n in 0..11 {
        // What the client made up stands before what the proxy added.
        let wanted = if n < 10 { 401 } else { 429 };
        assert_eq!(sign_in(&format!("1.1.1.{n}, 192.0.2.1")).await, wanted);
    }
    assert_eq!(sign_in("192.0.2.2").await, 401);
    // The list of connections as well.
    let root = hub.token_for("root", &[], Some("admin"), 60);
    let forwarded = ("forwarded", "for=\"[2001:db8::7]:4711\"");
    let mut client = hub.socket("/ws/real-time", &[PROTOCOL, forwarded]).await;
    client.connect(&hub.token("ada", &["a.*"])).await;
    let list =
        hub.http().get(hub.url("/api/v1/connections")).bearer_auth(root).send().await.unwrap();
    let list: Value = list.json().await.unwrap();
    assert!(list.to_string().contains("\"[2001:db8::7]:4711\""), "{list}");
}

#[tokio::test]
async fn nobody_could_see_the_connections_once_their_subscriptions_were_long() {
    let hub = TestHub::start().await;
    let long = vec!["a".repeat(60); 3].join(".");
    let patterns: Vec<String> = (0..32).map(|n| format!("{long}.{n}")).collect();
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = hub.client("ada", &["**"]).await;
        for sub in 0..40 {
            client.subscribe(json!({"sub": sub.to_string(), "topics": patterns})).await;
            client.expect("live").await;
        }
        clients.push(client);
    }
    let root = hub.token_for("root", &[], Some("admin"), 60);
    let ask = async |query: &[(&str, String)]| {
        let url = reqwest::Url::parse_with_params(&hub.url("/api/v1/connections"), query).unwrap();
        let request = hub.http().get(url);
        request.bearer_auth(&root).send().await.unwrap()
    };
    // What each page has, until the last.
    let pages = async |limit: &[(&str, String)]| {
        let (mut pages, mut found, mut query) = (Vec::new(), BTreeSet::new(), limit.to_vec());
        loop {
            let page: Value = ask(&query).await.json().await.unwrap();
            let list = page["connections"].as_array().unwrap();
            pages.push(list.len());
            assert!(list.iter().all(|one| found.insert(one["conn"].to_string())), "one came twice");
            let Some(next) = page["next"].as_str() else { break };
            query = [limit, &[("after", next.to_owned())]].concat();
        }
        assert_eq!(found.len(), 6);
        pages
    };
    assert_eq!(pages(&[]).await, [5, 1], "about 1 MiB");
    assert_eq!(pages(&[("limit", "4".to_owned())]).await, [4, 2]);
    assert_eq!(pages(&[("limit", "3".to_owned())]).await, [3, 3]);
    assert_eq!(ask(&[("limit", "0".to_owned())]).await.status(), 400);
    assert_eq!(ask(&[("after", "c1".to_owned())]).await.status(), 400);
}

#[tokio::test]
async fn head_of_an_answer_whose_length_nobody_knows_names_none() {
    let hub = TestHub::start().await;
    let head = async |path: &str| {
        let request = hub.http().head(hub.url(path)).bearer_auth(hub.token("ada", &["a.*"]));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned())
    };
    assert_eq!(head("/api/v1/history?topics=a.*").await, None);
    assert_eq!(head("/healthz").await.as_deref(), Some("3"));
}
