//! What one node asks all others: who is connected to each.
//!
//! Every node waits at a list of its own in Redis; who asks leaves there where the answer goes.

use std::{collections::BTreeSet, time::Duration};

use ::redis::{aio::MultiplexedConnection, cmd, pipe};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    hub::Hub,
    id,
    redis::{Failure, Keys, Server, pause},
    session::Connections,
};

/// One node among others. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    server: Server,
    keys: Keys,
    /// What Redis calls this node, and what people do.
    node: String,
    name: String,
    connections: Connections,
    hub: Hub,
}

/// Who is connected to all nodes.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// One object for each connection, with the name of its `node`.
    pub connections: Vec<Value>,
    /// How many nodes did not answer in time.
    pub missing: usize,
}

/// How long others may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long questions and answers are kept for who never comes to get them.
const KEPT: u64 = 10;

impl Cluster {
    /// The node that Redis calls `node` and people `name`.
    pub fn new(
        server: Server,
        node: String,
        name: String,
        connections: Connections,
        hub: Hub,
    ) -> Self {
        let keys = Keys::new(&server.config().prefix);
        Self { server, keys, node, name, connections, hub }
    }

    /// Who is connected to which node.
    pub async fn ask(&self) -> Result<Answers, Failure> {
        let reply = self.keys.of(&format!("reply:{}", id::short().map_err(unreachable)?));
        let mut connection = self.connect().await?;
        let nodes: BTreeSet<String> = self
            .send(&mut connection, cmd("ZRANGE").arg(self.keys.of("nodes")).arg(0).arg(-1))
            .await?;
        let others: Vec<&String> = nodes.iter().filter(|node| **node != self.node).collect();
        let mut questions = pipe();
        for node in &others {
            let desk = self.desk(node);
            questions.cmd("RPUSH").arg(&desk).arg(&reply).ignore();
            questions.cmd("EXPIRE").arg(&desk).arg(KEPT).ignore();
        }
        questions.query_async::<()>(&mut connection).await.map_err(|error| Failure::of(&error))?;
        let mut answers = Answers { connections: self.own(), missing: others.len() };
        let gather = async {
            while answers.missing > 0 {
                let mut wait = cmd("BLPOP");
                wait.arg(&reply).arg(PATIENCE.as_secs_f64());
                let answer: Option<(String, String)> = self.send(&mut connection, &wait).await?;
                let Some((_, answer)) = answer else { break };
                match serde_json::from_str::<Vec<Value>>(&answer) {
                    Ok(found) => {
                        answers.connections.extend(found);
                        answers.missing -= 1;
                    }
                    // That node stays missing, which the answer tells.
                    Err(error) => tracing::warn!(%error, "a node's connections cannot be read"),
                }
            }
            Ok(())
        };
        // Each answer may take its time, all together as well.
        match tokio::time::timeout(PATIENCE, gather).await {
            Ok(gathered) => gathered?,
            Err(_) => tracing::debug!(missing = answers.missing, "some nodes did not answer"),
        }
        Ok(answers)
    }

    /// Answers others until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let failure = tokio::select! {
                () = stop.cancelled() => return,
                failure = self.serve(&mut failures) => failure,
            };
            // That Redis is gone is said by the log's tail.
            tracing::debug!(%failure, "this node cannot be asked; trying again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause(failures)) => {}
            }
            failures = failures.saturating_add(1);
        }
    }

    async fn serve(&self, failures: &mut u32) -> Failure {
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
            Err(failure) => return failure,
        };
        loop {
            let mut wait = cmd("BLPOP");
            wait.arg(self.desk(&self.node)).arg(PATIENCE.as_secs_f64());
            let asked: Option<(String, String)> = match self.send(&mut connection, &wait).await {
                Ok(asked) => asked,
                Err(failure) => return failure,
            };
            *failures = 0;
            let Some((_, reply)) = asked else { continue };
            let mut answer = pipe();
            answer.cmd("RPUSH").arg(&reply).arg(Value::Array(self.own()).to_string()).ignore();
            answer.cmd("EXPIRE").arg(&reply).arg(KEPT).ignore();
            if let Err(error) = answer.query_async::<()>(&mut connection).await {
                return Failure::of(&error);
            }
        }
    }

    fn own(&self) -> Vec<Value> {
        let list = self.connections.list(self.hub.head().offset);
        let named = list.iter().map(|connection| {
            // Only maps with keys that are no strings cannot be written, and there is none.
            let mut value = serde_json::to_value(connection).unwrap_or_default();
            value["node"] = json!(self.name);
            value
        });
        named.collect()
    }

    fn desk(&self, node: &str) -> String {
        self.keys.of(&format!("ask:{node}"))
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Failure> {
        self.server.connect(PATIENCE).await.map_err(unreachable)
    }

    async fn send<T: ::redis::FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        command: &::redis::Cmd,
    ) -> Result<T, Failure> {
        command.query_async(connection).await.map_err(|error| Failure::of(&error))
    }
}

fn unreachable(error: impl std::fmt::Display) -> Failure {
    Failure::Unreachable(error.to_string())
}
