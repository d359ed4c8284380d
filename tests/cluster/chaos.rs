//! Faults by chance, under load, on nodes that are processes of their own; judged by the checker.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::timeout;

use crate::support::{
    DEADLINE,
    checker::{Answer, Evidence, Seen, Step, offsets},
    dice::Dice,
    eventually, filter,
    load::{Kind, Load, more_is_stored, publish, step, subscribe},
    process::{Home, Process},
    proxy::Proxy,
    redis::RedisServer,
};

const PATTERNS: [&[&str]; 4] =
    [&["load.**"], &["load.a.*"], &["load.*.x", "load.b.y"], &["load.c"]];
const NODES: usize = 3;
const LONG: Duration = Duration::from_secs(45);

/// What may happen to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Redis stands still, longer than anybody waits for it or not.
    Freeze,
    /// Redis ends and comes back with everything.
    Crash,
    /// Redis comes back as it was some time ago.
    FallBack,
    /// Redis comes back empty.
    Wipe,
    /// A replica that is behind takes over.
    FailOver,
    /// A connection breaks after some bytes.
    Cut,
    /// A node ends as by `kill -9` and comes back.
    Kill,
    /// Redis drops every connection.
    Drop,
    /// Redis stands still for 45 s.
    LongFreeze,
    /// Redis is away for 45 s.
    LongCrash,
}

const HARMLESS: [Fault; 5] = [Fault::Freeze, Fault::Crash, Fault::Cut, Fault::Kill, Fault::Drop];
const ALL: [Fault; 8] = [
    Fault::Freeze,
    Fault::Crash,
    Fault::FallBack,
    Fault::Wipe,
    Fault::FailOver,
    Fault::Cut,
    Fault::Kill,
    Fault::Drop,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_redis_keeps_what_it_has() {
    let mut dice = Dice::new(Dice::first_seed(501));
    for _ in 0..5 {
        run(dice.split(), &HARMLESS, 4).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_loses_is_told_to_everybody() {
    let mut dice = Dice::new(Dice::first_seed(502));
    for _ in 0..5 {
        run(dice.split(), &ALL, 4).await;
    }
}

/// `make soak`: `SOAK_SCHEDULES` of them, or none at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    let schedules = std::env::var("SOAK_SCHEDULES").map_or(0, |text| text.parse().unwrap());
    let mut dice = Dice::new(Dice::first_seed(503));
    for number in 0..schedules {
        let faults: &[Fault] = if number % 2 == 0 { &HARMLESS } else { &ALL };
        println!("{number} {}", run(dice.split(), faults, 6).await);
    }
}

/// Part of `make soak`: outages as long as real ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_long_outages() {
    if std::env::var("SOAK_SCHEDULES").is_ok() {
        let mut dice = Dice::new(Dice::first_seed(504));
        for fault in [Fault::LongFreeze, Fault::LongCrash] {
            println!("{}", run(dice.split(), &[fault], 1).await);
        }
    }
}

struct Cluster {
    redis: RedisServer,
    proxy: Proxy,
    home: Home,
    nodes: Vec<Option<Process>>,
    load: Load,
}

/// One schedule; a line about it.
async fn run(mut dice: Dice, faults: &[Fault], count: u64) -> String {
    let seed = format!("{:?}", dice.clone().within(0..u64::MAX));
    let started = std::time::Instant::now();
    let redis = RedisServer::start().await;
    let proxy = Proxy::to(redis.port()).await;
    let home = Home::new(&format!(
        "redis = \"{}\"\nsecret = \"{}\"\n[cluster]\ntimeout = \"500ms\"\n\
         [journal]\nrecent_bytes = \"{} KiB\"\n[socket]\nping = \"1s\"\n",
        proxy.url(),
        crate::support::hub::SECRET,
        dice.one_of(&[1, 16, 1024]),
    ));
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(Some(home.start().await));
    }
    let load = Load::new(home.token("load", "load.**"), Kind::Redis);
    let mut cluster = Cluster { redis, proxy, home, nodes, load };
    cluster.tell();
    let readers: Vec<_> = PATTERNS
        .iter()
        .enumerate()
        .map(|(n, patterns)| {
            let load = cluster.load.clone();
            tokio::spawn(subscribe(load, format!("reader {n}"), patterns, dice.split()))
        })
        .collect();
    let began =
        || async { (cluster.load.began.load(Ordering::SeqCst) == PATTERNS.len()).then_some(()) };
    eventually("the subscriptions", began).await;
    let publishers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(publish(cluster.load.clone(), format!("p{n}"), dice.split())))
        .collect();
    let mut happened = Vec::new();
    let mut may_lose = false;
    for _ in 0..count {
        let fault = dice.one_of(faults);
        happened.push(fault);
        may_lose |= matches!(fault, Fault::FallBack | Fault::Wipe | Fault::FailOver);
        let before = dice.within(5..60);
        more_is_stored(&cluster.load, before, &format!("stored before {happened:?}")).await;
        cluster.suffer(fault, &mut dice).await;
    }
    more_is_stored(&cluster.load, 20, &format!("stored after {happened:?}")).await;
    cluster.load.stop_publishing();
    let mut evidence = Evidence::default();
    for publisher in publishers {
        let sent = timeout(DEADLINE, publisher).await.expect("a publisher hangs").unwrap();
        evidence.sent.extend(sent);
    }
    let last = cluster.load.publish_the_last(&mut dice).await;
    let stored = last.iter().filter_map(|sent| match sent.answer {
        Answer::Stored(offset) => Some(offset),
        Answer::Unknown | Answer::Refused => None,
    });
    let stored = stored.max().expect("the last events are stored");
    evidence.sent.extend(last);
    for reader in readers {
        let seen = timeout(DEADLINE, reader).await;
        let seen =
            seen.unwrap_or_else(|_| panic!("a reader hangs, {happened:?}, {}", cluster.log()));
        evidence.seen.push(seen.unwrap());
    }
    let history = timeout(DEADLINE, cluster.load.history(&mut dice, stored)).await;
    let history = history.expect("the history never holds the last event");
    let steps: Vec<_> = history.iter().map(step).collect();
    evidence.kept = offsets(&steps);
    let filter = filter(&["load.**"]);
    // What the log holds, as if it were a subscription that was promised nothing.
    evidence.seen.push(Seen { name: "history".into(), filter, after: 0, through: 0, steps });
    let faults = evidence.judge();
    if !faults.is_empty() {
        println!("{faults:?}");
        cluster.leave_evidence().await;
    }
    let gaps = evidence.seen.iter().flat_map(|seen| &seen.steps);
    let gaps = gaps.filter(|step| matches!(step, Step::Gap { .. })).count();
    assert_eq!(
        faults[..faults.len().min(10)],
        [],
        "{seed}: {happened:?}, {} faults, {}",
        faults.len(),
        cluster.log()
    );
    assert!(may_lose || gaps == 0, "a gap where nothing was lost: {happened:?}");
    format!(
        "{happened:?} {} sent, {} kept, {gaps} gaps, {:.1} s",
        evidence.sent.len(),
        evidence.kept.len(),
        started.elapsed().as_secs_f64()
    )
}

impl Cluster {
    /// Tells the load where the nodes are.
    fn tell(&self) {
        let address = |node: &Option<Process>| node.as_ref().map(Process::address);
        self.load.move_to(self.nodes.iter().map(address).collect());
    }

    fn log(&self) -> String {
        self.nodes.iter().flatten().next().map_or(String::new(), Process::log)
    }

    /// Prints what the log consists of, and all that nodes and Redis wrote; shown when a test fails.
    async fn leave_evidence(&self) {
        let meta: Vec<String> = self.redis.ask(&["HGETALL", "{pulsehub}:meta"]).await;
        println!("meta {meta:?}");
        let keys: Vec<String> = self.redis.ask(&["KEYS", "{pulsehub}:ids:*"]).await;
        for key in keys {
            let ids: u64 = self.redis.ask(&["HLEN", &key]).await;
            println!("{key} has {ids} ids");
        }
        let log = ["XRANGE", "{pulsehub}:log", "-", "+"];
        let entries: Vec<(String, redis::Value)> = self.redis.ask(&log).await;
        let entries: Vec<String> = entries.into_iter().map(|(id, _)| id).collect();
        println!("entries {}", entries.join(" "));
        println!("{}\n{}", self.home.log(), self.redis.log());
    }

    async fn suffer(&mut self, fault: Fault, dice: &mut Dice) {
        match fault {
            Fault::Freeze => {
                self.redis.freeze();
                // Shorter and longer than the timeout, and than the dedupe of a moment.
                let time = Duration::from_millis(dice.one_of(&[100, 400, 700, 1500]));
                tokio::time::sleep(time).await;
                self.redis.thaw();
            }
            Fault::Crash => {
                self.redis.kill();
                self.redis.start_again().await;
            }
            Fault::LongFreeze => {
                self.redis.freeze();
                tokio::time::sleep(LONG).await;
                self.redis.thaw();
            }
            Fault::LongCrash => {
                self.redis.kill();
                tokio::time::sleep(LONG).await;
                self.redis.start_again().await;
            }
            Fault::FallBack => {
                self.redis.freeze();
                let copy = self.redis.copy();
                self.redis.thaw();
                more_is_stored(&self.load, 10, "stored to be lost").await;
                self.redis.kill();
                self.redis.fall_back_to(Some(&copy));
                self.redis.start_again().await;
            }
            Fault::Wipe => {
                self.redis.kill();
                self.redis.fall_back_to(None);
                self.redis.start_again().await;
            }
            Fault::FailOver => {
                let port = self.redis.port().to_string();
                let replica = RedisServer::start().await;
                replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]).await;
                let in_step = || async {
                    let info: String = replica.ask(&["INFO", "replication"]).await;
                    info.contains("master_link_status:up").then_some(())
                };
                eventually("the replica", in_step).await;
                replica.freeze();
                more_is_stored(&self.load, 10, "stored to be lost").await;
                self.redis.kill();
                replica.thaw();
                replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
                self.proxy.lead_to(replica.port());
                self.redis = replica;
            }
            Fault::Cut => {
                let bytes = dice.within(0..20_000);
                self.proxy.cut_after(bytes as i64);
            }
            Fault::Drop => self.proxy.lead_to(self.redis.port()),
            Fault::Kill => {
                let at = dice.within(0..NODES as u64) as usize;
                let node = self.nodes[at].take().unwrap();
                self.tell();
                node.kill();
                self.nodes[at] = Some(self.home.start().await);
                self.tell();
            }
        }
    }
}
