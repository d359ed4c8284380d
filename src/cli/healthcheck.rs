//! `pulsehub healthcheck`: the question a container is asked.

use clap::Args;

use super::{CommandFailure, client::ClientArgs};

/// Ask a hub whether it is ready, for containers
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub healthcheck
  pulsehub healthcheck --publishing --url http://127.0.0.1:8080")]
pub(super) struct HealthcheckCommand {
    /// Also ask whether events can be published
    #[arg(long)]
    publishing: bool,
    #[command(flatten)]
    client: ClientArgs,
}

impl HealthcheckCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        let path = if self.publishing { "/readyz/publishing" } else { "/readyz" };
        let hub = self.client.hub()?;
        let url = hub.at(path)?;
        println!("{}", hub.send(|client| client.get(url)).await?);
        Ok(())
    }
}
