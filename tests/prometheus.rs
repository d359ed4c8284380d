//! Debian's Prometheus as a client: what it scrapes comes in by remote write.

use std::{
    fs::{self, File},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{eventually, hub::TestHub};

/// A Prometheus that keeps nothing but what it has to send; ended when dropped.
struct Prometheus {
    child: Child,
    folder: TempDir,
}

impl Prometheus {
    /// Scrapes `target` as the job `hub`, and sends what it gets to `hub` with `token`.
    fn between(target: SocketAddr, hub: SocketAddr, token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, external_labels: {{ site: here }} }}\n\
             scrape_configs: [{{ job_name: hub, static_configs: [{{ targets: ['{target}'] }}] }}]\n\
             remote_write:\n\
             - url: http://{hub}/prometheus/api/v1/write\n\
             \x20 basic_auth: {{ username: prom, password: {token} }}\n\
             \x20 queue_config: {{ batch_send_deadline: 100ms }}\n\
             \x20 metadata_config: {{ send_interval: 500ms }}\n"
        );
        fs::write(folder.path().join("prometheus.yml"), settings).unwrap();
        let said = File::create(folder.path().join("said")).unwrap();
        let child = Command::new("prometheus")
            .args(["--enable-feature=agent", "--config.file=prometheus.yml"])
            .args(["--storage.agent.path=data", "--web.listen-address=127.0.0.1:0"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .expect("prometheus: ./tools/setup installs it");
        Self { child, folder }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The newest events that it sent.
async fn newest(hub: &TestHub) -> Vec<Value> {
    let url = hub.url("/api/v1/history?topics=prom.samples&limit=100");
    let request = hub.http().get(url).bearer_auth(hub.token("reader", &["prom.**"]));
    let page: Value = request.send().await.unwrap().json().await.unwrap();
    page["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn what_prometheus_scrapes_becomes_series_that_end_with_their_target() {
    let hub = TestHub::start().await;
    let mut target = TestHub::start().await;
    let token = hub.token("prom", &["prom.**"]);
    let prometheus = Prometheus::between(target.address(), hub.address(), &token);
    let key = format!("hub/{}", target.address());
    let row = |events: &[Value], name: &str, value: &Value| {
        let of_target = events.iter().filter(|event| event["key"] == key.as_str());
        let is_it = |row: &Value| row[0] == name && row[2] == *value;
        of_target
            .clone()
            .find(|event| event["data"]["rows"].as_array().unwrap().iter().any(is_it))
            .cloned()
    };
    let up = eventually("a scrape", async || row(&newest(&hub).await, "up", &1.0.into())).await;
    assert_eq!(up["data"]["labels"]["site"], "here", "{up}");
    assert_eq!((&up["type"], &up["source"]), (&"samples".into(), &"prom".into()));

    // Its type comes by itself, later: a counter's rate is asked for.
    let url = hub.url("/api/v1/series?prefix=pulsehub_&topic=prom.samples");
    eventually("types", async || {
        let request = hub.http().get(&url).bearer_auth(hub.token("reader", &["prom.**"]));
        let page: Value = request.send().await.unwrap().json().await.unwrap();
        let series = page["series"].as_array().unwrap().clone();
        let is_total = |series: &&Value| series["name"].as_str().unwrap().ends_with("_total");
        let totals: Vec<_> = series.iter().filter(is_total).cloned().collect();
        (!totals.is_empty() && totals.iter().all(|series| series["type"] == "counter"))
            .then_some(())
    })
    .await;

    target.stop().await;
    let end = Value::from("stale");
    eventually("the end of its series", async || {
        row(&newest(&hub).await, "pulsehub_clock_unsettled", &end)
    })
    .await;
    eventually("that it is down", async || row(&newest(&hub).await, "up", &0.0.into())).await;
    assert!(!prometheus.said().contains("samples_refused"), "{}", prometheus.said());
}
