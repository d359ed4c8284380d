//! What series cost: no test, but where docs/performance.md has its figures from.
//!
//! `cargo test --release --workspace --locked --test hub -- --ignored --nocapture series::cost`

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use pulsehub::time::{Clock, Millis};
use serde_json::Value;

use crate::support::{
    DEADLINE, eventually,
    process::{Home, Process},
};

const TOPICS: usize = 100;
const SERIES: usize = 100;

struct Producer {
    http: reqwest::Client,
    token: String,
    address: String,
    noise: u64,
}

impl Producer {
    /// A value with two decimals.
    fn value(&mut self) -> f64 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.noise >> 40) as f64 % 10_000.0 / 100.0
    }

    /// An event for each topic `{kind}{n}.{last}`.
    fn events(&mut self, body: &mut String, kind: &str, last: &str, time: Millis) {
        let time = pulsehub::time::rfc3339(time);
        for topic in 0..TOPICS {
            write!(body, r#"{{"topic":"{kind}{topic}.{last}","time":"{time}","data":{{"#).unwrap();
            for series in 0..SERIES {
                let comma = if series == 0 { "" } else { "," };
                write!(body, r#"{comma}"n{series}":{}"#, self.value()).unwrap();
            }
            body.push_str("}}\n");
        }
    }

    async fn publish(&self, body: String) {
        let url = format!("{}/api/v1/publish", self.address);
        let request = self.http.post(url).bearer_auth(&self.token);
        let request = request.header("content-type", "application/x-ndjson").body(body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    }

    async fn metric(&self, name: &str) -> f64 {
        let answer = self.http.get(format!("{}/metrics", self.address)).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    /// CPU of the hub while the same numbers come once a second for longer than a save takes turns.
    async fn second_by_second(&mut self, kind: &str, last: &str) -> f64 {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.tick().await;
        let (began, before) = (Instant::now(), self.metric("pulsehub_cpu_seconds_total").await);
        for _ in 0..70 {
            tick.tick().await;
            let mut body = String::new();
            self.events(&mut body, kind, last, Clock::system().now());
            self.publish(body).await;
        }
        let used = self.metric("pulsehub_cpu_seconds_total").await - before;
        used / began.elapsed().as_secs_f64() * 100.0
    }

    async fn chart(&self) -> (usize, f64) {
        let url = format!("{}/api/v1/series/query?name=chart.n&from=24h", self.address);
        let began = Instant::now();
        let answer = self.http.get(url).bearer_auth(&self.token).send().await.unwrap();
        let columns: Value = answer.json().await.unwrap();
        let values = columns["values"][0].as_array().unwrap();
        let points = values.iter().filter(|value| !value.is_null()).count();
        (points, began.elapsed().as_secs_f64() * 1000.0)
    }
}

#[tokio::test]
#[ignore = "a measurement of three minutes"]
async fn ten_thousand_series_with_a_sample_a_second() {
    let home = Home::new("[journal]\nsync = \"normal\"\n");
    let hub: Process = home.start().await;
    let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
    let address = format!("http://{}", hub.address());
    let mut producer = Producer { http, token: home.token("p", "**"), address, noise: 1 };
    let empty = producer.metric("pulsehub_memory_bytes").await;

    let now = Clock::system().now();
    let mut day = String::new();
    for n in 0..8640 {
        let time = pulsehub::time::rfc3339(now - 86_400_000 + n * 10_000);
        let value = producer.value();
        writeln!(day, r#"{{"topic":"chart.metrics","time":"{time}","data":{{"n":{value}}}}}"#)
            .unwrap();
    }
    producer.publish(day).await;
    let before = producer.metric("pulsehub_cpu_seconds_total").await;
    // Whole chunks of every width: hours by the minute, one by ten seconds, the last by the second.
    let minutes = (15..300).rev().map(|minute| now - minute * 60_000);
    let tens = (90..360).rev().map(|ten| now - ten * 10_000);
    let seconds = (0..900).rev().map(|second| now - second * 1000);
    let times: Vec<_> = minutes.chain(tens).chain(seconds).collect();
    for times in times.chunks(20) {
        let mut body = String::new();
        times.iter().for_each(|time| producer.events(&mut body, "t", "metrics", *time));
        producer.publish(body).await;
    }
    let samples = (times.len() * TOPICS * SERIES) as f64;
    eventually("all samples", async || {
        (producer.metric("pulsehub_series_samples_total").await >= samples).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await; // the hub takes its own figures every second
    let used = producer.metric("pulsehub_cpu_seconds_total").await - before;
    println!("{} series", producer.metric("pulsehub_series").await);
    println!("{samples} samples: {:.2} µs CPU each, all told", used / samples * 1e6);
    let full = producer.metric("pulsehub_memory_bytes").await;
    println!("memory {:.0} MiB, {:.0} MiB empty", full / 1048576.0, empty / 1048576.0);
    let plain = producer.second_by_second("t", "other").await;
    let series = producer.second_by_second("t", "metrics").await;
    println!("CPU of one core: {plain:.1} % stored only, {series:.1} % with series");
    let full = producer.metric("pulsehub_memory_bytes").await;
    println!("memory {:.0} MiB", full / 1048576.0);
    let mut charts = Vec::new();
    for _ in 0..50 {
        charts.push(producer.chart().await);
    }
    charts.sort_by(|a, b| a.1.total_cmp(&b.1));
    println!(
        "24 h chart of {} points: {:.1} ms, p95 {:.1} ms",
        charts[0].0, charts[25].1, charts[47].1
    );
    hub.kill();
}
