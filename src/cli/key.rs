//! `pulsehub key`: API keys, while a hub runs or not.

use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;

use super::{
    CommandFailure,
    settings::{SettingsArgs, grants_something, look_into_store, open_store},
};
use crate::{
    auth::{ApiKey, ApiKeys, NewApiKey},
    grants::Grants,
    time::{self, Clock, Span},
    topic::TopicPattern,
};

/// Make, list and revoke API keys
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub key create --data ./data --name locanext --publish 'locanext.**'
  pulsehub key list --data ./data
  pulsehub key revoke --data ./data 3f9a1c2b4d5e6f70

A running hub notices within a second, and closes the sockets of a revoked key.")]
pub(super) struct KeyCommand {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Subcommand)]
enum KeyAction {
    /// Make a key and print it, this once
    Create {
        /// Whose key it is
        #[arg(long)]
        name: String,
        /// A pattern it may subscribe to; may be repeated
        #[arg(long, value_name = "PATTERN")]
        subscribe: Vec<TopicPattern>,
        /// A pattern it may publish to; may be repeated
        #[arg(long, value_name = "PATTERN")]
        publish: Vec<TopicPattern>,
        /// A role it has
        #[arg(long)]
        role: Option<String>,
        /// How long it is good; without it, until it is revoked
        #[arg(long)]
        ttl: Option<Span>,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// List all keys, without their secrets
    List {
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Take a key back
    Revoke {
        /// The key's id, or the key itself: it ends here, so that arguments may show it
        key: String,
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

impl KeyCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        match self.action {
            KeyAction::Create { name, subscribe, publish, role, ttl, settings } => {
                let config = settings.load(&[])?;
                grants_something(&config, "key", &subscribe, &publish, role.as_deref())?;
                let now = Clock::system().now();
                let new = NewApiKey {
                    name,
                    grants: Grants { subscribe, publish },
                    role,
                    expires: ttl.map(|ttl| now.saturating_add(ttl.millis())),
                };
                let (key, stored) = ApiKey::make(new, now).map_err(anyhow::Error::from)?;
                let keys = ApiKeys::new(&open_store(&config).await?);
                keys.put(stored).await.map_err(anyhow::Error::from)?;
                println!("{}", key.expose_secret());
            }
            KeyAction::List { settings } => {
                let keys = ApiKeys::new(&look_into_store(&settings.load(&[])?).await?);
                for key in keys.list().await.map_err(anyhow::Error::from)? {
                    let patterns = |of: &[TopicPattern]| {
                        let texts: Vec<_> = of.iter().map(ToString::to_string).collect();
                        if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
                    };
                    let state = match (key.revoked, key.expires) {
                        (true, _) => "revoked".to_owned(),
                        (false, None) => "good".to_owned(),
                        (false, Some(expires)) => format!("until {}", time::rfc3339(expires)),
                    };
                    println!(
                        "{}\t{}\tsubscribe {}\tpublish {}\trole {}\tmade {}\t{state}",
                        key.id,
                        key.name,
                        patterns(&key.grants.subscribe),
                        patterns(&key.grants.publish),
                        key.role.as_deref().unwrap_or("-"),
                        time::rfc3339(key.created),
                    );
                }
            }
            KeyAction::Revoke { key, settings } => {
                let id = ApiKey::parse(&key).map_or(key, |key| key.id);
                let keys = ApiKeys::new(&open_store(&settings.load(&[])?).await?);
                if !keys.revoke(&id).await.map_err(anyhow::Error::from)? {
                    return Err(CommandFailure::Usage(format!(
                        "there is no key {id}: see `pulsehub key list`"
                    )));
                }
                println!("revoked {id}");
            }
        }
        Ok(())
    }
}
