//! `pulsehub serve`: runs the hub until it is told to stop.

use std::{io::Write as _, net::SocketAddr};

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, settings::SettingsArgs};
use crate::{app::App, http::server, logging, time::Clock};

/// Run the hub
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub serve --data ./data --welcome
  PULSEHUB_SECRET=$(openssl rand -hex 32) pulsehub serve --listen 0.0.0.0:8080 --data /var/lib/pulsehub

Prints `listening on http://ADDR` once it is ready. SIGTERM or Ctrl-C drains and stops, as does
`pulsehub drain --stop`; another signal ends it at once.")]
pub(super) struct Serve {
    /// The address and port to listen on, 127.0.0.1:8080 by default; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Also print a one-time sign-in link and a curl line that publishes, to standard error
    #[arg(long)]
    welcome: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.settings.load(&[("listen", self.listen.clone())])?;
        logging::start(&config.log);
        // Before anything is opened, so that a signal during the start is not missed.
        let mut signals = Signals::new().context("cannot wait for signals")?;
        let listener = server::listen(config.listen)
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let data = config.data.clone();
        let app = App::start(config, listener, Clock::system()).await?;
        announce(app.address()).context("cannot say that the hub is ready")?;
        if self.welcome {
            welcome(&app, &data).await?;
        }
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

/// A link that signs a browser in, once.
pub(super) async fn link(app: &App) -> Result<String, Failure> {
    let code = app.sign_in_code().await.context("cannot make a sign-in link")?;
    Ok(format!("http://{}/#code={code}", app.address()))
}

async fn welcome(app: &App, data: &std::path::Path) -> Result<(), Failure> {
    let (address, link) = (app.address(), link(app).await?);
    let program = std::env::args().next().unwrap_or_else(|| "pulsehub".into());
    let data = data.display();
    eprintln!(
        "
  Open this link, once, within 15 minutes, to see events arrive:

    {link}

  Publish one:

    curl -H \"Authorization: Bearer $({program} token --data {data} --sub me --publish '**')\" \\
      -d '{{\"topic\":\"demo.hello\",\"data\":{{\"text\":\"hello\"}}}}' http://{address}/api/v1/publish
"
    );
    Ok(())
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
