//! `pulsehub check`: are the settings good, is the data whole?

use clap::Args;

use super::{
    CommandFailure,
    settings::{SettingsArgs, folder},
};
use crate::{
    app,
    broker::{journal, redis},
};

/// Check settings and the log
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub check --config /etc/pulsehub.toml --data /var/lib/pulsehub
  pulsehub check --settings-only --config /etc/pulsehub.toml
  pulsehub check --redis redis://host:6379

Tells what `serve` would refuse to start with, and what it would warn of. Then reads the whole log, which takes about a second a GiB; a hub may be running.")]
pub(super) struct CheckCommand {
    /// Only check the settings
    #[arg(long)]
    settings_only: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl CheckCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        // What a hub refuses to start with, and what it warns of when it starts.
        let config = self.settings.load_to_serve(&[])?;
        let weaknesses = app::weaknesses(&config, !self.settings_only);
        for weakness in &weaknesses {
            println!("settings: {weakness}");
        }
        match weaknesses.len() {
            0 => println!("settings: good"),
            1 => println!("settings: the hub starts, and is weaker than it could be"),
            more => {
                println!("settings: the hub starts, and is weaker than it could be in {more} ways")
            }
        }
        if self.settings_only {
            return Ok(());
        }
        let (name, report) = match config.redis().map_err(anyhow::Error::from)? {
            Some(server) => ("log", redis::check(server).await.map_err(anyhow::Error::from)?),
            None => ("journal", journal::check(folder(&config)?).map_err(anyhow::Error::from)?),
        };
        let journal::Report { blocks, events, head, faults } = report;
        for fault in &faults {
            println!("{name}: {fault}");
        }
        if !faults.is_empty() {
            let message = format!("the {name} has {} faults", faults.len());
            return Err(CommandFailure::Failed(anyhow::anyhow!(message)));
        }
        println!("{name}: good, {events} events in {blocks} blocks, head at {head}");
        Ok(())
    }
}
