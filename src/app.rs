//! The hub as a whole: builds every subsystem from its own settings, owns every task, and ends
//! them in the order that loses nothing.

mod background;
mod base;
mod makers;
mod warnings;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{background::Background, base::Base, makers::Makers, warnings::MachineFacts};
use crate::{
    admission::Admission,
    auth::{AuthError, CredentialId, Principal, Role},
    broker::Broker,
    cluster::{Cluster, Node},
    config::Config,
    connections, demo, descriptors,
    drain::Drain,
    event::PublisherName,
    grants::Grants,
    http::{self, Budgets, HttpSettings, QueryLimit, Services, server},
    session::Terms,
    time::Clock,
    vitals::{self, Host, Vitals},
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
    /// Connections and their sockets.
    tasks: TaskTracker,
    /// What serves those who are still there.
    background: Background,
    accept_loop: JoinHandle<()>,
}

/// What of the settings weakens a hub, and of this machine as well if that is wanted: what it warns of when it starts,
/// each a sentence.
pub fn weaknesses(config: &Config, with_machine: bool) -> Vec<String> {
    let machine = if with_machine {
        MachineFacts::look(descriptors::room_now())
    } else {
        MachineFacts::default()
    };
    let mut weaknesses = machine.warnings(config, config.listen);
    weaknesses.extend(warnings::idle_variables(|name| std::env::var_os(name)));
    weaknesses
}

impl App {
    /// Starts a hub that serves `listener`; it is ready when this returns.
    pub async fn start(
        config: Config,
        listener: TcpListener,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("cannot tell the address listened on")?;
        let base = Base::open(&config, clock).await?;
        let plan = config.plan()?;
        let admission = Admission::new(config.own_topics(&plan)?, (&config.limits).into());
        let drain_time = config.http.drain.0;
        let drain = Drain::new(base.connections.clone(), base.readiness.clone(), drain_time);
        let (name, cluster) = join(&config, address, &base, &drain)?;
        let makers = Makers::new(&config, plan, &base).await?;
        let most_files = descriptors::raise();
        let warnings = MachineFacts::look(most_files).warnings(&config, address);
        let idle = warnings::idle_variables(|name| std::env::var_os(name));
        for warning in warnings.iter().chain(&idle) {
            tracing::warn!("{warning}");
        }
        let tasks = TaskTracker::new();
        let services = Arc::new(Services {
            broker: base.broker.clone(),
            series: makers.series.clone(),
            hub: base.hub.clone(),
            access: base.access.clone(),
            instances: makers.instances.clone(),
            telemetry: base.telemetry.clone(),
            clock: base.clock.clone(),
            readiness: base.readiness.clone(),
            attempts: http::Attempts::default(),
            query_limit: QueryLimit::new(config.limits.questions, base.telemetry.clone()),
            budgets: Budgets::new(&config.limits, &base.telemetry),
            settings: HttpSettings {
                http: config.http.clone(),
                limits: config.limits,
                ingest: config.ingest.clone(),
                query_token: config.auth.query_token,
                wrong_sign_ins: config.auth.wrong_sign_ins,
                is_loopback: address.ip().is_loopback(),
                warnings,
                is_demo: matches!(base.broker, Broker::Journal(_)) && demo::is_marked(&config.data),
            },
            terms: Arc::new(Terms {
                config: config.socket,
                limits: config.limits,
                telemetry: base.telemetry.clone(),
                admission,
                connections: base.connections.clone(),
            }),
            projections: makers.projections.clone(),
            cluster: cluster.clone(),
            tasks: tasks.clone(),
        });
        // Before anybody can send its clients elsewhere, which takes it back.
        base.readiness.accept(true);
        let background = Background::new(base.readiness.failures().clone());
        background.run("dispatch", |stop| base.hub.clone().run(stop));
        background.run("cluster", |stop| cluster.run(stop));
        background.run("drain", |stop| drain.clone().run(stop));
        tell_vitals(&config, &name, &base, &background)?;
        makers.run(&config, &base, &background);
        let (store, access) = (base.store, base.access);
        let (connections, telemetry) = (base.connections, base.telemetry.clone());
        background.run("revocations", |stop| {
            connections::watch_revocations(store, access, connections, telemetry, stop)
        });
        let most_files = most_files.and_then(|most| usize::try_from(most).ok());
        let options = server::Options {
            max_connections: config.limits.connections.min(most_files.unwrap_or(usize::MAX)),
            max_per_address: config.limits.connections_per_address,
            max_headers: config.limits.headers,
            trusted_proxies: config.http.trusted_proxies.as_slice().into(),
            proxy_protocol: config.http.proxy_protocol,
            header_timeout: config.http.header_timeout.0,
            idle_timeout: config.http.idle_timeout.0,
            write_timeout: config.http.write_timeout.0,
            drain: drain_time,
        };
        let accepting = CancellationToken::new();
        let answers = http::front(services.clone());
        let (telemetry, stop) = (base.telemetry, accepting.clone());
        let serving = server::serve(listener, answers, options, telemetry, tasks.clone(), stop);
        let failures = base.readiness.failures();
        let accept_loop = tokio::spawn(failures.watch("the accept loop", serving));
        Ok(Self { address, services, drain, drain_time, accepting, tasks, background, accept_loop })
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

    /// Ends the hub: it accepts no new connections, tells clients when to come back, and stores what is queued.
    pub async fn stop(self) {
        self.drain.close();
        self.accepting.cancel();
        // If it failed, that was said.
        let _ = self.accept_loop.await;
        self.drain.dismiss();
        self.tasks.close();
        if tokio::time::timeout(self.drain_time + GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "some connections did not end in time");
        }
        self.background.stop().await;
        self.services.broker.close().await;
        self.services.cluster.leave().await;
    }
}

/// What this node is called, and the cluster it joins: its own, where it shares nothing.
fn join(
    config: &Config,
    address: SocketAddr,
    base: &Base,
    drain: &Drain,
) -> anyhow::Result<(String, Cluster)> {
    let name = vitals::node_name();
    let node = |name: &str| {
        let name = name.to_owned();
        Node::new(name, base.connections.clone(), base.hub.clone(), drain.clone())
    };
    Ok(match (&base.broker, config.redis()?) {
        (Broker::Redis(redis), Some(server)) => {
            let name = format!("{name}:{}", address.port()); // several may run on one host
            let cluster = Cluster::join(node(&name), server, redis.node().to_owned());
            (name, cluster)
        }
        _ => (name.clone(), Cluster::alone(node(&name))),
    })
}

/// Begins what the hub says of itself, and hears whether it comes through.
fn tell_vitals(
    config: &Config,
    name: &str,
    base: &Base,
    background: &Background,
) -> anyhow::Result<()> {
    let (broker, hub) = (&base.broker, &base.hub);
    let (readiness, clock) = (&base.readiness, &base.clock);
    let vitals = Vitals::new(name, base.telemetry.clone(), clock.clone())?;
    background.run("readiness", |stop| {
        vitals::listen(hub.clone(), readiness.clone(), clock.clone(), stop)
    });
    background
        .run("vitals", |stop| vitals.run(broker.clone(), hub.clone(), readiness.clone(), stop));
    if config.host.publish {
        let host = Host::new(config.host, name, &config.data, clock.clone())?;
        background.run("host", |stop| host.run(broker.clone(), stop));
    }
    Ok(())
}
