//! The hub under test.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::{Context as _, Result};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Ack, Dialect, Event, From, Heard, PATIENCE, Seat, Site, Started, http};
use crate::{
    frame::{self, Frame},
    process::Process,
};

/// Starts a hub on an empty data folder.
pub(super) fn start(site: &Site, folder: &Path, settings: &toml::Table) -> Result<Started> {
    let secret = secret()?;
    let (process, address) = node(site, folder, settings, &secret, &[])?;
    Ok(Started::alone(address, address, process, Hub::new(&secret)?))
}

/// Starts a hub whose folder, secret and further arguments are given.
pub(super) fn node(
    site: &Site,
    folder: &Path,
    settings: &toml::Table,
    secret: &str,
    arguments: &[&str],
) -> Result<(Process, SocketAddr)> {
    let mut settings = settings.clone();
    settings.insert("secret".into(), secret.into());
    let file = folder.join("pulsehub.toml");
    std::fs::write(&file, toml::to_string(&settings).context("the hub's settings")?)
        .context("cannot write the hub's settings")?;
    let mut command = Command::new(&site.hub);
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&file);
    command.arg("--data").arg(folder.join("data")).args(arguments);
    let mut process = Process::start(&command, site.core, &folder.join("log"))?;
    let address = process.wait_for("listening on http://", PATIENCE)?;
    Ok((process, address.parse().context("the hub's address")?))
}

/// The hub wants a secret of its own; nobody else needs to know it.
pub(super) fn secret() -> Result<String> {
    let mut bytes = [0; 32];
    let mut random = std::fs::File::open("/dev/urandom").context("no random bytes")?;
    std::io::Read::read_exact(&mut random, &mut bytes).context("no random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) struct Hub {
    key: EncodingKey,
    publisher: String,
}

#[derive(Serialize)]
struct Claims {
    sub: String,
    exp: u64,
    subscribe: [&'static str; 1],
    publish: [&'static str; 1],
}

impl Hub {
    pub(super) fn new(secret: &str) -> Result<Self> {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let publisher = token(&key, "publisher")?;
        Ok(Self { key, publisher })
    }
}

/// An HS256 token that is good for a day.
fn token(key: &EncodingKey, user: &str) -> Result<String> {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let exp = time.as_secs() + 24 * 3600;
    let claims = Claims { sub: user.to_owned(), exp, subscribe: ["load.**"], publish: ["load.**"] };
    encode(&Header::default(), &claims, key).context("cannot sign a token")
}

impl Dialect for Hub {
    fn upgrade(&self, seat: &Seat) -> Vec<u8> {
        // Signing fails for no claims of ours; the hub would refuse the empty token by name.
        let token = token(&self.key, &format!("user-{}", seat.user)).unwrap_or_default();
        let headers =
            format!("Sec-WebSocket-Protocol: hub.v1\r\nAuthorization: Bearer {token}\r\n");
        http::upgrade("/ws/real-time", &headers)
    }

    fn join(&self, seat: &Seat) -> Option<Vec<u8>> {
        let mut subscribe = json!({ "sub": "a", "topics": seat.topics });
        match &seat.from {
            From::Now => {}
            From::Last(count) => subscribe["replay"] = json!({ "last": count }),
            From::Position(position) => subscribe["resume"] = json!(position),
        }
        let connect = json!({ "type": "connect", "id": 1, "subscribe": [subscribe] });
        Some(frame::from_client(frame::TEXT, connect.to_string().as_bytes()))
    }

    fn hear(&self, frame: &Frame<'_>) -> Heard {
        // The hub writes `type` first; were that to change, the scenario would fail for lack of events.
        if frame.payload.starts_with(br#"{"type":"events""#) {
            return Heard::Events;
        }
        let Ok(message) = serde_json::from_slice::<Value>(frame.payload) else {
            return Heard::Broken(format!("not JSON: {}", frame.payload.escape_ascii()));
        };
        match message["type"].as_str() {
            Some("live") => Heard::Live,
            Some("connected") => Heard::Nothing,
            Some("subscribed") if message["recovered"] != Value::Bool(false) => Heard::Nothing,
            Some("ping") => Heard::Answer(frame::from_client(frame::TEXT, br#"{"type":"pong"}"#)),
            _ => Heard::Broken(message.to_string()),
        }
    }

    fn greet(&self) -> Vec<u8> {
        Vec::new()
    }

    fn publish(&self, events: &[Event], out: &mut Vec<u8>) -> usize {
        let mut body = String::from("[");
        for event in events {
            if body.len() > 1 {
                body.push(',');
            }
            body.push_str(&written(event));
        }
        body.push(']');
        let headers = format!(
            "Content-Type: application/json\r\nAuthorization: Bearer {}\r\n",
            self.publisher
        );
        http::post("/api/v1/publish", &headers, body.as_bytes(), out);
        1
    }

    fn acknowledged(&self, bytes: &[u8]) -> Result<Option<Ack>> {
        http::acknowledged(bytes)
    }
}

/// An event as a producer writes it, with an id of its own.
fn written(event: &Event) -> String {
    let Event { topic, mark, bytes, key } = event;
    let key = key.as_ref().map(|key| format!(r#""key":"{key}","#)).unwrap_or_default();
    format!(
        r#"{{"topic":"{topic}","id":"{:x}-{:x}","type":"load",{key}"data":{}}}"#,
        mark.stream,
        mark.number,
        mark.payload(*bytes)
    )
}
