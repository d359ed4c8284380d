//! Talking to a hub as its clients do.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::CommandFailure;
use crate::logging::cause;

/// How long a hub may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a command without credentials is told, instead of how a request carries them.
pub(super) const NO_TOKEN: &str = "the hub wants a token: set PULSEHUB_TOKEN or give --token-file; \
    `pulsehub token` prints one";

/// The variable that a token comes from without `--token-file`.
const VARIABLE: &str = "PULSEHUB_TOKEN";

/// The longest file with a token, in bytes.
const LONGEST_FILE: u64 = 64 * 1024;

/// Flags of every command that talks to a hub.
#[derive(Args)]
pub(super) struct ClientArgs {
    /// The address of the hub
    #[arg(long, value_name = "URL", env = "PULSEHUB_URL", default_value = "http://127.0.0.1:8080", value_parser = address)]
    url: Url,
    /// A file with a token or an API key; by default the variable PULSEHUB_TOKEN is used
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Only to say what to do instead: everybody on the machine can read the arguments of a program.
    #[arg(long, hide = true)]
    token: Option<SecretString>,
}

/// A hub to talk to, and how to say who does.
pub(super) struct HubClient {
    pub(super) url: Url,
    token: Option<SecretString>,
}

impl ClientArgs {
    /// The hub that was asked for; refuses secrets that everybody on this machine could read.
    pub(super) fn hub(&self) -> Result<HubClient, CommandFailure> {
        if self.token.is_some() {
            let message = "everybody on this machine can read a token in `--token`: set \
                PULSEHUB_TOKEN, or name a file that holds it with --token-file";
            return Err(CommandFailure::Usage(message.to_owned()));
        }
        if !self.url.username().is_empty() || self.url.password().is_some() {
            let message = "the hub takes no password in its address: set PULSEHUB_TOKEN, or name a \
                file that holds a token with --token-file";
            return Err(CommandFailure::Usage(message.to_owned()));
        }
        let text = match &self.token_file {
            Some(path) => read(path)?,
            None => std::env::var(VARIABLE).unwrap_or_default(),
        };
        let token = Some(text.trim()).filter(|token| !token.is_empty()).map(Into::into);
        Ok(HubClient { url: self.url.clone(), token })
    }
}

/// The token in a file.
fn read(path: &Path) -> Result<String, CommandFailure> {
    let wrong =
        |why: &str| CommandFailure::Usage(format!("--token-file {}: {why}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| wrong(&error.to_string()))?;
    file.take(LONGEST_FILE).read_to_string(&mut text).map_err(|error| wrong(&error.to_string()))?;
    if text.trim().is_empty() {
        return Err(wrong("it is empty"));
    }
    Ok(text)
}

impl HubClient {
    /// Whether a token was given at all; an empty variable gives none.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The token, in a header's form.
    pub(super) fn bearer(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {}", token.expose_secret()))
    }

    /// The address of `path` on the hub.
    pub(super) fn at(&self, path: &str) -> Result<Url, CommandFailure> {
        self.url.join(path).map_err(|error| CommandFailure::Usage(format!("{}: {error}", self.url)))
    }

    /// Sends a request and returns the body of a good answer.
    pub(super) async fn send(
        &self,
        request: impl FnOnce(&Client) -> reqwest::RequestBuilder,
    ) -> Result<String, CommandFailure> {
        let client = Client::builder().timeout(TIMEOUT).build().map_err(anyhow::Error::from)?;
        let mut request = request(&client);
        if let Some(bearer) = self.bearer() {
            request = request.header("authorization", bearer);
        }
        let answer = request.send().await.map_err(|error| {
            CommandFailure::Unreachable(format!(
                "{} does not answer ({}): start the hub, or name another with --url or PULSEHUB_URL",
                self.url,
                cause(&error)
            ))
        })?;
        let status = answer.status();
        let body = answer.text().await.map_err(anyhow::Error::from)?;
        if status.is_success() {
            return Ok(body);
        }
        let message = explain(status, &body);
        Err(match status {
            StatusCode::UNAUTHORIZED if !self.has_token() => {
                CommandFailure::Refused(NO_TOKEN.to_owned())
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CommandFailure::Refused(message),
            _ => CommandFailure::Failed(anyhow::anyhow!(message)),
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
    items.fold(format!("{status}: {detail}"), |said, item| {
        let text = |name: &str| item.get(name).and_then(Value::as_str);
        let number = item.get("index").and_then(Value::as_u64).unwrap_or_default() + 1;
        let field = text("field").map(|field| format!(", `{field}`")).unwrap_or_default();
        format!("{said}\n  event {number}{field}: {}", text("message").unwrap_or_default())
    })
}
