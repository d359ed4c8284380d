//! The connection to a daemon: one channel, the questions side by side, each with a deadline.

use std::time::Duration;

use tonic::{
    Request, Response, Status, Streaming,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::proto::{
    Execution, ExecutionUpdate, HealthStatus, ListExecutionsRequest, StreamExecutionRequest,
    SystemStats, flext_service_client::FlextServiceClient,
};
use crate::{logging::cause, sources::SourceConfig};

/// A daemon and how it is spoken to. Cheap to clone.
#[derive(Clone)]
pub(super) struct FlextDaemon {
    client: FlextServiceClient<InterceptedService<Channel, Credentials>>,
    timeout: Duration,
}

/// What the daemon said, or for people what went wrong.
pub(super) struct DaemonAnswers {
    pub(super) stats: Result<SystemStats, String>,
    pub(super) health: Result<HealthStatus, String>,
    /// The newest [`LISTED`], newest first.
    pub(super) executions: Result<Vec<Execution>, String>,
}

/// How many executions are asked for.
pub(super) const LISTED: usize = 100;
/// The most bytes of one answer.
pub(super) const MAX_ANSWER: usize = 4 << 20;
/// The most bytes of what an execution says of itself.
const MAX_UPDATE: usize = 256 << 10;
/// The most characters of what went wrong.
const MAX_TROUBLE: usize = 300;
const UNREACHABLE: &str = "the daemon cannot be reached";

impl FlextDaemon {
    /// Connects. When the connection breaks later, the channel makes it anew with the next question.
    pub(super) async fn connect(config: &SourceConfig) -> Result<Self, String> {
        let timeout = config.timeout.0;
        let mut endpoint = Endpoint::from(config.address.uri().clone()).tcp_nodelay(true);
        if config.address.is_secure() {
            let mut tls = ClientTlsConfig::new().with_native_roots();
            if let Some(path) = &config.ca_file {
                let pem = tokio::fs::read(path).await;
                let pem = pem.map_err(|error| format!("`ca_file` cannot be read: {error}"))?;
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls).map_err(|error| cause(&error))?;
        }
        let credentials = Credentials(config.bearer().map_err(|error| error.to_string())?);
        let channel = tokio::time::timeout(timeout, endpoint.connect()).await;
        let channel = channel
            .map_err(|_| format!("no connection within {timeout:?}"))
            .and_then(|connected| connected.map_err(|error| cause(&error)))
            .map_err(|trouble| short(&format!("{UNREACHABLE}: {trouble}")))?;
        let client = FlextServiceClient::with_interceptor(channel, credentials)
            .max_decoding_message_size(MAX_ANSWER);
        Ok(Self { client, timeout })
    }

    /// Asks everything at once.
    pub(super) async fn ask(&self) -> DaemonAnswers {
        let (mut one, mut two, mut three) =
            (self.client.clone(), self.client.clone(), self.client.clone());
        let limit = i32::try_from(LISTED).unwrap_or(i32::MAX);
        let list = ListExecutionsRequest { limit, ..ListExecutionsRequest::default() };
        let (stats, health, list) = tokio::join!(
            self.within("GetSystemStats", one.get_system_stats(self.request(()))),
            self.within("HealthCheck", two.health_check(self.request(()))),
            self.within("ListExecutions", three.list_executions(self.request(list))),
        );
        let executions = list.map(|list| newest(list.executions));
        DaemonAnswers { stats, health, executions }
    }

    /// What comes of a running execution, for as long as it comes.
    pub(super) async fn follow(&self, id: &str) -> Result<Streaming<ExecutionUpdate>, Status> {
        let request = StreamExecutionRequest { execution_id: id.to_owned() };
        let client = self.client.clone();
        let mut client = client.max_decoding_message_size(MAX_UPDATE);
        client.stream_execution(request).await.map(Response::into_inner)
    }

    /// A request with a deadline for the daemon. The deadline is later than our own timeout, because servers and
    /// clients of gRPC enforce it as well: which of three clocks ends first must not decide what is said of a slow
    /// daemon.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout.saturating_mul(2));
        request
    }

    async fn within<T>(
        &self,
        call: &str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, String> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(format!("{call}: {}", explain(&status))),
            Err(_) => Err(format!("{call}: no answer within {:?}", self.timeout)),
        }
    }
}

/// What a daemon answered that was no answer, or what became of the connection.
fn explain(status: &Status) -> String {
    short(&match std::error::Error::source(status) {
        Some(error) => format!("{UNREACHABLE}: {}", cause(error)),
        None => format!("{:?}: {}", status.code(), status.message()),
    })
}

/// As much of it as is told.
fn short(text: &str) -> String {
    text.chars().take(MAX_TROUBLE).collect()
}

impl DaemonAnswers {
    /// Whether there was an answer at all.
    pub(super) fn any(&self) -> bool {
        self.stats.is_ok() || self.health.is_ok() || self.executions.is_ok()
    }
}

/// A daemon may send more than it was asked for, in any order.
fn newest(mut executions: Vec<Execution>) -> Vec<Execution> {
    let began = |execution: &Execution| execution.started_at.map(|at| (at.seconds, at.nanos));
    // What has not begun yet is newest of all.
    executions.sort_by_key(|execution| match began(execution) {
        None => (0, std::cmp::Reverse((0, 0))),
        Some(at) => (1, std::cmp::Reverse(at)),
    });
    executions.truncate(LISTED);
    executions
}

/// Puts the token before every request.
#[derive(Clone)]
struct Credentials(Option<AsciiMetadataValue>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_executions_are_taken_however_many_come() {
        let execution = |id: i64| Execution {
            id: id.to_string(),
            started_at: (id > 0).then_some(prost_types::Timestamp { seconds: id, nanos: 0 }),
            ..Execution::default()
        };
        let taken = newest((0..1000).map(execution).collect());
        assert_eq!(taken.len(), LISTED);
        let ids: Vec<_> = taken.iter().take(3).map(|execution| &*execution.id).collect();
        assert_eq!(ids, ["0", "999", "998"]);
    }
}
