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
    small_disk::SmallDisk,
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

    /// Of those that grow with what is published; the reserve, which is made meanwhile, may be many times as large.
    fn largest_file(&self) -> u64 {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
        let files = std::fs::read_dir(self.home.data()).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| !path.ends_with("reserve")).map(|path| size(&path)).max().unwrap()
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

/// So much of the small disk is kept free.
const RESERVE: u64 = 6 << 20;

impl Disk {
    /// A hub on a disk of a few MiB, whose reserve is made; None where there can be none.
    async fn small(settings: &str) -> Option<Self> {
        let home = Home::new(settings).with_variable("PULSEHUB_JOURNAL_RESERVE", "6 MiB");
        let home = home.on_a_small_disk(32 << 20)?;
        let hub = home.start().await;
        let token = home.token("disk", "disk.**");
        let http = reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        let disk = Self { home, hub, token, http, sent: Mutex::default() };
        disk.reserve_becomes(RESERVE).await;
        Some(disk)
    }

    fn small_disk(&self) -> &SmallDisk {
        self.home.disk().unwrap()
    }

    async fn reserve_becomes(&self, size: u64) {
        let file = self.small_disk().file("reserve");
        eventually(&format!("a reserve of {size} bytes"), async || {
            let found = std::fs::metadata(&file).map_or(0, |data| data.len());
            (found == size).then_some(())
        })
        .await;
    }

    /// Stores some 7 MB.
    async fn store_some(&self) {
        for batch in 0..60 {
            let ids: Vec<_> = (0..40).map(|n| format!("old-{batch}-{n}")).collect();
            assert_eq!(self.publish(&ids).await.status, 200);
        }
    }

    /// Whether the hub stores again, and keeps the reserve again.
    async fn heals(&self) {
        for batch in 0..5 {
            let ids: Vec<_> = (0..40).map(|n| format!("healed-{batch}-{n}")).collect();
            eventually("events that are stored", async || {
                (self.publish(&ids).await.status == 200).then_some(())
            })
            .await;
        }
        self.reserve_becomes(RESERVE).await;
    }

    /// Fills the disk until an event is refused; with what answer.
    async fn becomes_full(&self) -> Answered {
        let refused = eventually("a refusal", async || {
            self.small_disk().fill();
            let round = self.sent.lock().len();
            let ids: Vec<_> = (0..40).map(|n| format!("more-{round}-{n}")).collect();
            let answer = self.publish(&ids).await;
            (answer.status != 200).then_some(answer)
        })
        .await;
        self.reserve_becomes(0).await;
        refused
    }

    /// Fills the disk so that it stays full: what the end of the write-ahead log frees may be room for a reserve again,
    /// so the disk is filled once more behind it; it is given what it needs to end. The hub is left what the reserve had.
    async fn stays_full(&self) {
        self.becomes_full().await;
        let length = |name: &str| {
            std::fs::metadata(self.small_disk().file(name)).map_or(0, |found| found.len())
        };
        eventually("the end of the write-ahead log", async || {
            let has_ended = length("journal.db-wal") == 0 || length("reserve") == RESERVE;
            if !has_ended {
                self.small_disk().free(4096);
            }
            has_ended.then_some(())
        })
        .await;
        self.becomes_full().await;
        self.small_disk().fill();
        self.small_disk().free(RESERVE);
    }

    async fn killed_and_started(self, meanwhile: impl FnOnce(&SmallDisk)) -> Self {
        let Disk { home, hub, token, http, sent } = self;
        hub.kill();
        meanwhile(home.disk().unwrap());
        let hub = home.start().await;
        Self { home, hub, token, http, sent }
    }

    /// How many batches were refused, the hub's own as well.
    async fn failures(&self) -> f64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix("pulsehub_publish_failures_total "));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// How often the hub said that the disk is full.
    fn told(&self) -> usize {
        self.home.log().matches("the disk is full").count()
    }
}

#[tokio::test]
async fn a_full_disk_heals_when_what_is_stored_has_expired() {
    let settings = "[journal]\nsync = \"normal\"\nmax_age = \"5s\"\n";
    let Some(disk) = Disk::small(settings).await else { return };
    disk.store_some().await;
    let refused = disk.becomes_full().await;
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("unavailable")));
    assert_eq!(refused.body["retryable"], true);
    // Whoever filled the disk takes nothing away again.
    disk.heals().await;
    assert_eq!(disk.told(), 1, "{}", disk.home.log());
    disk.hub.kill();
}

#[tokio::test]
async fn a_hub_starts_on_a_full_disk_and_heals() {
    let settings = "[journal]\nsync = \"normal\"\n";
    let Some(mut disk) = Disk::small(settings).await else { return };
    disk.store_some().await;
    // Ended in order, it leaves no files that the next start would need room for.
    crate::support::signal(disk.hub.id(), "TERM");
    assert_eq!(disk.hub.ends().await, Some(0));
    disk.small_disk().fill();
    disk.home.settings("[journal]\nsync = \"normal\"\nmax_age = \"1s\"\n");
    disk.hub = disk.home.start().await;
    disk.heals().await;
    assert!(disk.told() <= 1, "{}", disk.home.log());
    disk.hub.kill();
}

#[tokio::test]
async fn a_hub_that_was_killed_and_starts_on_a_full_disk_heals() {
    let settings = "[journal]\nsync = \"normal\"\n";
    let Some(disk) = Disk::small(settings).await else { return };
    disk.store_some().await;
    let disk = disk.killed_and_started(SmallDisk::fill).await;
    eventually("a refusal", async || {
        (disk.publish(&["refused".into()]).await.status == 503).then_some(())
    })
    .await;
    // Once more, in the middle of it.
    disk.home.settings("[journal]\nsync = \"normal\"\nmax_age = \"1s\"\n");
    let disk = disk.killed_and_started(|_| ()).await;
    disk.heals().await;
    disk.hub.kill();
}

#[tokio::test]
async fn a_disk_that_stays_full_is_told_of_once_and_keys_can_be_taken_back() {
    let Some(disk) = Disk::small("[journal]\nsync = \"normal\"\n").await else { return };
    disk.store_some().await;
    disk.stays_full().await;
    // Once more if there had been room for a reserve in between.
    let told = disk.told();
    assert!((1..=2).contains(&told), "{}", disk.home.log());
    disk.home.run("key create", &["--name", "late", "--publish", "a.**"]);
    // The hub's own events are refused as well, about one a second.
    let refused = disk.failures().await;
    eventually("refusals", async || (disk.failures().await >= refused + 4.0).then_some(())).await;
    assert_eq!(disk.publish(&["never".into()]).await.status, 503);
    assert_eq!(disk.told(), told, "{}", disk.home.log());
    disk.small_disk().free(32 << 20);
    disk.heals().await;
    assert_eq!(disk.told(), told, "{}", disk.home.log());
    disk.hub.kill();
}
