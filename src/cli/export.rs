//! `pulsehub export`: the whole log as text, while a hub runs or not.

use std::io::{self, BufWriter, ErrorKind, Write as _};

use clap::Args;

use super::{
    CommandFailure,
    settings::{SettingsArgs, folder},
};
use crate::{
    broker::{journal, redis},
    event::Block,
    position::Offset,
    topic::{TopicFilter, TopicPattern},
};

/// Write everything the log holds as one JSON object a line
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub export --data ./data > events.ndjson
  pulsehub export --data ./data --topics 'voicehive.**' --after 1842 | jq .data
  pulsehub export --redis redis://host:6379 > events.ndjson")]
pub(super) struct ExportCommand {
    /// Only events that match; may be repeated
    #[arg(long, value_name = "PATTERN")]
    topics: Vec<TopicPattern>,
    /// Only events after this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    after: Offset,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl ExportCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        let config = self.settings.load(&[])?;
        let filter = (!self.topics.is_empty()).then(|| TopicFilter::new(self.topics));
        let mut out = BufWriter::new(io::stdout().lock());
        let mut write = |block: &Block| {
            for record in block.records_after(self.after) {
                if filter.as_ref().is_none_or(|filter| filter.matches(record.topic())) {
                    out.write_all(record.json())?;
                    out.write_all(b"\n")?;
                }
            }
            Ok(())
        };
        let written = match config.redis().map_err(anyhow::Error::from)? {
            Some(server) => {
                redis::export(server, self.after, write).await.map_err(anyhow::Error::from)?
            }
            None => journal::export(folder(&config)?, self.after, |_, block| write(block))
                .map_err(anyhow::Error::from)?,
        };
        match written.and_then(|()| out.flush()) {
            // Whoever read has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written.map_err(anyhow::Error::from)?),
        }
    }
}
