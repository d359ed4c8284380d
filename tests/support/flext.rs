//! A FLEXT daemon that speaks real gRPC, says what the test wants, and can be killed and started again.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use pulsehub::sources::flext_proto::{
    Execution, ExecutionUpdate, HealthStatus, ListExecutionsRequest, ListExecutionsResponse,
    StreamExecutionRequest, SystemStats,
    flext_service_server::{FlextService, FlextServiceServer},
};
use tokio::{runtime::Runtime, sync::broadcast};
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

/// A daemon on a port of its own; killed when dropped.
pub(crate) struct FakeDaemon {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    running: Option<Runtime>,
    /// Its certificate and key, if it speaks TLS.
    identity: Option<(String, String)>,
}

/// What the daemon shows, and what it has seen.
pub(crate) struct State {
    pub(crate) stats: SystemStats,
    pub(crate) health: HealthStatus,
    pub(crate) executions: Vec<Execution>,
    pub(crate) mood: Mood,
    /// How often the statistics were asked for.
    pub(crate) asked: u64,
    pub(crate) askers: BTreeSet<SocketAddr>,
    pub(crate) authorization: Option<String>,
    /// Who follows an execution gets what is sent here.
    pub(crate) updates: broadcast::Sender<ExecutionUpdate>,
    pub(crate) followed: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// It answers after a minute.
    Slow,
    Failing,
    /// Nothing but the list of executions fails.
    Forgetful,
    /// Its list of executions has 5 MiB.
    Talkative,
}

impl FakeDaemon {
    pub(crate) fn start() -> Self {
        Self::with(None)
    }

    /// A daemon that speaks TLS, with a certificate of its own making.
    pub(crate) fn start_with_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        Self::with(Some((made.cert.pem(), made.signing_key.serialize_pem())))
    }

    fn with(identity: Option<(String, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stats = SystemStats {
            active_pipelines: 3,
            total_executions: 1200,
            success_rate: 98.5,
            cpu_usage: 41.5,
            ..SystemStats::default()
        };
        let state = State {
            stats,
            health: HealthStatus { healthy: true, ..HealthStatus::default() },
            executions: Vec::new(),
            mood: Mood::Well,
            asked: 0,
            askers: BTreeSet::new(),
            authorization: None,
            updates: broadcast::channel(64).0,
            followed: Vec::new(),
        };
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(state));
        let mut daemon = Self { address, state, running: None, identity };
        daemon.serve(listener);
        daemon
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.identity.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate of one that speaks TLS, in PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.identity.as_ref().unwrap().0
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Ends it in the middle of whatever it does, with all its connections.
    pub(crate) fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown_background();
        }
    }

    pub(crate) async fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs");
        // The port is free when the old listener is gone, which is soon.
        let bind = async || TcpListener::bind(self.address).ok();
        let listener = super::eventually("the daemon's port", bind).await;
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        // On a runtime of its own, whose end is the end of every connection.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        let service = FlextServiceServer::new(Service(Arc::clone(&self.state)));
        let mut server = Server::builder();
        if let Some((certificate, key)) = &self.identity {
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            server = server.tls_config(tls).unwrap();
        }
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            server.add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        self.running = Some(runtime);
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Service(Arc<Mutex<State>>);

impl Service {
    /// Its mood, after it has kept whoever asks waiting as long as that says.
    async fn mood(&self) -> Result<Mood, Status> {
        let mood = self.0.lock().unwrap().mood;
        match mood {
            Mood::Slow => tokio::time::sleep(Duration::from_secs(60)).await,
            Mood::Failing => return Err(Status::internal("boom")),
            Mood::Well | Mood::Forgetful | Mood::Talkative => {}
        }
        Ok(mood)
    }
}

#[tonic::async_trait]
impl FlextService for Service {
    async fn get_system_stats(
        &self,
        request: Request<()>,
    ) -> Result<Response<SystemStats>, Status> {
        {
            let mut state = self.0.lock().unwrap();
            state.asked += 1;
            state.askers.extend(request.remote_addr());
            let authorization = request.metadata().get("authorization");
            state.authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        }
        self.mood().await?;
        let state = self.0.lock().unwrap();
        // Like any daemon's, its uptime grows.
        let uptime_seconds = i64::try_from(state.asked).unwrap();
        Ok(Response::new(SystemStats { uptime_seconds, ..state.stats }))
    }

    async fn health_check(&self, _: Request<()>) -> Result<Response<HealthStatus>, Status> {
        self.mood().await?;
        Ok(Response::new(self.0.lock().unwrap().health.clone()))
    }

    async fn list_executions(
        &self,
        request: Request<ListExecutionsRequest>,
    ) -> Result<Response<ListExecutionsResponse>, Status> {
        let mut executions = self.0.lock().unwrap().executions.clone();
        match self.mood().await? {
            Mood::Forgetful => return Err(Status::unavailable("no database")),
            Mood::Talkative => {
                let error_message = "x".repeat(5 << 20);
                executions.push(Execution { error_message, ..Execution::default() });
            }
            _ => executions.truncate(usize::try_from(request.into_inner().limit).unwrap()),
        }
        Ok(Response::new(ListExecutionsResponse { executions, ..Default::default() }))
    }

    type StreamExecutionStream =
        Pin<Box<dyn Stream<Item = Result<ExecutionUpdate, Status>> + Send>>;

    async fn stream_execution(
        &self,
        request: Request<StreamExecutionRequest>,
    ) -> Result<Response<Self::StreamExecutionStream>, Status> {
        let id = request.into_inner().execution_id;
        let mut state = self.0.lock().unwrap();
        state.followed.push(id.clone());
        let updates = state.updates.subscribe();
        let stream = futures_util::stream::unfold(updates, |mut updates| async {
            let update: ExecutionUpdate = updates.recv().await.ok()?;
            Some((update, updates))
        });
        let is_ours = move |update: &ExecutionUpdate| std::future::ready(update.execution_id == id);
        let stream = stream.filter(is_ours).map(Ok);
        Ok(Response::new(Box::pin(stream)))
    }
}
