//! `pulsehub demo`: a hub with synthetic producers, for trying out.

use std::{net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use jiff::Zoned;
use reqwest::Url;
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    CommandFailure,
    serve::{Signals, announce},
    settings::{SettingsArgs, signing_secret},
    sign_in_link::SignInLink,
    whole_number,
};
use crate::{
    app::App,
    auth::{self, MintClaims},
    config::Config,
    demo::{self, Day, PRODUCERS, flext},
    http::server,
    logging, sources,
    time::{Clock, Span},
    topic::TopicPattern,
};

/// Run a hub with four synthetic producers
#[derive(Args)]
#[command(after_help = "\
Examples:
  pulsehub demo
  pulsehub demo --speed 60 --hour 9
  pulsehub demo --data ./demo --listen 127.0.0.1:9090 --seed 7

Clients play LocaNext, VoiceHive, TimeTracker and FLEXT: they send the requests of these systems
over real sockets. All data is synthetic, and the page says so. With --speed 60 as much happens
in a minute as in an hour of a real day. There is no past: charts begin with the demo. To use
curl, start it with --data ./demo and make a token:
`pulsehub token --data ./demo --sub me --role admin`.")]
pub(super) struct DemoCommand {
    /// The address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// How many times faster than real time the day passes
    #[arg(long, default_value = "10", value_parser = speed)]
    speed: f64,
    /// The hour of the day to begin with, 0 to 24; by default the present one
    #[arg(long, value_parser = hour)]
    hour: Option<f64>,
    /// The seed of all random choices
    #[arg(long, default_value = "1", value_parser = whole_number)]
    seed: u64,
    /// An empty folder, or that of an earlier demo; by default a temporary one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Tokens for clients that end with the program.
const TOKEN_LIFE: Span = Span::seconds(366 * 24 * 3600);

impl DemoCommand {
    pub(super) async fn run(self) -> Result<(), CommandFailure> {
        let failed = |error: anyhow::Error| CommandFailure::Failed(error);
        let mut own = None;
        let data = match &self.data {
            Some(data) => data.clone(),
            None => {
                let folder =
                    TempDir::with_prefix("pulsehub-demo-").context("no folder").map_err(failed)?;
                own.insert(folder).path().to_owned()
            }
        };
        demo::mark(&data)
            .map_err(|error| CommandFailure::Usage(format!("{}: {error}", data.display())))?;
        // Whatever the environment says: nothing made up goes into a log that others share.
        let redis = Some(String::new());
        let settings = SettingsArgs { data: Some(data), redis, config: None };
        let mut config = settings.load_to_serve(&[("listen", self.listen.clone())])?;
        logging::start(&config.log);
        let mut signals = Signals::new().context("cannot wait for signals")?;

        let daemon = flext::DemoDaemon::bind().await.context("cannot listen for FLEXT")?;
        let address = daemon.url().parse().context("no address of FLEXT")?;
        config
            .sources
            .push(sources::SourceConfig::flext(flext::NAME, address).context("no source")?);
        let day = Day::new(self.hour.unwrap_or_else(hour_now), self.speed, self.seed);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(daemon.run(day.clone(), Clock::system(), stop.clone()));

        let listener = server::listen(config.listen).with_context(|| {
            format!("cannot listen on {}; --listen takes another address", config.listen)
        })?;
        let app = App::start(config.clone(), listener, Clock::system()).await?;
        announce(app.address()).context("cannot say that the hub is ready")?;
        let link = SignInLink::make(&app, &config.data).await?;
        eprintln!("{}", welcome(&link, self.speed));

        let started = self.produce(&config, &app, &day, &tasks, &stop).await;
        if started.is_ok() {
            signals.next().await;
        }
        stop.cancel();
        tasks.close();
        tokio::select! {
            () = async { tasks.wait().await; app.stop().await } => {}
            () = signals.next() => tracing::warn!("stopped at once"),
        }
        drop(own);
        started
    }

    async fn produce(
        &self,
        config: &Config,
        app: &App,
        day: &Day,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), CommandFailure> {
        let secret = signing_secret(config).await?;
        let clock = Clock::system();
        let now = clock.now();
        let mint = |(name, pattern): (&str, &str)| -> anyhow::Result<_> {
            let claims = MintClaims {
                sub: name.to_owned(),
                subscribe: Vec::new(),
                publish: vec![TopicPattern::parse(pattern)?],
                role: None,
                ttl: TOKEN_LIFE,
            };
            Ok(auth::mint(&config.auth, &secret, &claims, now)?)
        };
        let [one, two, three] = PRODUCERS.map(mint);
        let mut address = app.address();
        if address.ip().is_unspecified() {
            let loopback: IpAddr = if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                [0, 0, 0, 0, 0, 0, 0, 1].into()
            };
            address.set_ip(loopback);
        }
        let hub = Url::parse(&format!("http://{address}")).map_err(anyhow::Error::from)?;
        demo::start(&hub, [one?, two?, three?], day, &clock, tasks, stop)
            .map_err(anyhow::Error::from)?;
        Ok(())
    }
}

fn welcome(link: &SignInLink, speed: f64) -> String {
    format!(
        "
  Synthetic data, {speed} times as fast as a real day.

{link}
  Overview    voicehive.calls end every few seconds, with alerts when many fail
  Activity    locanext.events.**: people sign in, upload, translate; try type:error
  Topics      flext.executions, whose progress is followed; flext.source, which tells when FLEXT is away
              hub.instances.timetracker: who phones home, and who does not any more
              hub.host: this machine

  About every four hours of the day's time something goes wrong for twenty minutes. Ctrl-C ends it.
"
    )
}

/// The hour that the machine's own clock shows, with its fraction.
fn hour_now() -> f64 {
    let now = Zoned::now();
    f64::from(now.hour()) + f64::from(now.minute()) / 60.0
}

fn speed(text: &str) -> Result<f64, String> {
    within(text, 0.1, 600.0)
}

fn hour(text: &str) -> Result<f64, String> {
    within(text, 0.0, 24.0)
}

fn within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("write a number from {least} to {most}")),
    }
}
