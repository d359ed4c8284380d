//! Payloads that are JSON and that many readers of JSON stumble over: whatever publish takes comes out of
//! everything of ours as it went in. The page's client reads the same corpus in client.test.ts.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    eventually,
    hub::{Client, PROTOCOL},
    process::Home,
};

/// One payload a line.
pub(crate) const CORPUS: &str = include_str!("odd_payloads.ndjson");

/// The payloads of the events in these lines, as they stand there.
fn payloads(lines: &str) -> Vec<&str> {
    lines
        .lines()
        .map(|line| line.split_once(",\"data\":").unwrap().1.strip_suffix('}').unwrap())
        .collect()
}

#[tokio::test]
async fn what_publish_takes_comes_out_of_tail_history_export_and_the_socket() {
    let home = Home::new("");
    let hub = home.start().await;
    let token = home.token("odd", "odd.**");
    let wanted: Vec<_> = CORPUS.lines().collect();
    let mut client = Client::open(hub.address(), "/ws/real-time", &[PROTOCOL]).await.unwrap();
    client.connect(&token).await;
    client.subscribe(json!({"sub": "s", "topics": ["odd.**"]})).await;
    client.expect("live").await;

    // On a topic whose numbers become series, so that those who look for them read all of it too.
    let body: String = wanted
        .iter()
        .map(|payload| format!("{{\"topic\":\"odd.metrics\",\"data\":{payload}}}\n"))
        .collect();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("http://{}/api/v1/{path}", hub.address());
    let request = http.post(url("publish")).header("content-type", "application/x-ndjson");
    let answer = request.bearer_auth(&token).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);

    let mut live = String::new();
    while live.matches("\"offset\":").count() < wanted.len() + 1 {
        match client.next().await {
            Some(Message::Text(text)) => live.push_str(&text),
            other => assert!(matches!(other, Some(Message::Ping(_))), "{other:?}"),
        }
    }
    let count = wanted.len().to_string();
    let arguments = ["odd.**", "--last", &count, "--count", &count];
    let tailed = home.run_as(&token, &hub, "tail", &arguments).await;
    assert_eq!(payloads(&tailed), wanted);
    let request = http.get(url("history?topics=odd.**")).bearer_auth(&token);
    let history = request.send().await.unwrap().text().await.unwrap();
    for payload in &wanted {
        let data = format!(",\"data\":{payload}}}");
        assert!(live.contains(&data) && history.contains(&data), "{payload}");
    }
    let exported = home.run("export", &["--topics", "odd.**"]);
    assert_eq!(payloads(&exported), wanted);
    assert!(home.run("check", &[]).contains("journal: good"));
    // The numbers beside those that are none are series.
    eventually("the series", async || {
        let request = http.get(url("series?prefix=odd.")).bearer_auth(&token);
        let text = request.send().await.unwrap().text().await.unwrap();
        (text.contains("\"odd.fine\"") && text.contains("\"odd.beside\"")).then_some(())
    })
    .await;
}
