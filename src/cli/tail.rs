//! `pulsehub tail`: follows events, comes back after a break, and goes on where it stopped.

use std::{io::Write as _, time::Duration};

use clap::Args;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio_tungstenite::tungstenite::{
    Error as WebSocketError, Message, client::IntoClientRequest as _, http::HeaderValue,
    protocol::CloseFrame,
};

use super::{
    CommandFailure,
    client::{ClientArgs, HubClient, NO_TOKEN},
    whole_number,
};
use crate::{
    backoff::Backoff,
    logging::cause,
    position::Position,
    protocol::{Replay, SUBPROTOCOL},
    topic::TopicPattern,
};

/// Follow events of a hub, one JSON object a line
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub tail 'voicehive.**'
  PULSEHUB_TOKEN=$(pulsehub token --data ./data --sub me --subscribe '**') pulsehub tail '**' --last 100
  pulsehub tail 'voicehive.metrics' --latest --count 1

Events go to standard output, everything else to standard error. After a lost connection it
reconnects by itself and continues where it stopped. If events are missing, it says which.")]
pub(super) struct TailCommand {
    /// The topics to follow, as patterns
    #[arg(required = true)]
    topics: Vec<TopicPattern>,
    /// Begin with the last N matching events
    #[arg(long, value_name = "N", value_parser = whole_number, allow_negative_numbers = true, conflicts_with_all = ["since", "latest", "resume"])]
    last: Option<u64>,
    /// Begin with what was received since: 5m, or a time in RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since, conflicts_with_all = ["latest", "resume"])]
    since: Option<String>,
    /// Begin with the newest event of each topic and key
    #[arg(long, conflicts_with = "resume")]
    latest: bool,
    /// Continue after this position
    #[arg(long, value_name = "POSITION", value_parser = position)]
    resume: Option<String>,
    /// End after N events
    #[arg(long, value_name = "N", value_parser = whole_number, allow_negative_numbers = true)]
    count: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

/// What the hub may say, as far as it matters here: the fields of all messages. Not an enum by `type`,
/// for serde reads the whole of a message to find that, also the payloads, in which may stand what it
/// has no value for: `"\\ud800"`, `1e400`.
#[derive(Deserialize)]
struct HubMessage {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    position: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    head: String,
    #[serde(default)]
    caught_up: Vec<String>,
    #[serde(default)]
    after_ms: u64,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct EventsMessage<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// Why a connection ended, if it may come back.
struct Broken {
    reason: String,
    /// How long the hub asked to stay away.
    after: Option<Duration>,
    /// Whether the hub only restarts: coming back is not what it wants less of.
    is_planned: bool,
}

const SUB: &str = "tail";
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Beyond the ping interval, how long silence may last.
const SILENCE: Duration = Duration::from_secs(40);

impl TailCommand {
    pub(super) async fn run(mut self) -> Result<(), CommandFailure> {
        let hub = self.client.hub()?;
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE).spread();
        let mut left = self.count;
        loop {
            let before = (self.resume.clone(), left);
            let broken = match self.follow(&hub, &mut left).await? {
                None => return Ok(()),
                Some(broken) => broken,
            };
            if before != (self.resume.clone(), left) {
                backoff.worked();
            }
            let wait = match broken.after {
                Some(after) if broken.is_planned => after,
                after => backoff.failed().max(after.unwrap_or_default()),
            };
            eprintln!("pulsehub: {}; back in {:.1} s", broken.reason, wait.as_secs_f64());
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection; None when as many events came as were asked for.
    async fn follow(
        &mut self,
        hub: &HubClient,
        left: &mut Option<u64>,
    ) -> Result<Option<Broken>, CommandFailure> {
        let mut after = None;
        let broken = |reason: String, after| Ok(Some(Broken { reason, after, is_planned: false }));
        let mut url = hub.at("/ws/real-time")?;
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        if url.set_scheme(scheme).is_err() {
            return Err(CommandFailure::Usage(format!("{url}: give an http or https address")));
        }
        let mut request = url.as_str().into_client_request().map_err(anyhow::Error::from)?;
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        if let Some(bearer) = hub.bearer() {
            let bearer = HeaderValue::try_from(bearer).map_err(|_| {
                CommandFailure::Usage("the token has characters no token has".into())
            })?;
            headers.insert("authorization", bearer);
        }
        let mut socket = match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => socket,
            Err(WebSocketError::Http(answer)) => {
                let message = format!("{} answered {}", hub.url, answer.status());
                return Err(CommandFailure::Failed(anyhow::anyhow!(message)));
            }
            Err(error) => {
                return broken(format!("{} does not answer: {}", hub.url, cause(&error)), after);
            }
        };
        let connect = json!({"type": "connect", "id": 1, "name": "pulsehub tail", "subscribe": [self.subscription()]});
        if socket.send(Message::text(connect.to_string())).await.is_err() {
            return broken("the connection broke".into(), after);
        }
        loop {
            let message = match tokio::time::timeout(SILENCE, socket.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(_) => return broken("the connection broke".into(), after),
                Err(_) => return broken("the hub fell silent".into(), after),
            };
            let text = match message {
                Message::Text(text) => text,
                Message::Close(Some(frame))
                    if u16::from(frame.code) == 4401 && !hub.has_token() =>
                {
                    return Err(CommandFailure::Refused(NO_TOKEN.to_owned()));
                }
                Message::Close(frame) => return closed(frame, after),
                _ => continue,
            };
            let heard: HubMessage = serde_json::from_str(&text).map_err(anyhow::Error::from)?;
            let position = heard.position;
            match &*heard.kind {
                "events" => {
                    let EventsMessage { events } =
                        serde_json::from_str(&text).map_err(anyhow::Error::from)?;
                    if !print(&events, left).map_err(anyhow::Error::from)? {
                        return Ok(None);
                    }
                    self.resume = Some(position);
                }
                // A gap, or the newest values, may lie before it and are still to come.
                "subscribed" if self.resume.is_none() && !self.latest => {
                    self.resume = Some(position);
                }
                "live" => self.resume = Some(position),
                "gap" => {
                    let HubMessage { from, to, reason, .. } = heard;
                    eprintln!("pulsehub: gap: {from} to {to} are missing ({reason})");
                    self.resume = Some(position);
                }
                "ping" => {
                    if heard.caught_up.iter().any(|sub| sub == SUB) {
                        self.resume = Some(heard.head);
                    }
                    if socket.send(Message::text(r#"{"type":"pong"}"#)).await.is_err() {
                        return broken("the connection broke".into(), after);
                    }
                }
                // The close that says why comes behind it.
                "reconnect" => after = Some(Duration::from_millis(heard.after_ms)),
                "error" => {
                    let message = format!("{}: {}", heard.code, heard.message);
                    return Err(match heard.code.as_str() {
                        "forbidden" | "unauthorized" => CommandFailure::Refused(message),
                        _ => CommandFailure::Failed(anyhow::anyhow!(message)),
                    });
                }
                _ => {}
            }
        }
    }

    fn subscription(&self) -> serde_json::Value {
        let mut subscription = json!({"sub": SUB, "topics": self.topics});
        let replay = match (&self.resume, self.last, &self.since, self.latest) {
            (Some(position), ..) => {
                subscription["resume"] = json!(position);
                return subscription;
            }
            (None, Some(last), ..) => json!({"last": last}),
            (None, None, Some(since), _) => json!({"since": since}),
            (None, None, None, true) => json!({"latest": true}),
            (None, None, None, false) => return subscription,
        };
        subscription["replay"] = replay;
        subscription
    }
}

/// A start the hub would refuse is refused before it is asked, and while it is away.
fn since(text: &str) -> Result<String, String> {
    Replay::since(text).map(|_| text.to_owned())
}

fn position(text: &str) -> Result<String, String> {
    text.parse::<Position>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Prints the events; false when that was enough.
fn print(events: &[&RawValue], left: &mut Option<u64>) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
    for event in events {
        let written = writeln!(out, "{event}");
        if written.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return Ok(false); // whoever read has seen enough
        }
        written?;
        if let Some(left) = left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                out.flush()?;
                return Ok(false);
            }
        }
    }
    out.flush()?;
    Ok(true)
}

/// What the close code says: come back, or give up.
fn closed(
    frame: Option<CloseFrame>,
    after: Option<Duration>,
) -> Result<Option<Broken>, CommandFailure> {
    let Some(frame) = frame else {
        let reason = "the hub closed the connection".into();
        return Ok(Some(Broken { reason, after, is_planned: false }));
    };
    let code = u16::from(frame.code);
    let message = format!("the hub closed the connection: {code} {}", frame.reason);
    match code {
        4401 | 4403 | 4440 => Err(CommandFailure::Refused(message)),
        4400 | 4406 => Err(CommandFailure::Failed(anyhow::anyhow!(message))),
        _ => Ok(Some(Broken { reason: message, after, is_planned: code == 1012 })),
    }
}
