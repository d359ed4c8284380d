//! `pulsehub token`: signs a token with the hub's own secret.

use clap::Args;
use secrecy::ExposeSecret as _;

use super::{
    CommandFailure,
    settings::{SettingsArgs, grants_something, signing_secret},
};
use crate::{
    auth::{self, MintClaims},
    time::{Clock, Span},
    topic::TopicPattern,
};

/// Print a signed token for a person or a program
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub token --data ./data --sub ada --subscribe 'voicehive.**'
  pulsehub token --data ./data --sub voicehive --publish 'voicehive.**' --ttl 30d
  pulsehub token --data ./data --sub root --role admin

Roles: viewer (subscribe **), publisher (publish **), admin (both, and the hub itself), or your
own. `**` is every topic but the hub's own, such as hub.instances.*;
--subscribe 'hub.**' adds them.")]
pub(super) struct TokenCommand {
    /// The name of the person or program
    #[arg(long, value_name = "NAME")]
    sub: String,
    /// A pattern it may subscribe to; may be repeated
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<TopicPattern>,
    /// A pattern it may publish to; may be repeated
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<TopicPattern>,
    /// A role: viewer, publisher, admin, or one of [auth.roles]
    #[arg(long)]
    role: Option<String>,
    /// How long it is valid: 30s, 5m, 1h, 7d
    #[arg(long, default_value = "1h")]
    ttl: Span,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl TokenCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        let config = self.settings.load(&[])?;
        let role = self.role.as_deref();
        grants_something(&config, "token", &self.subscribe, &self.publish, role)?;
        let secret = signing_secret(&config).await?;
        let claims = MintClaims {
            sub: self.sub,
            subscribe: self.subscribe,
            publish: self.publish,
            role: self.role,
            ttl: self.ttl,
        };
        let token = auth::mint(&config.auth, &secret, &claims, Clock::system().now())
            .map_err(|error| CommandFailure::Usage(error.to_string()))?;
        if auth::is_long_life(&config.auth, self.ttl) {
            eprintln!(
                "pulsehub: this token is good for {}, and only a new secret takes it back: give a shorter \
                 --ttl, or make a key that can be revoked (`pulsehub key create`). A longest life can \
                 be set with auth.longest_life",
                self.ttl
            );
        }
        println!("{}", token.expose_secret());
        Ok(())
    }
}
