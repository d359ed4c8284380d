//! The hub as a whole: builds every subsystem from its own settings, owns every task, and ends
//! them in the order that loses nothing.

mod warnings;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::warnings::Machine;
use crate::{
    access::Access,
    admission::Admission,
    auth::{AuthError, Authenticator, CredentialId, Principal, Role},
    broker::Broker,
    cluster::{Cluster, Node},
    config::Config,
    connections::{self, Connections},
    demo, descriptors,
    drain::Drain,
    duty::Duties,
    event::PublisherName,
    follow::Feed,
    grants::Grants,
    http::{self, Budgets, Questions, Services, Settings, server},
    hub::Hub,
    id,
    instances::Instances,
    projections::{self, Projections},
    redis,
    series::Series,
    session::Terms,
    sources::Flext,
    store::Store,
    telemetry::Telemetry,
    time::Clock,
    vitals::{self, Host, Readiness, Vitals},
};

/// What stopping may take beyond the drain.
const GRACE: Duration = Duration::from_secs(10);

/// A running hub.
pub struct App {
    address: SocketAddr,
    services: Arc<Services>,
    drain: Drain,
    /// Time for all connections to end.
    drain_time: Duration,
    /// Stops accepting.
    accepting: CancellationToken,
    /// Stops what serves those who are still there.
    serving: CancellationToken,
    /// Connections and their sockets.
    tasks: TaskTracker,
    /// Dispatch, vitals, revocations.
    background: TaskTracker,
    accept_loop: JoinHandle<()>,
}

impl App {
    /// Starts a hub that serves `listener`; it is ready when this returns.
    pub async fn start(
        config: Config,
        listener: TcpListener,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("cannot tell the address listened on")?;
        let telemetry = Telemetry::new();
        let (broker, store) = match config.redis()? {
            Some(server) => shared(&config, server, &clock, &telemetry).await?,
            None => local(&config, &clock, &telemetry).await?,
        };
        let secret = match config.secret.expose_secret() {
            "" => store.signing_secret()?,
            _ => config.secret.clone(),
        };
        let authenticator = Authenticator::new(&config.auth, &secret, &store, clock.clone())?;
        let access = Access::new(authenticator, &store, clock.clone());
        let hub = Hub::new(broker.clone(), config.hub.clone(), telemetry.clone());
        let connections =
            Connections::new(config.limits.connections_per_principal, telemetry.clone());
        let readiness = Readiness::default();
        let (accepting, serving) = (CancellationToken::new(), CancellationToken::new());
        let (tasks, background) = (TaskTracker::new(), TaskTracker::new());
        let plan = config.plan()?;
        let terms = Arc::new(Terms {
            config: config.socket,
            limits: config.limits,
            telemetry: telemetry.clone(),
            admission: Admission::new(config.own_topics(&plan)?, (&config.limits).into()),
        });
        let drain_time = config.http.drain.0;
        let drain = Drain::new(connections.clone(), readiness.clone(), drain_time);
        let mut name = vitals::node_name();
        let cluster = match (&broker, config.redis()?) {
            (Broker::Redis(redis), Some(server)) => {
                name = format!("{name}:{}", address.port()); // several may run on one host
                let own = Node::new(name.clone(), connections.clone(), hub.clone(), drain.clone());
                Cluster::join(own, server, redis.node().to_owned())
            }
            _ => Cluster::alone(Node::new(
                name.clone(),
                connections.clone(),
                hub.clone(),
                drain.clone(),
            )),
        };
        // Not the node's name, which the node has again when it comes back.
        let duties = Duties::new(store.clone(), broker.clone(), &id::short()?, telemetry.clone());
        let feed = Feed::new(broker.clone());
        let series = Series::new(
            config.series,
            plan.rules(),
            feed.clone(),
            store.clone(),
            clock.clone(),
            telemetry.clone(),
        );
        let projections = Projections::new(
            plan,
            series.clone(),
            feed.clone(),
            projections::Bounds {
                keys: config.journal.latest_keys,
                event: config.limits.event.as_usize(),
            },
            clock.clone(),
            telemetry.clone(),
        );
        let instances = Instances::new(
            config.instances.clone(),
            feed,
            store.clone(),
            clock.clone(),
            telemetry.clone(),
        )?;
        instances.load().await.context("cannot read the registry of instances")?;
        let room = descriptors::raise();
        let warnings = Machine::look(room).warnings(&config, address);
        let room = room.and_then(|room| usize::try_from(room).ok()).unwrap_or(usize::MAX);
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let services = Arc::new(Services {
            broker: broker.clone(),
            series: series.clone(),
            hub: hub.clone(),
            access: access.clone(),
            connections: connections.clone(),
            instances: instances.clone(),
            telemetry: telemetry.clone(),
            clock: clock.clone(),
            readiness: readiness.clone(),
            attempts: http::Attempts::default(),
            questions: Questions::new(config.limits.questions, telemetry.clone()),
            budgets: Budgets::new(&config.limits, &telemetry),
            settings: Settings {
                http: config.http.clone(),
                limits: config.limits,
                query_token: config.auth.query_token,
                wrong_sign_ins: config.auth.wrong_sign_ins,
                is_loopback: address.ip().is_loopback(),
                warnings,
                is_demo: matches!(broker, Broker::Journal(_)) && demo::is_marked(&config.data),
            },
            terms,
            projections: projections.clone(),
            cluster: cluster.clone(),
            tasks: tasks.clone(),
        });
        let vitals = Vitals::new(&name, telemetry.clone(), clock.clone())?;
        // Before anybody can send its clients elsewhere, which takes it back.
        readiness.accept(true);
        background.spawn(hub.clone().run(serving.clone()));
        for source in &config.sources {
            let limit = config.limits.event.as_usize();
            let (broker, telemetry, clock) = (broker.clone(), telemetry.clone(), clock.clone());
            let source = Flext::new(source.clone(), limit, broker, telemetry, clock);
            background.spawn(duties.clone().run(source, serving.clone()));
        }
        if config.host.publish {
            let host = Host::new(config.host, &name, &config.data, clock.clone())?;
            background.spawn(host.run(broker.clone(), serving.clone()));
        }
        background.spawn(vitals::listen(hub.clone(), readiness.clone(), clock, serving.clone()));
        background.spawn(vitals.run(broker, hub, readiness.clone(), serving.clone()));
        background.spawn(duties.clone().run(series, serving.clone()));
        background.spawn(projections.run(duties.clone(), serving.clone()));
        background.spawn(cluster.run(serving.clone()));
        background.spawn(drain.clone().run(serving.clone()));
        background.spawn(instances.run(duties, serving.clone()));
        background.spawn(connections::watch_revocations(
            store,
            access,
            connections,
            telemetry.clone(),
            serving.clone(),
        ));
        let options = server::Options {
            max_connections: config.limits.connections.min(room),
            max_per_address: config.limits.connections_per_address,
            max_headers: config.limits.headers,
            trusted_proxies: config.http.trusted_proxies.as_slice().into(),
            proxy_protocol: config.http.proxy_protocol,
            header_timeout: config.http.header_timeout.0,
            idle_timeout: config.http.idle_timeout.0,
            write_timeout: config.http.write_timeout.0,
            drain: drain_time,
        };
        let accept_loop = tokio::spawn(server::serve(
            listener,
            http::front(services.clone()),
            options,
            telemetry,
            tasks.clone(),
            accepting.clone(),
        ));
        Ok(Self {
            address,
            services,
            drain,
            drain_time,
            accepting,
            serving,
            tasks,
            background,
            accept_loop,
        })
    }

    /// The address the hub listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A code that signs a browser in once as admin.
    pub async fn sign_in_code(&self) -> Result<String, AuthError> {
        let role = Role::admin();
        let admin = Principal {
            name: "admin".into(),
            publisher: PublisherName::link("admin"),
            grants: Grants { subscribe: role.subscribe, publish: role.publish },
            admin: role.admin,
            expires: None,
            credential: CredentialId::Hub,
        };
        let code = self.services.access.issue_link(&admin).await?;
        Ok(code.expose_secret().to_owned())
    }

    /// Resolves when somebody has asked this node to end and everybody was sent elsewhere; see [`stop`](Self::stop).
    pub async fn leaving(&self) {
        self.drain.leaving().await;
    }

    /// Ends the hub: nobody new, everybody told when to come back, everything queued stored.
    pub async fn stop(self) {
        self.drain.close();
        self.accepting.cancel();
        if self.accept_loop.await.is_err() {
            tracing::error!("the accept loop had panicked");
        }
        self.drain.dismiss();
        self.tasks.close();
        if tokio::time::timeout(self.drain_time + GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "some connections did not end in time");
        }
        self.serving.cancel();
        self.background.close();
        self.background.wait().await;
        self.services.broker.close().await;
        self.services.cluster.leave().await;
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
    server: redis::Server,
    clock: &Clock,
    telemetry: &Telemetry,
) -> anyhow::Result<(Broker, Store)> {
    let (journal, telemetry) = (config.journal.clone(), telemetry.clone());
    let broker = Broker::join(journal, server.clone(), clock.clone(), telemetry).await?;
    Ok((broker, Store::join(server, clock.clone()).await?))
}
