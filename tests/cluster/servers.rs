//! Redis as it is run in earnest: behind sentinels, behind TLS and a password, with limits.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::{follower, next, publish};
use crate::support::{
    DEADLINE,
    dice::Dice,
    eventually,
    hub::{Client, PROTOCOL, SECRET, TestHub, offset},
    process::{Home, Process},
    redis::RedisServer,
    sentinel::{MASTER, Sentinel},
};

struct Watched {
    master: RedisServer,
    replica: RedisServer,
    sentinel: Sentinel,
}

impl Watched {
    async fn start() -> Self {
        let master = RedisServer::start().await;
        let replica = RedisServer::start().await;
        replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).await;
        let sentinel = Sentinel::watching(&master).await;
        let watched = Self { master, replica, sentinel };
        watched.replica_has_all().await;
        watched
    }

    /// WAIT would not do: it waits for what its own connection wrote.
    async fn replica_has_all(&self) {
        let number = |info: &str, name: &str| {
            let found = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            found.and_then(|number| number.trim().parse::<u64>().ok())
        };
        let info: String = self.master.ask(&["INFO", "replication"]).await;
        let written = number(&info, "master_repl_offset").unwrap();
        let has = || async {
            let info: String = self.replica.ask(&["INFO", "replication"]).await;
            let has_all = number(&info, "slave_repl_offset").is_some_and(|read| read >= written);
            (has_all && info.contains("master_link_status:up")).then_some(())
        };
        eventually("a replica that has all", has).await;
    }

    async fn hub(&self) -> TestHub {
        let url = self.sentinel.url();
        let flags = [("redis", &*url), ("cluster.timeout", "700ms"), ("socket.ping", "1s")];
        TestHub::with(&flags).await
    }
}

async fn is_stored_again(hub: &TestHub, id: &str) -> u64 {
    let stored = || async {
        let answer = publish(hub, id).await;
        if answer.status() == 200 { Some(answer.json::<Value>().await.unwrap()) } else { None }
    };
    eventually("a publish", stored).await["offsets"][0].as_u64().unwrap()
}

#[tokio::test]
async fn a_failover_of_sentinels_is_followed_without_a_gap_when_nothing_was_lost() {
    let mut redis = Watched::start().await;
    let hub = redis.hub().await;
    let mut client = follower(&hub).await;
    assert_eq!(publish(&hub, "before").await.status(), 200);
    client.events("s", 1).await;
    redis.replica_has_all().await;
    redis.master.kill();
    is_stored_again(&hub, "after").await;
    let event = next(&mut client, &["events", "gap"]).await;
    assert_eq!(event["events"][0]["data"], "after", "{event}");
    let role: Vec<redis::Value> = redis.replica.ask(&["ROLE"]).await;
    assert_eq!(role[0], redis::Value::BulkString(b"master".into()));
}

#[tokio::test]
async fn what_a_failover_of_sentinels_loses_is_a_gap() {
    let mut redis = Watched::start().await;
    let hub = redis.hub().await;
    let mut client = follower(&hub).await;
    assert_eq!(publish(&hub, "kept").await.status(), 200);
    let kept = next(&mut client, &["events"]).await["position"].clone();
    redis.replica_has_all().await;
    // Nothing more gets to the replica, which cannot come back before the master is gone.
    redis.replica.freeze();
    redis.master.ask::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    let answer: Value = publish(&hub, "lost").await.json().await.unwrap();
    let lost = answer["offsets"][0].as_u64().unwrap();
    let seen = next(&mut client, &["events", "gap"]).await;
    assert_eq!(seen["events"][0]["data"], "lost", "{seen}");
    redis.master.kill();
    redis.replica.thaw();
    let after = is_stored_again(&hub, "after").await;
    assert!(after > lost, "{after} {lost}");
    // Who had seen it is told that it is gone, and who had not as well.
    let mut late = hub.client("late", &["t.*"]).await;
    let resume = json!({"sub": "s", "topics": ["t.*"], "resume": kept});
    assert_eq!(late.subscribe(resume).await["recovered"], false);
    for client in [&mut client, &mut late] {
        let gap = next(client, &["events", "gap"]).await;
        assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("epoch")), "{gap}");
        assert!(offset(&gap["from"]) <= lost && offset(&gap["to"]) >= lost, "{gap}");
        let event = next(client, &["events", "gap"]).await;
        assert_eq!(event["events"][0]["data"], "after", "{event}");
    }
    // Nothing but that is gone.
    let url = hub.url("/api/v1/history?topics=t.*");
    let history = hub.http().get(url).bearer_auth(hub.token("c", &["t.*"])).send().await.unwrap();
    let history: Value = history.json().await.unwrap();
    let data: Vec<_> = history["events"].as_array().unwrap().iter().map(|e| &e["data"]).collect();
    assert_eq!(data, ["kept", "after"]);
}

/// An authority, and what it says of this machine: the certificate of the first, and of the second with its key.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    (authority, certificate, key.serialize_pem())
}

#[tokio::test]
async fn over_tls_with_a_password_all_is_as_without() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (authority, certificate, key) = certificates();
    let (stranger, _, _) = certificates();
    let (authority, stranger) = (write("ca.pem", &authority), write("other.pem", &stranger));
    let (certificate, key) = (write("redis.pem", &certificate), write("redis.key", &key));
    let redis = RedisServer::with_tls(&certificate, &key, "right-one").await;
    let home = |host: &str, password: &str, trusted: &str| {
        let url = format!("rediss://:{password}@{host}:{}", redis.port());
        let settings = format!("redis = \"{url}\"\nsecret = \"{SECRET}\"\n");
        Home::new(&settings).with_variable("SSL_CERT_FILE", trusted)
    };
    let good = home("localhost", "right-one", &authority);
    let (one, two) = (good.start().await, good.start().await);
    let token = good.token("c", "t.*");
    let mut client = subscriber(&two, &token).await;
    assert_eq!(send(&one, &token, "over TLS").await, 200);
    assert_eq!(next(&mut client, &["events"]).await["events"][0]["data"], "over TLS");
    for (host, password, trusted, says) in [
        ("localhost", "wrong-one", &authority, "refuses the password"),
        ("localhost", "right-one", &stranger, "cannot be reached"),
        // Not whom the certificate names.
        ("127.0.0.1", "right-one", &authority, "cannot be reached"),
    ] {
        let said = home(host, password, trusted).start_fails().await;
        assert!(said.contains(says) && !said.contains(password), "{said}");
    }
    assert!(!one.log().contains("right-one"), "{}", one.log());
}

async fn subscriber(node: &Process, token: &str) -> Client {
    let mut client = Client::open(node.address(), "/ws/real-time", &[PROTOCOL]).await.unwrap();
    client.connect(token).await;
    client.subscribe(json!({"sub": "s", "topics": ["t.*"]})).await;
    next(&mut client, &["live"]).await;
    client
}

async fn send(node: &Process, token: &str, data: &str) -> u16 {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("http://{}/api/v1/publish", node.address()));
    let request = request.bearer_auth(token).json(&json!({"topic": "t.a", "data": data}));
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_node_whose_answer_was_too_large_for_a_limit_of_redis_never_read_on() {
    const EVENTS: usize = 60;
    let redis = RedisServer::start().await;
    let limit = "normal 262144 0 0";
    redis.ask::<()>(&["CONFIG", "SET", "client-output-buffer-limit", limit]).await;
    let home = Home::new(&format!("redis = \"{}\"\nsecret = \"{SECRET}\"\n", redis.url()));
    let (near, far) = (home.start().await, home.start().await);
    let token = home.token("c", "t.*");
    let mut client = subscriber(&far, &token).await;
    // It falls behind by many times the limit, in events that no compression makes smaller.
    far.freeze();
    let mut dice = Dice::new(1);
    let mut sent = Vec::new();
    for _ in 0..EVENTS {
        let data: String =
            (0..2000).map(|_| format!("{:016x}", dice.within(0..u64::MAX))).collect();
        assert_eq!(send(&near, &token, &data).await, 200);
        sent.push(json!(data));
    }
    far.thaw();
    let mut got = Vec::new();
    let read = async {
        while got.len() < EVENTS {
            let frame = next(&mut client, &["events", "gap"]).await;
            assert_eq!(frame["type"], "events", "{frame}");
            let events = frame["events"].as_array().unwrap().iter();
            got.extend(events.map(|event| event["data"].clone()));
        }
    };
    let done = tokio::time::timeout(DEADLINE, read).await;
    assert!(done.is_ok(), "only {} came: {}", got.len(), far.log());
    assert!(got == sent, "other events, or in another order");
    assert!(redis.log().contains("overcoming of output buffer limits"), "{}", redis.log());
}

/// Many have one password for all, as many for Redis alone; the address holds one.
#[tokio::test]
async fn sentinels_with_a_password_were_asked_without_it() {
    const PASSWORD: &str = "hunter2-hunter2";
    let redis = RedisServer::start().await;
    redis.ask::<()>(&["CONFIG", "SET", "requirepass", PASSWORD]).await;
    let watch = format!("sentinel auth-pass {MASTER} {PASSWORD}\n");
    for settings in [watch.clone(), format!("{watch}requirepass {PASSWORD}\n")] {
        let sentinel = Sentinel::start(&redis, &settings);
        let url = sentinel.url_with(&format!(":{PASSWORD}@"));
        let hub = TestHub::with(&[("redis", &*url)]).await;
        assert_eq!(publish(&hub, "a").await.status(), 200, "{settings}");
    }
}

#[tokio::test]
async fn a_sentinel_that_had_been_away_named_a_server_that_was_no_master() {
    let redis = RedisServer::start().await;
    let port = redis.port().to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]).await;
    let (away, there) = (Sentinel::start(&replica, ""), Sentinel::start(&redis, ""));
    let hub = TestHub::with(&[("redis", &*there.url_behind(&away))]).await;
    assert_eq!(publish(&hub, "a").await.status(), 200);
}
