//! Publishers and subscribers that outlive the hub: they come back to wherever it is started again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    DEADLINE,
    checker::{Answer, Seen, Sent, Step},
    dice::Dice,
    filter,
    hub::{Client, PROTOCOL, offset},
};

const TOPICS: [&str; 4] = ["load.a.x", "load.a.y", "load.b.x", "load.b.y"];
const QUIET: &str = "load.c";

/// Which hub it is and where; two may have had the same port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    life: u64,
    address: SocketAddr,
}

/// What all of them share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Load {
    token: String,
    http: reqwest::Client,
    place: Arc<watch::Sender<Place>>,
    publishing: Arc<watch::Sender<bool>>,
    /// The last events of all, one of each topic, once they are stored.
    last: Arc<watch::Sender<Option<Vec<Sent>>>>,
    /// Requests answered.
    pub(super) answered: Arc<AtomicU64>,
    /// Subscriptions that stand.
    pub(super) began: Arc<AtomicUsize>,
}

impl Load {
    pub(super) fn new(address: SocketAddr, token: String) -> Self {
        Self {
            token,
            http: reqwest::Client::builder().timeout(DEADLINE).no_proxy().build().unwrap(),
            place: Arc::new(watch::Sender::new(Place { life: 0, address })),
            publishing: Arc::new(watch::Sender::new(true)),
            last: Arc::default(),
            answered: Arc::default(),
            began: Arc::default(),
        }
    }

    /// The hub is up again, at this address.
    pub(super) fn moved_to(&self, address: SocketAddr) {
        self.place.send_modify(|place| *place = Place { life: place.life + 1, address });
    }

    pub(super) fn stop_publishing(&self) {
        self.publishing.send_replace(false);
    }

    /// One event of each topic, so that every subscriber knows when it has everything.
    pub(super) async fn publish_the_last(&self) -> Vec<Sent> {
        let topics = TOPICS.iter().chain([&QUIET]);
        let events: Vec<_> = topics.map(|topic| event(topic, &format!("last-{topic}"))).collect();
        self.send(&events, *self.place.borrow()).await
    }

    /// Readers end when they have seen those of `last` that they match.
    pub(super) fn end_with(&self, last: Vec<Sent>) {
        self.last.send_replace(Some(last));
    }

    async fn send(&self, events: &[Value], place: Place) -> Vec<Sent> {
        let url = format!("http://{}/api/v1/publish", place.address);
        // One event is sent as an object, several as lines or as an array.
        let request = self.http.post(url).bearer_auth(&self.token);
        let request = match events {
            [event] => request.json(event),
            _ => request.json(events),
        };
        let answer: Option<Value> = match request.send().await {
            Ok(answer) if answer.status() == 200 => answer.json().await.ok(),
            Ok(answer) => panic!("{}: {:?}", answer.status(), answer.text().await),
            Err(_) => None,
        };
        let outcome = |n: usize| match &answer {
            Some(answer) => Answer::Stored(answer["offsets"][n].as_u64().unwrap()),
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

    /// Waits until the hub is not the one that was at `place`.
    async fn comes_back(&self, place: Place) {
        let mut now = self.place.subscribe();
        now.wait_for(|now| *now != place).await.unwrap();
    }
}

fn event(topic: &str, id: &str) -> Value {
    json!({"topic": topic, "id": id, "data": {"text": "x".repeat(id.len() * 7 % 90)}})
}

/// Publishes single events and batches until told to stop; what broke off is sent again as it was.
pub(super) async fn publish(load: Load, name: String, mut dice: Dice) -> Vec<Sent> {
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
            let place = *load.place.borrow();
            let outcome = load.send(&events, place).await;
            let is_known = outcome.iter().all(|sent| sent.answer != Answer::Unknown);
            sent.extend(outcome);
            if is_known {
                break;
            }
            load.comes_back(place).await;
        }
        load.answered.fetch_add(1, Ordering::SeqCst);
    }
    sent
}

/// Follows its patterns over all crashes, resuming by position, until it has seen the last events.
pub(super) async fn subscribe(
    load: Load,
    name: String,
    patterns: &'static [&'static str],
    mut dice: Dice,
) -> Seen {
    let filter = filter(patterns);
    let mut seen = Seen { name, filter, after: 0, through: 0, steps: Vec::new() };
    let mut position = Value::Null;
    loop {
        let place = *load.place.borrow();
        // By chance it leaves of its own will, after so many messages.
        let leaves = if dice.once_in(2) { dice.within(1..200) } else { u64::MAX };
        let is_there = connect(&load, place.address, patterns, &mut position, &mut seen).await;
        let Some(mut client) = is_there else {
            load.comes_back(place).await;
            continue;
        };
        match follow(&load, &mut client, &mut position, &mut seen, leaves).await {
            Ended::Complete => return seen,
            Ended::Left => {}
            Ended::Broken => load.comes_back(place).await,
        }
    }
}

/// A socket with the subscription on it; None if the hub went away meanwhile.
async fn connect(
    load: &Load,
    address: SocketAddr,
    patterns: &[&str],
    position: &mut Value,
    seen: &mut Seen,
) -> Option<Client> {
    let mut client = Client::open(address, "/ws/real-time", &[PROTOCOL]).await.ok()?;
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
    assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
    assert_eq!(subscribed["recovered"], true, "{}: {subscribed}", seen.name);
    if position.is_null() {
        seen.after = offset(&subscribed["position"]);
        *position = subscribed["position"].clone();
        load.began.fetch_add(1, Ordering::SeqCst);
    } else {
        assert_eq!(subscribed["position"], *position, "{}", seen.name);
    }
    Some(client)
}

enum Ended {
    /// All that was published has come.
    Complete,
    /// The reader has had enough of this socket.
    Left,
    /// The hub went away.
    Broken,
}

async fn follow(
    load: &Load,
    client: &mut Client,
    position: &mut Value,
    seen: &mut Seen,
    leaves: u64,
) -> Ended {
    let mut last = load.last.subscribe();
    for _ in 0..leaves {
        let target = last.borrow_and_update().as_ref().map(|last| last_of(last, seen));
        if target.is_some_and(|target| offset(position) >= target) {
            seen.through = target.unwrap_or(0);
            return Ended::Complete;
        }
        let message = tokio::select! {
            message = next_json(client) => message,
            _ = last.changed() => continue,
        };
        let Some(message) = message else { return Ended::Broken };
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
                continue;
            }
            _ => panic!("{}: {message}", seen.name),
        }
        *position = message["position"].clone();
    }
    Ended::Left
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

/// The next message; None once the socket is closed.
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
pub(super) fn step(event: &Value) -> Step {
    Step::Event {
        offset: event["offset"].as_u64().unwrap(),
        id: event["id"].as_str().unwrap().to_owned(),
    }
}
