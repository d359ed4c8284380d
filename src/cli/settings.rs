//! The settings a command works with: file, environment, flags.

use std::path::PathBuf;

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use super::Failure;
use crate::{auth, config::Config, store::Store, time::Clock, topic::TopicPattern};

/// Flags of every command that reads the settings.
#[derive(Args)]
pub(super) struct SettingsArgs {
    /// The data folder; without it, what the settings say: ./data by default
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// The Redis that many nodes share, such as redis://host:6379; then no data folder is used. An
    /// address with a password goes into PULSEHUB_REDIS
    #[arg(long, value_name = "URL")]
    pub(super) redis: Option<String>,
    /// A settings file; see docs/configuration.md
    #[arg(long, value_name = "FILE", env = "PULSEHUB_CONFIG")]
    pub(super) config: Option<PathBuf>,
}

impl SettingsArgs {
    /// The settings, with `flags` (key and value) going before everything else.
    pub(super) fn load(&self, flags: &[(&str, Option<String>)]) -> Result<Config, Failure> {
        let data = self.data.as_ref().map(|path| path.to_string_lossy().into_owned());
        let flags: Vec<(&str, String)> = flags
            .iter()
            .map(|(key, value)| (*key, value.clone()))
            .chain([("data", data), ("redis", self.redis.clone())])
            .filter_map(|(key, value)| value.map(|value| (key, value)))
            .collect();
        let config = Config::load(self.config.as_deref(), std::env::vars_os(), &flags)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        if self.redis.is_some()
            && config.redis().is_ok_and(|it| it.is_some_and(|it| it.has_password()))
        {
            let message = "everybody on this machine can read a password in `--redis`: set \
                PULSEHUB_REDIS, or `redis` in a settings file";
            return Err(Failure::Usage(message.to_owned()));
        }
        Ok(config)
    }
}

/// Refuses credentials that nobody could do anything with: `what` is a token or a key.
pub(super) fn grants_something(
    config: &Config,
    what: &str,
    subscribe: &[TopicPattern],
    publish: &[TopicPattern],
    role: Option<&str>,
) -> Result<(), Failure> {
    if let Some(role) = role
        && !auth::knows_role(&config.auth, role)
    {
        let message = format!(
            "there is no role {role:?}: take viewer, publisher, admin or one of [auth.roles]"
        );
        return Err(Failure::Usage(message));
    }
    if subscribe.is_empty() && publish.is_empty() && role.is_none() {
        let message =
            format!("the {what} would grant nothing: give --subscribe, --publish or --role");
        return Err(Failure::Usage(message));
    }
    Ok(())
}

/// The secret tokens are signed with: the configured one, else that of the data folder.
pub(super) async fn signing_secret(config: &Config) -> Result<SecretString, Failure> {
    if !config.secret.expose_secret().is_empty() {
        return Ok(config.secret.clone());
    }
    let store = open_store(config).await?;
    store.signing_secret().map_err(|error| Failure::Failed(error.into()))
}

/// The store of the hub, which may be running on it. Of data folders, only `serve` makes a folder: made by a
/// slip in its name, it would hold a secret of its own, whose tokens no hub takes.
pub(super) async fn open_store(config: &Config) -> Result<Store, Failure> {
    let failed = |error: anyhow::Error| Failure::Failed(error);
    if let Some(server) = config.redis().map_err(|error| failed(error.into()))? {
        let joined = Store::join(server, Clock::system()).await;
        return joined.map_err(|error| failed(error.into()));
    }
    if !config.data.is_dir() {
        return Err(Failure::Usage(format!(
            "there is no data folder {}: name the hub's with --data",
            config.data.display()
        )));
    }
    Store::open(&config.data, Clock::system()).map_err(|error| failed(error.into()))
}
