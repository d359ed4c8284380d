//! Talking to a hub as its clients do.

use std::time::Duration;

use clap::Args;
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};

use super::Failure;

/// How long a hub may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Flags of every command that talks to a hub.
#[derive(Args)]
pub(super) struct ClientArgs {
    /// The hub
    #[arg(long, value_name = "URL", env = "PULSEHUB_URL", default_value = "http://127.0.0.1:8080")]
    pub(super) url: Url,
    /// A token or an API key
    #[arg(long, value_name = "TOKEN", env = "PULSEHUB_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
}

impl ClientArgs {
    /// The token, in a header's form.
    pub(super) fn bearer(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {}", token.expose_secret()))
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
        let message = format!("{status}: {}", body.trim());
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Refused(message),
            _ => Failure::Failed(anyhow::anyhow!(message)),
        })
    }
}

/// The innermost reason, which is the one that helps.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}
