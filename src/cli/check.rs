//! `pulsehub check`: are the settings good, is the data whole?

use clap::Args;

use super::{Failure, settings::SettingsArgs};
use crate::broker::journal;

/// Check settings and a data folder
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub check --config /etc/pulsehub.toml --data /var/lib/pulsehub
  pulsehub check --settings-only --config /etc/pulsehub.toml

Reads the whole journal, which takes about a second a GiB; a hub may be running.")]
pub(super) struct Check {
    /// Only check the settings
    #[arg(long)]
    settings_only: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load(&[])?;
        println!("settings: good");
        if self.settings_only {
            return Ok(());
        }
        let report = journal::check(&config.data).map_err(anyhow::Error::from)?;
        let journal::Report { blocks, events, head, faults } = report;
        for fault in &faults {
            println!("journal: {fault}");
        }
        if !faults.is_empty() {
            let message = format!("the journal has {} faults", faults.len());
            return Err(Failure::Failed(anyhow::anyhow!(message)));
        }
        println!("journal: good, {events} events in {blocks} blocks, head at {head}");
        Ok(())
    }
}
