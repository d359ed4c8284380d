//! Pages of a topic with few events in a long log: none takes long, and all of them together miss nothing.

use serde_json::{Value, json};

use crate::support::{
    hub::{TestHub, offset},
    redis::RedisServer,
};

async fn page(hub: &TestHub, query: &str) -> Value {
    let url = hub.url(&format!("/api/v1/history?topics=rare&{query}"));
    let answer = hub.http().get(url).bearer_auth(hub.token("r", &["**"])).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

fn numbers(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|event| event["data"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_rare_topic_is_paged_through_in_bounded_steps_in_both_directions() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let hub = TestHub::with(&[("redis", &*url), ("journal.recent_bytes", "1 KiB")]).await;
    let large = "x".repeat(240 << 10);
    for number in 0..2 {
        hub.publish(json!({"topic": "rare", "data": number})).await;
        for _ in 0..9 {
            let event = json!({"topic": "common", "data": large});
            hub.publish(Value::Array(vec![event; 10])).await;
        }
    }
    let (mut found, mut pages, mut after) = (Vec::new(), 0, "0".to_owned());
    loop {
        let page = page(&hub, &format!("after={after}")).await;
        (found, pages) = ([found, numbers(&page)].concat(), pages + 1);
        after = page["next"].as_str().unwrap().to_owned();
        if page["next"] == page["position"] {
            break;
        }
    }
    assert!(found == [0, 1] && pages > 1, "{found:?} in {pages} pages");
    // The newest is in the first page, whatever came behind it.
    let newest = page(&hub, "").await;
    assert_eq!((numbers(&newest), &newest["next"]), (vec![1], &newest["position"]));
    let (mut found, mut pages, mut first) = (vec![1], 1, newest["first"].clone());
    while offset(&first) > 1 {
        let page = page(&hub, &format!("before={}", first.as_str().unwrap())).await;
        assert!(offset(&page["first"]) < offset(&first), "{page}");
        (found, pages) = ([numbers(&page), found].concat(), pages + 1);
        first = page["first"].clone();
    }
    assert!(found == [0, 1] && pages > 1, "{found:?} in {pages} pages");
}
