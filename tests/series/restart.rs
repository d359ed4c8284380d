//! Kill -9 in the middle: every sample is in its series once, on whatever node.

use std::{path::Path, time::Duration};

use pulsehub::{store::Store, time::Clock};
use serde_json::{Value, json};

use crate::support::{
    DEADLINE,
    dice::Dice,
    eventually,
    process::{Home, Process},
    redis::RedisServer,
};

const SETTINGS: &str = "[journal]\nsync = \"normal\"\n[series]\nsave_every = \"1s\"\n";

/// Who publishes and asks, of whatever node.
pub(crate) struct Client {
    http: reqwest::Client,
    token: String,
    /// What was sent, and its sum.
    sent: u64,
    sum: u64,
}

impl Client {
    pub(crate) fn new(home: &Home) -> Self {
        let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        Self { http, token: home.token("ada", "t.**"), sent: 0, sum: 0 }
    }

    /// Publishes one value to a gauge and to a counter; again under the same id until it is stored.
    pub(crate) async fn publish(&mut self, hub: &Process) {
        self.sent += 1;
        let n = self.sent;
        self.sum += n;
        let total = json!({"samples": [{"name": "total", "type": "counter", "value": self.sum}]});
        let events = json!([
            {"topic": "t.metrics", "id": format!("m{n}"), "data": {"n": n}},
            {"topic": "t.samples", "id": format!("s{n}"), "type": "samples", "data": total},
        ]);
        let url = format!("http://{}/api/v1/publish", hub.address());
        eventually("the answer", async || {
            let request = self.http.post(&url).bearer_auth(&self.token).json(&events);
            request.send().await.is_ok_and(|answer| answer.status() == 200).then_some(())
        })
        .await;
    }

    /// All that is known of a series, added up.
    async fn all(&self, hub: &Process, question: &str) -> Option<f64> {
        let path = "/api/v1/series/query?from=1h&step=10s";
        let url = format!("http://{}{path}&{question}", hub.address());
        let answer = self.http.get(url).bearer_auth(&self.token).send().await.ok()?;
        let columns: Value = answer.json().await.ok()?;
        let values = columns["values"].get(0)?.as_array()?;
        values.iter().filter_map(Value::as_f64).reduce(|a, b| a + b)
    }

    /// Everything that was sent is in once.
    pub(crate) async fn check(&self, hub: &Process) {
        let (sent, sum) = (self.sent as f64, self.sum as f64);
        // What the counter had counted at its first sample nobody saw it count.
        for (question, wanted) in [
            ("name=t.n&agg=count", sent),
            ("name=t.n&agg=sum", sum),
            ("name=total&agg=count", sent),
            ("name=total&agg=increase", sum - 1.0),
        ] {
            eventually(&format!("{question} = {wanted}"), async || {
                let found = self.all(hub, question).await;
                assert!(found.is_none_or(|found| found <= wanted), "{question}: {found:?}");
                (found == Some(wanted)).then_some(())
            })
            .await;
        }
    }
}

/// Waits until more has been written to the store of one node.
async fn saved(data: &Path, before: Option<u64>) -> Option<u64> {
    let store = Store::open(data, Clock::system()).unwrap();
    eventually("a save", async || {
        let position = store.load_cursor("series").await.unwrap().map(|at| at.offset);
        (position > before).then_some(position)
    })
    .await
}

#[tokio::test]
async fn nothing_is_counted_twice_or_lost_over_crashes() {
    let home = Home::new(SETTINGS);
    let mut hub = home.start().await;
    let mut client = Client::new(&home);
    let mut dice = Dice::new(Dice::first_seed(81));
    let mut position = None;
    for round in 0..4 {
        for _ in 0..5 + dice.within(0..40) {
            client.publish(&hub).await;
        }
        if round > 0 {
            position = saved(&home.data(), position).await;
        }
        for _ in 0..dice.within(0..40) {
            client.publish(&hub).await;
        }
        hub.kill();
        hub = home.start().await;
    }
    client.check(&hub).await;
    hub.kill();
}

#[tokio::test]
async fn nothing_is_counted_twice_or_lost_when_the_lease_changes() {
    let redis = RedisServer::start().await;
    let home = Home::new(&format!("redis = \"{}\"\n{SETTINGS}", redis.url()));
    let one = home.start().await;
    let mut client = Client::new(&home);
    let store = Store::join(redis.server(), Clock::system()).await.unwrap();
    let saved = async |before: Option<u64>| {
        eventually("a save", async || {
            let position = store.load_cursor("series").await.ok()?.map(|at| at.offset);
            (position > before).then_some(position)
        })
        .await
    };
    for _ in 0..30 {
        client.publish(&one).await;
    }
    let first = saved(None).await;
    let two = home.start().await;
    for n in 0..30 {
        client.publish(if n % 2 == 0 { &one } else { &two }).await;
    }
    client.check(&two).await;
    one.kill();
    for _ in 0..30 {
        client.publish(&two).await;
    }
    // The other has the lease when the dead one's has run out, and goes on from what was saved.
    let second = saved(first).await;
    client.publish(&two).await;
    client.check(&two).await;
    saved(second).await;
    let three = home.start().await;
    client.check(&three).await;
    client.publish(&three).await;
    client.check(&two).await;
    three.kill();
    two.kill();
}

#[tokio::test]
async fn what_left_memory_is_read_from_the_store() {
    use crate::support::hub::TestHub;
    let day = 86_400_000;
    let start = pulsehub::time::parse_rfc3339("2026-11-20T00:00:00Z").unwrap();
    let clock = Clock::manual(start);
    let mut hub = TestHub::with_clock(&[("series.save_every", "1s")], clock.clone()).await;
    let hours: Vec<_> = (0..24)
        .map(|hour| {
            let time = pulsehub::time::rfc3339(start - day + hour * 3_600_000);
            json!({"topic": "t.metrics", "time": time, "data": {"n": hour}})
        })
        .collect();
    hub.publish(hours.into()).await;
    let token = hub.token("reader", &["**"]);
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build();
    let http = http.unwrap();
    let path = "/api/v1/series/query?name=t.n&from=2026-11-19T00:00:00Z&step=1h&agg=sum";
    let all = async |hub: &TestHub| {
        let url = hub.url(path);
        let answer = http.get(url).bearer_auth(&token).send().await.ok()?;
        let columns: Value = answer.json().await.ok()?;
        let values: Vec<_> = columns["values"].get(0)?.as_array()?.to_vec();
        Some(values.iter().filter_map(Value::as_f64).collect::<Vec<_>>())
    };
    let wanted: Vec<f64> = (0..24).map(f64::from).collect();
    eventually("all hours", async || (all(&hub).await? == wanted).then_some(())).await;
    hub.stop().await;
    hub.start_again().await;
    eventually("after a restart", async || (all(&hub).await? == wanted).then_some(())).await;
    // One more for an hour that is only in the store by now.
    let late = pulsehub::time::rfc3339(start - day + 5 * 3_600_000);
    hub.publish(json!({"topic": "t.metrics", "time": late, "data": {"n": 100}})).await;
    let mut wanted = wanted;
    wanted[5] += 100.0;
    eventually("what came late", async || (all(&hub).await? == wanted).then_some(())).await;
    hub.stop().await;
    hub.start_again().await;
    eventually("and was saved", async || (all(&hub).await? == wanted).then_some(())).await;
}
