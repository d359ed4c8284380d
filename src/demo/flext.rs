//! A FLEXT daemon that speaks real gRPC: its pipelines run, take time, fail, and can be followed. In the middle of an
//! incident it does not answer.

mod pipelines;

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use self::pipelines::Pipelines;
use super::{Day, chance::Chance, day::TimeOfDay};
use crate::{
    sources::flext_proto::{
        ExecutionUpdate, HealthStatus, ListExecutionsRequest, ListExecutionsResponse,
        StreamExecutionRequest, SystemStats,
        flext_service_server::{FlextService, FlextServiceServer},
    },
    time::Clock,
};

/// What its source is called in the settings.
pub const NAME: &str = "demo-flext";

/// A daemon that waits to be served.
pub struct DemoDaemon {
    listener: TcpListener,
    address: SocketAddr,
}

impl DemoDaemon {
    /// A daemon on a free port that only this machine can reach.
    pub async fn bind() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it is, as a source's `address`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers until `stop`.
    pub async fn run(self, day: Day, clock: Clock, stop: CancellationToken) {
        let pipelines = Mutex::new(Pipelines::new(Chance::new(day.seed(), 4), clock));
        let service = FlextServiceServer::new(Service(Arc::new(FlextState { day, pipelines })));
        let served = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(self.listener));
        tokio::select! {
            () = stop.cancelled() => {}
            served = served => if let Err(error) = served {
                tracing::warn!(%error, "the synthetic FLEXT daemon ended");
            }
        }
    }
}

#[derive(Clone)]
struct Service(Arc<FlextState>);

struct FlextState {
    day: Day,
    pipelines: Mutex<Pipelines>,
}

/// From here on it is too bad to answer.
const TOO_BAD: f64 = 0.6;
/// Between two updates of an execution that is followed.
const UPDATE: Duration = Duration::from_secs(1);

impl Service {
    /// What it tells now, of pipelines that have gone on until now.
    fn tell<T>(&self, tell: impl FnOnce(&mut Pipelines, TimeOfDay) -> T) -> Result<T, Status> {
        let moment = self.0.day.now();
        if moment.incident > TOO_BAD {
            return Err(Status::unavailable("the scheduler's database is away"));
        }
        let mut pipelines = self.0.pipelines.lock();
        pipelines.go_on(moment);
        Ok(tell(&mut pipelines, moment))
    }
}

type Updates = Pin<Box<dyn Stream<Item = Result<ExecutionUpdate, Status>> + Send>>;

#[tonic::async_trait]
impl FlextService for Service {
    async fn get_system_stats(&self, _: Request<()>) -> Result<Response<SystemStats>, Status> {
        self.tell(Pipelines::stats).map(Response::new)
    }

    async fn health_check(&self, _: Request<()>) -> Result<Response<HealthStatus>, Status> {
        self.tell(|pipelines, moment| pipelines.health(moment)).map(Response::new)
    }

    async fn list_executions(
        &self,
        request: Request<ListExecutionsRequest>,
    ) -> Result<Response<ListExecutionsResponse>, Status> {
        let limit = usize::try_from(request.into_inner().limit).unwrap_or(0);
        let executions = self.tell(|pipelines, _| pipelines.newest(limit))?;
        Ok(Response::new(ListExecutionsResponse { executions, ..Default::default() }))
    }

    type StreamExecutionStream = Updates;

    async fn stream_execution(
        &self,
        request: Request<StreamExecutionRequest>,
    ) -> Result<Response<Updates>, Status> {
        let id = request.into_inner().execution_id;
        let followed = (self.clone(), id, false);
        let updates = futures_util::stream::unfold(followed, async |(service, id, is_over)| {
            if is_over {
                return None;
            }
            tokio::time::sleep(UPDATE).await;
            let update = match service.tell(|pipelines, moment| pipelines.update(&id, moment)) {
                Ok(update) => update?,
                Err(status) => return Some((Err(status), (service, id, true))),
            };
            let is_over = update.r#type == "complete";
            Some((Ok(update), (service, id, is_over)))
        });
        Ok(Response::new(Box::pin(updates)))
    }
}
