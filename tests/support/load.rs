//! Publishers and subscribers that outlive hubs: they go from node to node, or come back to the only one.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::{
    DEADLINE,
    checker::{Answer, Seen, Sent, Step},
    dice::Dice,
    eventually, filter,
    hub::{Client, PROTOCOL, offset},
};

const TOPICS: [&str; 4] = ["load.a.x", "load.a.y", "load.b.x", "load.b.y"];
const QUIET: &str = "load.c";
/// Before something refused is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// What all of them share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Load {
    token: String,
    kind: Kind,
    http: reqwest::Client,
    /// Where each node is, while it is.
    nodes: Arc<watch::Sender<Vec<Option<SocketAddr>>>>,
    publishing: Arc<watch::Sender<bool>>,
    /// The last events of all, one of each topic, once they are stored.
    last: Arc<watch::Sender<Option<Vec<Sent>>>>,
    /// Requests stored.
    pub(crate) stored: Arc<AtomicU64>,
    /// Subscriptions that stand.
    pub(crate) began: Arc<AtomicUsize>,
}

/// What the hubs share, and so what may be asked of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file: a hub that runs refuses nothing and has lost nothing.
    Journal,
    /// A Redis, which may be gone, and lose what it had.
    Redis,
}

impl Load {
    pub(crate) fn new(token: String, kind: Kind) -> Self {
        Self {
            token,
            kind,
            http: reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap(),
            nodes: Arc::default(),
            publishing: Arc::new(watch::Sender::new(true)),
            last: Arc::default(),
            stored: Arc::default(),
            began: Arc::default(),
        }
    }

    pub(crate) fn move_to(&self, nodes: Vec<Option<SocketAddr>>) {
        self.nodes.send_replace(nodes);
    }

    pub(crate) fn stop_publishing(&self) {
        self.publishing.send_replace(false);
    }

    /// One event of each topic, so that every subscriber knows when it has everything.
    pub(crate) async fn publish_the_last(&self, dice: &mut Dice) -> Vec<Sent> {
        let topics = TOPICS.iter().chain([&QUIET]);
        let events: Vec<_> = topics.map(|topic| event(topic, &format!("last-{topic}"))).collect();
        let mut all = Vec::new();
        loop {
            let sent = self.send(&events, self.node(dice).await).await;
            let is_stored = sent.iter().all(|sent| matches!(sent.answer, Answer::Stored(_)));
            all.extend(sent.iter().cloned());
            if is_stored {
                self.last.send_replace(Some(sent));
                return all;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The events that are still in the log, up to `last`, as any client may ask for them. Nothing may come
    /// twice in one line of pages, even if a node that is behind then ends it.
    pub(crate) async fn history(&self, dice: &mut Dice, last: u64) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        let mut after = "0".to_owned();
        loop {
            let url = format!(
                "http://{}/api/v1/history?topics=load.**&limit=1000&after={after}",
                self.node(dice).await
            );
            let answer = self.http.get(&url).bearer_auth(&self.token).send().await.unwrap();
            let status = answer.status();
            let page: Value = answer.json().await.unwrap();
            match status.as_u16() {
                200 => events.extend(page["events"].as_array().unwrap().iter().cloned()),
                503 => {
                    tokio::time::sleep(PAUSE).await; // the last fault is not quite over
                    continue;
                }
                // The pages before came from a node that had not heard what was lost.
                410 => assert_eq!(page["code"], "epoch_changed", "{page}"),
                _ => panic!("{status}: {page}"),
            }
            let is_end = page["next"] == page["position"];
            let offsets: Vec<_> = events.iter().map(|event| event["offset"].as_u64()).collect();
            assert!(offsets.is_sorted_by(|a, b| a < b), "out of order up to {page}");
            let ids: BTreeSet<_> = events.iter().map(|event| event["id"].as_str()).collect();
            assert_eq!(ids.len(), events.len(), "something came twice up to {page}");
            if is_end && status == 200 && offset(&page["position"]) >= last {
                return events;
            }
            if is_end {
                // A node that is behind; what it has may be lost.
                tokio::time::sleep(PAUSE).await;
                events.clear();
                after = "0".to_owned();
            } else {
                after = page["next"].as_str().unwrap().to_owned();
            }
        }
    }

    /// A node that is up.
    async fn node(&self, dice: &mut Dice) -> SocketAddr {
        let mut nodes = self.nodes.subscribe();
        let nodes = nodes.wait_for(|nodes| nodes.iter().any(Option::is_some)).await.unwrap();
        let up: Vec<SocketAddr> = nodes.iter().flatten().copied().collect();
        dice.one_of(&up)
    }

    async fn send(&self, events: &[Value], node: SocketAddr) -> Vec<Sent> {
        let url = format!("http://{node}/api/v1/publish");
        let request = self.http.post(url).bearer_auth(&self.token);
        let request = match events {
            [event] => request.json(event),
            _ => request.json(events),
        };
        let mut refused = false;
        let answer: Option<Value> = match request.send().await {
            Ok(answer) if answer.status() == 200 => answer.json().await.ok(),
            Ok(answer) => {
                let may_refuse = self.kind == Kind::Redis && answer.status() == 503;
                assert!(may_refuse, "{}: {:?}", answer.status(), answer.text().await);
                let problem: Option<Value> = answer.json().await.ok();
                refused = problem.is_some_and(|problem| problem["code"] != "outcome_unknown");
                None
            }
            Err(_) => None,
        };
        let outcome = |n: usize| match &answer {
            Some(answer) => Answer::Stored(answer["offsets"][n].as_u64().unwrap()),
            None if refused => Answer::Refused,
            None => Answer::Unknown,
        };
        let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
        let sent = events.iter().enumerate().map(|(n, event)| Sent {
            id: text(event, "id"),
            topic: text(event, "topic"),
            answer: outcome(n),
        });
        sent.collect()
    }
}

fn event(topic: &str, id: &str) -> Value {
    json!({"topic": topic, "id": id, "data": {"text": "x".repeat(id.len() * 7 % 90)}})
}

/// Publishes single events and batches until told to stop; what was not stored is sent again as it was.
pub(crate) async fn publish(load: Load, name: String, mut dice: Dice) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut number = 0;
    while *load.publishing.borrow() {
        let size = if dice.once_in(3) { dice.within(2..30) } else { 1 };
        let events: Vec<_> = (0..size)
            .map(|_| {
                number += 1;
                let topic = if dice.once_in(200) { QUIET } else { dice.one_of(&TOPICS) };
                event(topic, &format!("{name}-{number}"))
            })
            .collect();
        loop {
            let node = load.node(&mut dice).await;
            let outcome = load.send(&events, node).await;
            let is_stored = outcome.iter().all(|sent| matches!(sent.answer, Answer::Stored(_)));
            sent.extend(outcome);
            if is_stored {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        load.stored.fetch_add(1, Ordering::SeqCst);
    }
    sent
}

/// Follows its patterns from node to node, resuming by position, until it has seen the last events.
pub(crate) async fn subscribe(
    load: Load,
    name: String,
    patterns: &'static [&'static str],
    mut dice: Dice,
) -> Seen {
    let filter = filter(patterns);
    let mut seen = Seen { name, filter, after: 0, through: 0, steps: Vec::new() };
    let mut position = Value::Null;
    loop {
        let node = load.node(&mut dice).await;
        // By chance it leaves of its own will, after so many messages.
        let leaves = if dice.once_in(2) { dice.within(1..200) } else { u64::MAX };
        match connect(&load, node, patterns, &mut position, &mut seen).await {
            Some(mut client) => {
                if follow(&load, &mut client, &mut position, &mut seen, leaves).await {
                    return seen;
                }
            }
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A socket with the subscription on it; None if the node could not do it now.
async fn connect(
    load: &Load,
    node: SocketAddr,
    patterns: &[&str],
    position: &mut Value,
    seen: &mut Seen,
) -> Option<Client> {
    let mut client = Client::open(node, "/ws/real-time", &[PROTOCOL]).await.ok()?;
    let mut subscription = json!({"sub": "s", "topics": patterns});
    if !position.is_null() {
        subscription["resume"] = position.clone();
    }
    let connect =
        json!({"type": "connect", "id": 1, "token": load.token, "subscribe": [subscription]});
    client.try_send(connect).await.ok()?;
    let connected = next_json(&mut client).await?;
    assert_eq!(connected["type"], "connected", "{connected}");
    let subscribed = next_json(&mut client).await?;
    if load.kind == Kind::Redis && subscribed["type"] == "error" {
        assert_eq!(subscribed["code"], "unavailable", "{subscribed}");
        return None;
    }
    assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
    if load.kind == Kind::Journal {
        assert_eq!(subscribed["recovered"], true, "{}: {subscribed}", seen.name);
    }
    if position.is_null() {
        seen.after = offset(&subscribed["position"]);
        *position = subscribed["position"].clone();
        load.began.fetch_add(1, Ordering::SeqCst);
    } else if subscribed["recovered"] == true {
        assert_eq!(offset(&subscribed["position"]), offset(position), "{}", seen.name);
    }
    Some(client)
}

/// True once all that was published has come; false when the socket ended or was left.
async fn follow(
    load: &Load,
    client: &mut Client,
    position: &mut Value,
    seen: &mut Seen,
    leaves: u64,
) -> bool {
    let mut last = load.last.subscribe();
    for _ in 0..leaves {
        let target = last.borrow_and_update().as_ref().map(|last| last_of(last, seen));
        if target.is_some_and(|target| offset(position) >= target) {
            seen.through = target.unwrap_or(0);
            return true;
        }
        let message = tokio::select! {
            message = next_json(client) => message,
            _ = last.changed() => continue,
        };
        let Some(message) = message else { return false };
        match message["type"].as_str().unwrap() {
            "events" => seen.steps.extend(message["events"].as_array().unwrap().iter().map(step)),
            "gap" => seen.steps.push(Step::Gap {
                from: offset(&message["from"]),
                to: offset(&message["to"]),
                reason: message["reason"].as_str().unwrap().to_owned(),
            }),
            "live" => {}
            "ping" => {
                // An answer to a hub that is gone is not missed.
                let _ = client.try_send(json!({"type": "pong"})).await;
                if message["caught_up"] == json!(["s"]) {
                    *position = message["head"].clone();
                }
                continue;
            }
            // The node cannot read what Redis has just lost, and closes the socket.
            "reconnect" if load.kind == Kind::Redis => return false,
            // The node cannot read just now; it goes on by itself.
            "error" if load.kind == Kind::Redis && message["code"] == "unavailable" => continue,
            _ => panic!("{}: {message}", seen.name),
        }
        *position = message["position"].clone();
    }
    false
}

/// The offset of the last event that comes to this subscription.
fn last_of(last: &[Sent], seen: &Seen) -> u64 {
    let matching = last.iter().filter(|sent| seen.filter.matches(&sent.topic));
    let offsets = matching.map(|sent| match sent.answer {
        Answer::Stored(offset) => offset,
        Answer::Unknown | Answer::Refused => panic!("the last events are not stored"),
    });
    offsets.max().unwrap()
}

/// The next message; None once the socket is closed, or silent for so long that it is given up.
async fn next_json(client: &mut Client) -> Option<Value> {
    loop {
        match client.next().await? {
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

/// An event object as the checker wants it.
pub(crate) fn step(event: &Value) -> Step {
    Step::Event {
        offset: event["offset"].as_u64().unwrap(),
        id: event["id"].as_str().unwrap().to_owned(),
    }
}

/// Waits until so many more requests were stored.
pub(crate) async fn more_is_stored(load: &Load, requests: u64, what: &str) {
    let enough = load.stored.load(Ordering::SeqCst) + requests;
    let is_enough = || async { (load.stored.load(Ordering::SeqCst) >= enough).then_some(()) };
    eventually(what, is_enough).await;
}
