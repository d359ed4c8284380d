//! `pulsehub serve`: runs the hub until it is told to stop.

use std::{io::Write as _, net::SocketAddr, path::Path};

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CommandFailure, settings::SettingsArgs, sign_in_link::SignInLink};
use crate::{app::App, http::server, logging, time::Clock};

/// Run the hub
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub serve --data ./data --welcome
  PULSEHUB_SECRET=$(openssl rand -hex 32) pulsehub serve --listen 0.0.0.0:8080 --data /var/lib/pulsehub

Prints `listening on http://ADDR` once it is ready. SIGTERM or Ctrl-C drains and stops, as does
`pulsehub drain --stop`; a second signal ends it at once.")]
pub(super) struct ServeCommand {
    /// The address and port to listen on, 127.0.0.1:8080 by default; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Also print a one-time sign-in link and a curl command that publishes, to standard error. If that
    /// is not a terminal, the link is written to the file `sign-in-link` in the data folder
    #[arg(long)]
    welcome: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl ServeCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        let config = self.settings.load_to_serve(&[("listen", self.listen.clone())])?;
        logging::start(&config.log);
        // Before anything is opened, so that a signal during the start is not missed.
        let mut signals = Signals::new().context("cannot wait for signals")?;
        let listener = server::listen(config.listen).with_context(|| {
            format!("cannot listen on {}; --listen takes another address", config.listen)
        })?;
        let data = config.data.clone();
        let app = App::start(config, listener, Clock::system()).await?;
        announce(app.address()).context("cannot say that the hub is ready")?;
        // Until the hub ends, and then no link is left.
        let _link = match self.welcome {
            true => Some(welcome(&app, &data).await?),
            false => None,
        };
        tokio::select! {
            () = signals.next() => {}
            () = app.leaving() => {}
        }
        tracing::info!("stopping");
        tokio::select! {
            () = app.stop() => tracing::info!("stopped"),
            () = signals.next() => tracing::warn!("stopped at once"),
        }
        Ok(())
    }
}

pub(super) fn announce(address: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    out.flush()
}

async fn welcome(app: &App, data: &Path) -> Result<SignInLink, CommandFailure> {
    let (address, link) = (app.address(), SignInLink::make(app, data).await?);
    let program = std::env::args().next().unwrap_or_else(|| "pulsehub".into());
    let data = data.display();
    eprintln!(
        "
{link}
  Publish an event, and see it arrive:

    curl -H \"Authorization: Bearer $({program} token --data {data} --sub me --publish '**')\" \\
      -d '{{\"topic\":\"demo.hello\",\"data\":{{\"text\":\"hello\"}}}}' http://{address}/api/v1/publish
"
    );
    Ok(link)
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
