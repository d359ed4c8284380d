//! `pulsehub publish`: one event from the arguments, or many from standard input.

use std::io::Read as _;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{CommandFailure, client::ClientArgs};
use crate::{json, topic::Topic, wording};

/// Publish events to a hub
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub publish demo.hello '{\"text\":\"hello\"}'
  pulsehub publish demo.temperature 21.5 --key kitchen --type reading
  pulsehub publish - < events.ndjson

DATA is JSON; anything else is sent as a string. `-` reads whole events, one JSON object a line.
Prints the hub's answer.")]
pub(super) struct PublishCommand {
    /// The topic, or - to read events from standard input
    topic: String,
    /// The payload
    data: Option<String>,
    /// What kind of event it is
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Which of many equal things the event is about
    #[arg(long)]
    key: Option<String>,
    /// Who says so; by default the token's name
    #[arg(long)]
    source: Option<String>,
    /// The event's id: sent again with the same id, an event is stored once
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Serialize)]
struct EventBody<'a> {
    topic: &'a Topic,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    data: Box<RawValue>,
}

impl PublishCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        let hub = self.client.hub()?;
        let url = hub.at("/api/v1/publish")?;
        let (kind, body) = if self.topic == "-" {
            self.takes_whole_events()?;
            let mut events = String::new();
            std::io::stdin().read_to_string(&mut events).map_err(anyhow::Error::from)?;
            ("application/x-ndjson", events)
        } else {
            ("application/json", self.event()?)
        };
        let answer =
            hub.send(|client| client.post(url).header("content-type", kind).body(body)).await?;
        println!("{answer}");
        Ok(())
    }

    /// Events from standard input say everything themselves; what a flag says would be lost.
    fn takes_whole_events(&self) -> Result<(), CommandFailure> {
        let parts = [&self.data, &self.kind, &self.key, &self.source, &self.id];
        if parts.iter().any(|part| part.is_some()) {
            let message =
                "`publish -` reads whole events: put DATA, type, key, source and id into each";
            return Err(CommandFailure::Usage(message.into()));
        }
        Ok(())
    }

    fn event(&self) -> Result<String, CommandFailure> {
        let topic = Topic::parse(&self.topic).map_err(|error| {
            CommandFailure::Usage(format!("{:?} cannot be a topic: {error}", self.topic))
        })?;
        let text = self.data.as_deref().unwrap_or("null");
        let data = match RawValue::from_string(text.to_owned()) {
            Ok(data) => data,
            Err(error) => {
                // Quotes that the shell took away, more often than a text that begins like this.
                if text.starts_with(['{', '[']) {
                    let why = wording::about("it", &json::without_place(&error));
                    eprintln!(
                        "pulsehub: sent as a text, because {why}; in a shell, put JSON between single quotes"
                    );
                }
                serde_json::value::to_raw_value(&Value::from(text)).map_err(anyhow::Error::from)?
            }
        };
        let event = EventBody {
            topic: &topic,
            kind: self.kind.as_deref(),
            key: self.key.as_deref(),
            source: self.source.as_deref(),
            id: self.id.as_deref(),
            data,
        };
        Ok(serde_json::to_string(&event).map_err(anyhow::Error::from)?)
    }
}
