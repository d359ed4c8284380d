//! Kill -9 of the node that holds every duty, at the moment when Redis has done a write of one of them: another node goes
//! on, nothing is lost, and nothing is told twice.

use std::{cell::Cell, collections::BTreeMap};

use pulsehub::sources::flext_proto::{Execution, Status};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
};

use crate::{
    series::restart::Client,
    support::{
        DEADLINE, eventually,
        flext::FakeDaemon,
        hub::SECRET,
        process::{Home, Process},
        redis::RedisServer,
    },
};

/// Every duty, and which of its writes is waited for: what it keeps, or what it publishes.
const DUTIES: [(&str, &str); 4] = [
    ("series", ":cursors\""),
    ("projections", ":log\""),
    ("instances", ":log\""),
    ("source.main", ":log\""),
];
/// How many of each a duty gets in its round, besides those of the rounds before. A daemon lists a hundred.
const EXECUTIONS: usize = 20;
const INSTANCES: usize = 10;

fn settings(redis: &RedisServer, daemon: &FakeDaemon) -> String {
    format!(
        "redis = \"{}\"\nsecret = \"{SECRET}\"\n[series]\nsave_every = \"1s\"\n\
         [instances]\ninterval = \"1s\"\n[projections]\nmax_hz = 50\n\
         [[derive]]\nname = \"t.count\"\ntopic = \"t.metrics\"\nop = \"count\"\n\
         [[projection]]\ntopic = \"board\"\nshape = {{ n = {{ value = \"t.count\" }} }}\n\
         [[derive]]\nname = \"still.count\"\ntopic = \"t.still\"\nop = \"count\"\n\
         [[projection]]\ntopic = \"still\"\nshape = {{ n = {{ value = \"still.count\" }} }}\n\
         [[source]]\nname = \"main\"\nkind = \"flext-grpc\"\naddress = \"{}\"\n\
         interval = \"100ms\"\n",
        redis.url(),
        daemon.url()
    )
}

/// What gives all duties something to do.
struct Load<'a> {
    client: Client,
    http: reqwest::Client,
    token: String,
    daemon: &'a FakeDaemon,
    rounds: usize,
    steps: usize,
    executions: usize,
    instances: usize,
}

impl Load<'_> {
    async fn step(&mut self, node: &Process) {
        self.client.publish(node).await;
        self.steps += 1;
        if self.steps % 8 == 1 && self.executions < self.rounds * EXECUTIONS {
            let (id, status) = (self.executions.to_string(), Status::Success.into());
            let execution = Execution { id, status, ..Execution::default() };
            self.daemon.state().executions.push(execution);
            self.executions += 1;
        }
        if self.steps % 8 == 5 && self.instances < self.rounds * INSTANCES {
            let id = format!("i{}", self.instances);
            let body = json!({"app_identifier": "tt", "instance_id": id});
            self.send(node, "register", &body).await;
            self.send(node, "heartbeat", &body).await;
            self.instances += 1;
        }
    }

    async fn send(&self, node: &Process, path: &str, body: &Value) {
        let url = format!("http://{}/api/v1/{path}", node.address());
        let request = self.http.post(url).bearer_auth(&self.token).json(body);
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
}

/// Tells of every command that Redis does.
struct Monitor(Lines<BufReader<TcpStream>>);

impl Monitor {
    async fn of(redis: &RedisServer) -> Self {
        let mut connection = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
        connection.write_all(b"MONITOR\r\n").await.unwrap();
        let mut lines = BufReader::new(connection).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
        Self(lines)
    }

    /// Waits until a script is run under the lease of `duty` that writes to `key`.
    async fn sees(&mut self, (duty, key): (&str, &str)) {
        let lease = format!(":lease:{duty}\"");
        let comes = async {
            loop {
                let line = self.0.next_line().await.unwrap().expect("Redis runs");
                if line.contains("\"EVALSHA\"") && line.contains(&lease) && line.contains(key) {
                    return;
                }
            }
        };
        let came = tokio::time::timeout(DEADLINE, comes).await;
        came.unwrap_or_else(|_| panic!("never came: a write of {duty}"));
    }
}

/// How often each duty's lease has changed hands, once all are held and that has changed since `before`.
async fn held(redis: &RedisServer, before: &[u64]) -> Vec<u64> {
    eventually("a holder of all duties", async || {
        let mut tokens = Vec::new();
        for (duty, _) in DUTIES {
            let lease = format!("{{pulsehub}}:lease:{duty}");
            let token: Option<String> = redis.ask(&["HGET", &lease, "token"]).await;
            tokens.push(token?.parse().unwrap());
        }
        let is_new = before.iter().zip(&tokens).all(|(before, token)| before < token);
        is_new.then_some(tokens)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_dies_in_the_middle_of_a_write_loses_nothing_and_doubles_nothing() {
    let redis = RedisServer::start().await;
    let daemon = FakeDaemon::start();
    let home = Home::new(&settings(&redis, &daemon));
    let mut holder = home.start().await;
    let mut tokens = held(&redis, &[]).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let (client, token) = (Client::new(&home), home.token("tt", "*.**"));
    let (rounds, steps, executions, instances) = (0, 0, 0, 0);
    let mut load =
        Load { client, http, token, daemon: &daemon, rounds, steps, executions, instances };
    // This changes once, whoever publishes what comes of it.
    load.send(&holder, "publish", &json!({"topic": "t.still", "data": 1})).await;
    let mut next = home.start().await;
    for (round, duty) in DUTIES.into_iter().enumerate() {
        load.rounds += 1;
        let mut monitor = Monitor::of(&redis).await;
        let is_dead = Cell::new(false);
        let dies = async {
            monitor.sees(duty).await;
            if round % 2 == 1 {
                // What it has sent by now is done after its death.
                redis.freeze();
            }
            holder.kill();
            redis.thaw();
            is_dead.set(true);
        };
        let works = async {
            while !is_dead.get() {
                load.step(&next).await;
            }
        };
        tokio::join!(dies, works);
        println!("{duty:?} after {} steps", load.steps); // shown when it fails
        for _ in 0..10 {
            load.step(&next).await;
        }
        tokens = held(&redis, &tokens).await;
        holder = next;
        next = home.start().await;
    }
    load.client.check(&next).await;
    let events = eventually("all that the duties tell", async || {
        let patterns = ["board", "still", "flext.*", "hub.instances.*"];
        let events =
            Events(patterns.into_iter().flat_map(|pattern| home.export(pattern)).collect());
        let told = (
            events.of("flext.executions").len(),
            events.kinds("instance.down").len(),
            events.of("board").last().and_then(|event| event["data"]["n"].as_u64()),
        );
        let wanted = (load.executions, load.instances, Some(load.steps as u64));
        println!("{told:?} of {wanted:?}"); // shown when it fails
        (told == wanted).then_some(events)
    })
    .await;
    let board = events.of("board").into_iter().map(|event| event["data"]["n"].as_u64().unwrap());
    let board: Vec<_> = board.collect();
    assert!(board.is_sorted_by(|a, b| a < b), "told twice, or taken back: {board:?}");
    let asked = events.of("flext.stats").into_iter();
    let asked: Vec<_> =
        asked.map(|event| event["data"]["metrics"]["uptime_seconds"].as_u64().unwrap()).collect();
    assert!(asked.is_sorted_by(|a, b| a < b), "told twice, or taken back: {asked:?}");
    assert_eq!(events.of("still").len(), 1, "{:?}", events.of("still"));
    let mut told = BTreeMap::<_, u32>::new();
    for event in events.of("flext.executions").into_iter().chain(events.of("hub.instances.tt")) {
        *told.entry(format!("{} {}", event["type"], event["key"])).or_default() += 1;
    }
    told.retain(|_, times| *times > 1);
    assert!(told.is_empty(), "told more than once: {told:?}");
}

/// What the log holds.
struct Events(Vec<Value>);

impl Events {
    fn of(&self, topic: &str) -> Vec<&Value> {
        self.0.iter().filter(|event| event["topic"] == topic).collect()
    }

    fn kinds(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|event| event["type"] == kind).collect()
    }
}
