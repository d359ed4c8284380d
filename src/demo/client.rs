//! A synthetic producer's HTTP side: steps through the day, sends what that gives, and says when the
//! hub does not take it.

use std::time::Duration;

use http::{HeaderName, header};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::day::{Day, TimeOfDay};

/// What a producer does between two looks at the clock.
pub(super) trait Producer {
    /// What it is called.
    const NAME: &str;

    /// What it sends, in order, for what happened since the last call.
    fn step(&mut self, moment: TimeOfDay) -> Vec<Post>;
}

/// A request.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) path: String,
    pub(super) body: Value,
}

/// How a producer shows its token.
#[derive(Debug, Clone, Copy)]
pub(super) enum TokenHeader {
    Bearer,
    ApiKey,
}

/// Sends requests to a hub.
pub(super) struct Client {
    http: reqwest::Client,
    hub: Url,
    token: SecretString,
    header: TokenHeader,
    day: Day,
}

/// How often a producer looks at the clock.
const LOOK: Duration = Duration::from_millis(250);
/// How long the hub may take.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Post {
    pub(super) fn new(path: impl Into<String>, body: Value) -> Self {
        Self { path: path.into(), body }
    }
}

impl Client {
    pub(super) fn new(
        hub: Url,
        token: SecretString,
        header: TokenHeader,
        day: Day,
    ) -> Result<Self, reqwest::Error> {
        // Not through a proxy: the hub is in this very program.
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { http, hub, token, header, day })
    }

    /// Lives through the day until `stop`.
    pub(super) async fn drive<P: Producer>(self, mut producer: P, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        let live = async {
            loop {
                ticks.tick().await;
                for post in producer.step(self.day.now()) {
                    let sent = self.send(&post).await;
                    match &sent {
                        Ok(()) if is_failing => tracing::info!(producer = P::NAME, "heard again"),
                        // What was not taken is missing, as with the program it plays.
                        Err(error) if !is_failing => {
                            tracing::warn!(
                                producer = P::NAME,
                                path = post.path,
                                error,
                                "not taken"
                            );
                        }
                        _ => {}
                    }
                    is_failing = sent.is_err();
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = live => {}
        }
    }

    async fn send(&self, post: &Post) -> Result<(), String> {
        let url = self.hub.join(&post.path).map_err(|error| error.to_string())?;
        let token = self.token.expose_secret();
        let (name, value) = match self.header {
            TokenHeader::Bearer => (header::AUTHORIZATION, format!("Bearer {token}")),
            TokenHeader::ApiKey => (HeaderName::from_static("x-api-key"), token.to_owned()),
        };
        let request = self.http.post(url).header(name, value).json(&post.body);
        let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = answer.text().await.unwrap_or_default();
        Err(format!("{status}: {}", said.chars().take(300).collect::<String>()))
    }
}
