//! Answers that nobody reads, and what they hold.

use futures_util::StreamExt as _;

use super::*;

const LIMITS: [(&str, &str); 3] =
    [("limits.body", "2 MiB"), ("limits.event", "64 KiB"), ("limits.answers", "16 MiB")];

async fn filled() -> Server {
    let server = Server::with(&LIMITS);
    let data = "x".repeat(40_000);
    for _ in 0..3 {
        let event = format!(r#"{{"topic":"a.b","data":"{data}"}}"#);
        let batch = format!("[{}]", vec![event; 20].join(","));
        assert_eq!(server.publish(batch).await.status, 200);
    }
    server
}

async fn ask(server: &Server, name: &str, path: &str) -> http::Response<Body> {
    let token = token(name, &["a.**"], None, 3600);
    let request = Request::get(path).header("x-api-key", token).body(Body::empty()).unwrap();
    server.endpoints.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn pages_of_history_nobody_reads_held_as_much_as_they_said() {
    let server = filled().await;
    let path = "/api/v1/history?topics=a.b&limit=1000&after=0";
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..100 {
        let response = ask(&server, "ada", path).await;
        match response.status().as_u16() {
            200 => unread.push(response),
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(unread.len() >= 4 && refused > 0, "{} pages, {refused} refused", unread.len());
    assert!(server.state.budgets.answers.held() <= 4 << 20);
    assert!(server.refusals("too_many_bytes"));
    assert_eq!(ask(&server, "bob", path).await.status(), 200, "others have their own share");
    // What is read comes whole, in pieces of which none is as large as the page.
    let mut pieces = unread.pop().unwrap().into_body().into_data_stream();
    let (mut whole, mut largest) = (Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.unwrap();
        largest = largest.max(piece.len());
        whole.extend_from_slice(&piece);
    }
    assert!(largest < 700_000, "{largest}");
    let page: Value = serde_json::from_slice(&whole).unwrap();
    let events = page["events"].as_array().unwrap();
    let offsets: Vec<_> = events.iter().map(|event| event["offset"].as_u64().unwrap()).collect();
    assert!(whole.len() > 1_900_000 && whole.len() < 2_200_000, "{}", whole.len());
    assert_eq!(offsets, (1..=offsets.len() as u64).collect::<Vec<_>>());
    let next = page["next"].as_str().unwrap().split_once(':').unwrap().1.to_owned();
    assert_eq!(next, offsets.len().to_string());
    drop((unread, pieces));
    assert_eq!(server.state.budgets.answers.held(), 0);
}

#[tokio::test]
async fn the_newest_of_many_large_events_are_those_at_the_end() {
    let server = filled().await;
    let page = server.get("/api/v1/history?topics=a.b&limit=1000").await.json();
    let events = page["events"].as_array().unwrap();
    let first = events[0]["offset"].as_u64().unwrap();
    assert_eq!(events.last().unwrap()["offset"], 60);
    assert_eq!(events.len() as u64, 61 - first);
    assert!(first > 1, "2.4 MB are no page of 2 MiB");
    let before = page["first"].as_str().unwrap();
    let older = server.get(&format!("/api/v1/history?topics=a.b&limit=1000&before={before}")).await;
    let older = older.json();
    assert_eq!(older["events"].as_array().unwrap().last().unwrap()["offset"], first - 1);
}

#[tokio::test]
async fn a_list_is_charged_until_it_is_taken() {
    let server = Server::new();
    server.publish(r#"{"topic":"a.b"}"#).await;
    let response = ask(&server, "ada", "/api/v1/topics").await;
    assert!(server.state.budgets.answers.held() > 0);
    drop(response);
    assert_eq!(server.state.budgets.answers.held(), 0);
}
