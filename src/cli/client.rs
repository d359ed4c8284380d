//! Talking to a hub as its clients do.

use std::time::Duration;

use clap::Args;
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::Failure;
use crate::logging::cause;

/// How long a hub may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a command without credentials is told, instead of how a request carries them.
pub(super) const NO_TOKEN: &str = "the hub wants a token: give --token or set PULSEHUB_TOKEN; \
    `pulsehub token` prints one";

/// Flags of every command that talks to a hub.
#[derive(Args)]
pub(super) struct ClientArgs {
    /// The hub
    #[arg(long, value_name = "URL", env = "PULSEHUB_URL", default_value = "http://127.0.0.1:8080", value_parser = address)]
    pub(super) url: Url,
    /// A token or an API key
    #[arg(long, value_name = "TOKEN", env = "PULSEHUB_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
}

impl ClientArgs {
    /// Whether a token was given at all; an empty variable gives none.
    pub(super) fn has_token(&self) -> bool {
        self.given().is_some()
    }

    /// The token, in a header's form.
    pub(super) fn bearer(&self) -> Option<String> {
        self.given().map(|token| format!("Bearer {token}"))
    }

    fn given(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.expose_secret()).filter(|token| !token.is_empty())
    }

    /// The address of `path` on the hub.
    pub(super) fn at(&self, path: &str) -> Result<Url, Failure> {
        self.url.join(path).map_err(|error| Failure::Usage(format!("{}: {error}", self.url)))
    }

    /// Sends a request and returns the body of a good answer.
    pub(super) async fn send(
        &self,
        request: impl FnOnce(&Client) -> reqwest::RequestBuilder,
    ) -> Result<String, Failure> {
        let client = Client::builder().timeout(TIMEOUT).build().map_err(anyhow::Error::from)?;
        let mut request = request(&client);
        if let Some(bearer) = self.bearer() {
            request = request.header("authorization", bearer);
        }
        let answer = request.send().await.map_err(|error| {
            Failure::Unreachable(format!("{} does not answer: {}", self.url, cause(&error)))
        })?;
        let status = answer.status();
        let body = answer.text().await.map_err(anyhow::Error::from)?;
        if status.is_success() {
            return Ok(body);
        }
        let message = explain(status, &body);
        Err(match status {
            StatusCode::UNAUTHORIZED if !self.has_token() => Failure::Refused(NO_TOKEN.to_owned()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Refused(message),
            _ => Failure::Failed(anyhow::anyhow!(message)),
        })
    }
}

/// Reads the hub's address. `localhost:8080` alone would be an address of the scheme `localhost`.
fn address(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => Err("write it with http:// or https://, such as http://127.0.0.1:8080".to_owned()),
    }
}

/// What a refusal says to people: its detail, and below that what it lists, such as the bad events.
fn explain(status: StatusCode, body: &str) -> String {
    let Ok(Value::Object(problem)) = serde_json::from_str(body) else {
        return format!("{status}: {}", body.trim());
    };
    let Some(detail) = problem.get("detail").and_then(Value::as_str) else {
        return format!("{status}: {}", body.trim());
    };
    let items = problem.get("items").and_then(Value::as_array).into_iter().flatten();
    items.fold(format!("{status}: {detail}"), |said, item| format!("{said}\n  {item}"))
}
