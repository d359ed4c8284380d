//! The settings a command works with: file, environment, flags.

use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use super::CommandFailure;
use crate::{
    auth,
    config::Config,
    store::{self, LocalStore, Store},
    time::Clock,
    topic::TopicPattern,
};

/// Flags of every command that reads the settings.
#[derive(Args)]
pub(super) struct SettingsArgs {
    /// The data folder; by default the one in the settings, else ./data
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
    pub(super) fn load(&self, flags: &[(&str, Option<String>)]) -> Result<Config, CommandFailure> {
        let data = self.data.as_ref().map(|path| path.to_string_lossy().into_owned());
        let flags: Vec<(&str, String)> = flags
            .iter()
            .map(|(key, value)| (*key, value.clone()))
            .chain([("data", data), ("redis", self.redis.clone())])
            .filter_map(|(key, value)| value.map(|value| (key, value)))
            .collect();
        let config = Config::load(self.config.as_deref(), std::env::vars_os(), &flags)
            .map_err(|error| CommandFailure::Usage(error.to_string()))?;
        if self.redis.is_some()
            && config.redis().is_ok_and(|it| it.is_some_and(|it| it.has_password()))
        {
            let message = "everybody on this machine can read a password in `--redis`: set \
                PULSEHUB_REDIS, or `redis` in a settings file";
            return Err(CommandFailure::Usage(message.to_owned()));
        }
        Ok(config)
    }

    /// The settings of a hub that is to run: what it could not start with is refused.
    pub(super) fn load_to_serve(
        &self,
        flags: &[(&str, Option<String>)],
    ) -> Result<Config, CommandFailure> {
        let config = self.load(flags)?;
        auth::check(&config.auth, &config.secret)
            .map_err(|error| CommandFailure::Usage(error.to_string()))?;
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
) -> Result<(), CommandFailure> {
    if let Some(role) = role
        && !auth::knows_role(&config.auth, role)
    {
        let message = format!(
            "there is no role {role:?}: take viewer, publisher, admin or one of [auth.roles]"
        );
        return Err(CommandFailure::Usage(message));
    }
    if subscribe.is_empty() && publish.is_empty() && role.is_none() {
        let message =
            format!("the {what} would grant nothing: give --subscribe, --publish or --role");
        return Err(CommandFailure::Usage(message));
    }
    Ok(())
}

/// The secret tokens are signed with: the configured one, else that of the data folder.
pub(super) async fn signing_secret(config: &Config) -> Result<SecretString, CommandFailure> {
    if !config.secret.expose_secret().is_empty() {
        return Ok(config.secret.clone());
    }
    let secret = match join_store(config).await? {
        Some(store) => store.signing_secret(),
        None => store::secret_in(folder(config)?),
    };
    secret.map_err(|error| CommandFailure::Failed(error.into()))
}

/// The store of the hub, which may be running on it, to write to it.
pub(super) async fn open_store(config: &Config) -> Result<Store, CommandFailure> {
    match join_store(config).await? {
        Some(store) => Ok(store),
        None => Store::open(folder(config)?, Clock::system()).map_err(failed),
    }
}

/// The same, to look at it: what an earlier version wrote stays as it is.
pub(super) async fn look_into_store(config: &Config) -> Result<Store, CommandFailure> {
    match join_store(config).await? {
        Some(store) => Ok(store),
        None => {
            let local = LocalStore::look_into(folder(config)?, Clock::system());
            local.map(Store::Local).map_err(failed)
        }
    }
}

/// The store that many nodes share, if there is one.
async fn join_store(config: &Config) -> Result<Option<Store>, CommandFailure> {
    let Some(server) = config.redis().map_err(failed)? else { return Ok(None) };
    Store::join(server, Clock::system()).await.map(Some).map_err(failed)
}

/// Of data folders, only `serve` makes one: made by a slip in its name, it would hold a secret of its own, whose tokens no
/// hub takes.
pub(super) fn folder(config: &Config) -> Result<&Path, CommandFailure> {
    if config.data.is_dir() {
        return Ok(&config.data);
    }
    let folder = config.data.display();
    Err(CommandFailure::Usage(format!(
        "there is no data folder {folder}: name the hub's with --data"
    )))
}

fn failed(error: impl Into<anyhow::Error>) -> CommandFailure {
    CommandFailure::Failed(error.into())
}
