//! What all other parts of a hub need: its log and store, its credentials and its connections.

use anyhow::Context as _;
use secrecy::ExposeSecret as _;

use crate::{
    access::Access, auth::Authenticator, broker::Broker, config::Config, connections::Connections,
    hub::Hub, redis::Server, store::Store, telemetry::Telemetry, time::Clock, vitals::Readiness,
};

pub(super) struct Base {
    pub(super) clock: Clock,
    pub(super) telemetry: Telemetry,
    pub(super) broker: Broker,
    pub(super) store: Store,
    pub(super) access: Access,
    pub(super) hub: Hub,
    pub(super) connections: Connections,
    pub(super) readiness: Readiness,
}

impl Base {
    pub(super) async fn open(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let telemetry = Telemetry::new();
        let (broker, store) = match config.redis()? {
            Some(server) => shared(config, server, &clock, &telemetry).await?,
            None => local(config, &clock, &telemetry).await?,
        };
        let secret = match config.secret.expose_secret() {
            "" => store.signing_secret()?,
            _ => config.secret.clone(),
        };
        let authenticator = Authenticator::new(&config.auth, &secret, &store, clock.clone())?;
        let access = Access::new(authenticator, &store, clock.clone());
        let hub = Hub::new(broker.clone(), config.hub.clone(), telemetry.clone());
        let most = config.limits.connections_per_principal;
        let connections = Connections::new(most, telemetry.clone());
        let readiness = match &broker {
            Broker::Journal(_) => Readiness::default(),
            Broker::Redis(redis) => Readiness::new(redis.failures().clone()),
        };
        Ok(Self { clock, telemetry, broker, store, access, hub, connections, readiness })
    }
}

/// The log and the store of one node.
async fn local(
    config: &Config,
    clock: &Clock,
    telemetry: &Telemetry,
) -> anyhow::Result<(Broker, Store)> {
    // The journal first: it holds the lock on the folder.
    let (journal, folder) = (config.journal.clone(), config.data.clone());
    let (log_clock, telemetry) = (clock.clone(), telemetry.clone());
    let open = move || Broker::open(journal, &folder, log_clock, telemetry);
    let broker =
        tokio::task::spawn_blocking(open).await.context("opening the journal broke off")??;
    Ok((broker, Store::open(&config.data, clock.clone())?))
}

/// The log and the store that many nodes share.
async fn shared(
    config: &Config,
    server: Server,
    clock: &Clock,
    telemetry: &Telemetry,
) -> anyhow::Result<(Broker, Store)> {
    let (journal, telemetry) = (config.journal.clone(), telemetry.clone());
    let broker = Broker::join(journal, server.clone(), clock.clone(), telemetry).await?;
    Ok((broker, Store::join(server, clock.clone()).await?))
}
