//! `pulsehub key`: API keys, while a hub runs or not.

use std::io::Write as _;

use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;
use tabwriter::TabWriter;

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
  pulsehub key revoke --data ./data locanext

A running hub notices within a second, and closes the sockets of a revoked key.")]
pub(super) struct KeyCommand {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Subcommand)]
enum KeyAction {
    /// Make a key and print it, this once
    #[command(after_help = "\
Examples:
  pulsehub key create --data ./data --name locanext --publish 'locanext.**'
  pulsehub key create --data ./data --name wall --subscribe 'voicehive.**' --ttl 365d
  pulsehub key create --redis redis://host:6379 --name monitoring --role admin

The hub keeps a hash of the key, so it cannot show it again.")]
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
    /// List the keys, without their secrets
    #[command(after_help = "\
Examples:
  pulsehub key list --data ./data
  pulsehub key list --data ./data --all")]
    List {
        /// Also those that have expired
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Take keys back
    #[command(after_help = "\
Examples:
  pulsehub key revoke --data ./data locanext
  pulsehub key revoke --data ./data 3f9a1c2b4d5e6f70

`pulsehub key list` shows ids and names. A running hub closes the key's sockets within a second.")]
    Revoke {
        /// A key's id, the name of one or several keys, or a key itself: it ends here, so that arguments may show it
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
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
            KeyAction::List { all, settings } => list(all, &settings).await?,
            KeyAction::Revoke { keys, settings } => revoke(keys, &settings).await?,
        }
        Ok(())
    }
}

async fn list(all: bool, settings: &SettingsArgs) -> Result<(), CommandFailure> {
    let keys = ApiKeys::new(&look_into_store(&settings.load(&[])?).await?);
    let now = Clock::system().now();
    let (mut left_out, mut table) = (0, TabWriter::new(Vec::new()));
    let mut line = |cells: &[&str]| {
        // Writing to memory cannot fail.
        let _ = writeln!(table, "{}", cells.join("\t"));
    };
    line(&["ID", "NAME", "SUBSCRIBE", "PUBLISH", "ROLE", "MADE", "STATE"]);
    for key in keys.list().await.map_err(anyhow::Error::from)? {
        let state = match (key.revoked, key.expires) {
            (true, _) => "revoked".to_owned(),
            (false, Some(expires)) if expires <= now => {
                if !all {
                    left_out += 1;
                    continue;
                }
                format!("expired {}", time::rfc3339(expires))
            }
            (false, None) => "good".to_owned(),
            (false, Some(expires)) => format!("until {}", time::rfc3339(expires)),
        };
        let patterns = |of: &[TopicPattern]| {
            let texts: Vec<_> = of.iter().map(ToString::to_string).collect();
            if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
        };
        line(&[
            &key.id,
            &key.name,
            &patterns(&key.grants.subscribe),
            &patterns(&key.grants.publish),
            key.role.as_deref().unwrap_or("-"),
            &time::rfc3339(key.created),
            &state,
        ]);
    }
    let table = table.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?;
    print!("{}", String::from_utf8_lossy(&table));
    match left_out {
        0 => {}
        1 => eprintln!("1 key that has expired is left out: --all lists it too"),
        more => eprintln!("{more} keys that have expired are left out: --all lists them too"),
    }
    Ok(())
}

async fn revoke(named: Vec<String>, settings: &SettingsArgs) -> Result<(), CommandFailure> {
    let keys = ApiKeys::new(&open_store(&settings.load(&[])?).await?);
    let failed = anyhow::Error::from;
    // All are found before one is taken back: a slip in the second name must not leave half of it done.
    let mut ids = Vec::new();
    for name in named {
        let id = ApiKey::parse(&name).map_or(name, |key| key.id);
        if keys.get(&id).await.map_err(failed)?.is_some() {
            ids.push(id);
            continue;
        }
        let of_name = keys.named(&id).await.map_err(failed)?;
        let good = of_name.into_iter().filter(|key| !key.revoked).map(|key| key.id);
        let before = ids.len();
        ids.extend(good);
        if ids.len() == before {
            return Err(CommandFailure::Usage(format!(
                "no key has the id or the name {id}, or all of them are revoked: see `pulsehub key list`"
            )));
        }
    }
    for id in ids {
        if keys.revoke(&id).await.map_err(failed)? {
            println!("revoked {id}");
        }
    }
    Ok(())
}
