//! A full disk: publishing is refused and says so, everything else goes on, and it heals by itself.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{
    DEADLINE,
    checker::{Answer, Evidence, Seen, Sent, Step, offsets},
    dice::Dice,
    eventually, filter,
    hub::{Client, PROTOCOL},
    process::{Home, Process},
};

/// A hub whose files can be kept from growing, and who publishes to it.
struct Disk {
    home: Home,
    hub: Process,
    token: String,
    http: reqwest::Client,
    sent: Mutex<Vec<Sent>>,
}

/// What a publisher was answered.
struct Answered {
    status: u16,
    retry_after: Option<u64>,
    body: Value,
}

#[tokio::test]
async fn a_full_disk_refuses_events_keeps_readers_and_heals_by_itself() {
    let disk = Disk::new().await;
    let mut reader = disk.reader(json!({"last": 0})).await;
    reader.expect("live").await;
    for n in 0..20 {
        assert_eq!(disk.publish(&[format!("before-{n}")]).await.status, 200);
    }
    let mut seen = events(&mut reader, 20).await;
    disk.limit_files(Some(disk.largest_file()));

    // The files hold some room still: the first commit that fails may have been written in part.
    let (refused, ids) = eventually("a refusal", async || {
        let count = disk.sent.lock().len();
        let ids: Vec<_> = (0..4).map(|n| format!("refused-{count}-{n}")).collect();
        let answer = disk.publish(&ids).await;
        (answer.status != 200).then_some((answer, ids))
    })
    .await;
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("unavailable")));
    assert_eq!(refused.body["retryable"], true);
    assert!(refused.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)));
    // Now not even what is small fits, and nothing can be written over; nor can the hub's own log.
    disk.limit_files(Some(1));
    for n in 0..5 {
        let answer = disk.publish(&[format!("never-{n}")]).await;
        assert_eq!(answer.status, 503, "it stays refused");
    }

    // What was stored can be read, by whoever was there and by whoever comes.
    let stored = disk.stored();
    seen.extend(events(&mut reader, stored - 20).await);
    assert_eq!(disk.history().await, stored);
    let mut late = disk.reader(json!({"last": 1000})).await;
    let mut seen_late = events(&mut late, stored).await;
    late.expect("live").await;
    eventually("publishing is said to be down", async || {
        (disk.get("/readyz/publishing").await.status() == 503).then_some(())
    })
    .await;
    assert_eq!(disk.get("/readyz").await.status(), 200, "readers are still welcome");

    disk.limit_files(None);
    eventually("a retry that is stored", async || {
        (disk.publish(&ids).await.status == 200).then_some(())
    })
    .await;
    let again = disk.publish(&ids).await.body;
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(4)));
    assert_eq!(disk.publish(&["after".into()]).await.status, 200);
    eventually("publishing is said to work", async || {
        (disk.get("/readyz/publishing").await.status() == 200).then_some(())
    })
    .await;
    for (client, seen) in [(&mut reader, &mut seen), (&mut late, &mut seen_late)] {
        // What was refused and came nevertheless, now or before, would stand among them.
        seen.extend(events(client, 5).await);
    }
    disk.judge(vec![("reader", seen), ("late", seen_late)]);
}

impl Disk {
    async fn new() -> Self {
        let home = Home::new("[journal]\nsync = \"normal\"\n");
        let hub = home.start_ignoring_file_size_signals().await;
        let token = home.token("disk", "disk.**");
        let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        Self { home, hub, token, http, sent: Mutex::default() }
    }

    async fn publish(&self, ids: &[String]) -> Answered {
        let event = |id: &String| json!({"topic": "disk.a", "id": id, "data": noise(id)});
        let events: Vec<_> = ids.iter().map(event).collect();
        let url = format!("http://{}/api/v1/publish", self.hub.address());
        let request = self.http.post(url).bearer_auth(&self.token).json(&events);
        let answer = request.send().await.unwrap();
        let retry_after = answer.headers().get("retry-after");
        let answered = Answered {
            status: answer.status().as_u16(),
            retry_after: retry_after.map(|value| value.to_str().unwrap().parse().unwrap()),
            body: answer.json().await.unwrap(),
        };
        self.sent.lock().extend(ids.iter().enumerate().map(|(n, id)| {
            let answer = match answered.body["offsets"][n].as_u64() {
                Some(offset) => Answer::Stored(offset),
                None => Answer::Refused,
            };
            Sent { id: id.clone(), topic: "disk.a".into(), answer }
        }));
        answered
    }

    /// How many events were stored.
    fn stored(&self) -> usize {
        let sent = self.sent.lock();
        sent.iter().filter(|sent| matches!(sent.answer, Answer::Stored(_))).count()
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        let request = self.http.get(format!("http://{}{path}", self.hub.address()));
        request.bearer_auth(&self.token).send().await.unwrap()
    }

    async fn reader(&self, replay: Value) -> Client {
        let open = Client::open(self.hub.address(), "/ws/real-time", &[PROTOCOL]);
        let mut client = open.await.unwrap();
        client.connect(&self.token).await;
        client.subscribe(json!({"sub": "s", "topics": ["disk.*"], "replay": replay})).await;
        client
    }

    /// How many events the history gives.
    async fn history(&self) -> usize {
        let answer = self.get("/api/v1/history?topics=disk.*&limit=1000").await;
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()["events"].as_array().unwrap().len()
    }

    /// No file of the hub may grow beyond so many bytes.
    fn limit_files(&self, bytes: Option<u64>) {
        let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let mut command = Command::new("prlimit");
        command.arg(format!("--pid={}", self.hub.id())).arg(format!("--fsize={bytes}:unlimited"));
        assert!(command.stdin(Stdio::null()).status().unwrap().success(), "{command:?}");
    }

    fn largest_file(&self) -> u64 {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
        let files = std::fs::read_dir(self.home.data()).unwrap();
        files.map(|file| size(&file.unwrap().path())).max().unwrap()
    }

    fn judge(self, seen: Vec<(&str, Vec<Step>)>) {
        let export: Vec<Step> = self.home.export("disk.**").iter().map(step).collect();
        let kept = offsets(&export);
        self.hub.kill();
        let seen = seen.into_iter().chain([("export", export)]).map(|(name, steps)| Seen {
            name: name.into(),
            filter: filter(&["disk.*"]),
            after: 0,
            through: u64::MAX,
            steps,
        });
        let (sent, seen) = (self.sent.into_inner(), seen.collect());
        let evidence = Evidence { sent, seen, kept, has_retention: false };
        assert_eq!(evidence.judge(), []);
    }
}

async fn events(client: &mut Client, count: usize) -> Vec<Step> {
    client.events("s", count).await.iter().map(step).collect()
}

fn step(event: &Value) -> Step {
    Step::Event {
        offset: event["offset"].as_u64().unwrap(),
        id: event["id"].as_str().unwrap().to_owned(),
    }
}

/// Some kilobytes that no compression makes small, different for each id.
fn noise(id: &str) -> String {
    let seed = id.bytes().fold(7, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte));
    let mut dice = Dice::new(seed);
    (0..3000).map(|_| char::from(b'0' + dice.within(0..75) as u8)).collect()
}
