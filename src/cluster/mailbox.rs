//! How questions and answers go through Redis.
//!
//! Every node reads from a list of its own. A question names the list that the answer is to be written to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::redis::{Cmd, FromRedisValue, Pipeline, aio::MultiplexedConnection, cmd, pipe};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Node, NodeQuestion};
use crate::{
    backoff::Backoff,
    id,
    redis::{Keys, RedisFailure, Server, backoff},
};

/// How a node asks others and answers them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Mailbox {
    server: Server,
    keys: Keys,
    /// The node's id in Redis, and its name for people.
    id: String,
    name: String,
    /// Limits the questions of this node that are under way.
    room: Arc<Semaphore>,
}

/// Another node.
struct Other {
    /// Its name for people.
    name: String,
    /// Whether its answer is worth waiting for.
    is_prompt: bool,
}

/// What the other nodes answered.
#[derive(Default)]
pub(super) struct Replies {
    pub(super) answers: Vec<(String, Value)>,
    pub(super) missing: Vec<String>,
}

#[derive(Serialize)]
struct Letter<'a> {
    reply: &'a str,
    question: &'a NodeQuestion,
}

#[derive(Deserialize)]
struct Received {
    reply: String,
    question: NodeQuestion,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    node: String,
    answer: Value,
}

/// In milliseconds. Each node says hello once a second. A node whose last hello is this much older than the newest has
/// died or hangs: it gets the question, but nobody waits for its answer.
const LATE: f64 = 3_000.0;
/// How long the other nodes may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many seconds questions and answers are kept if nobody reads them.
const KEPT: u64 = 10;
/// How many seconds a name is kept: longer than a node is listed after its last hello.
const NAMED: u64 = 60;
/// The most questions that wait in one mailbox; the oldest are discarded first.
const LETTERS: isize = 32;
/// Questions of this node that are under way at a time, each with a connection of its own.
const ASKING: usize = 8;

impl Mailbox {
    pub(super) fn new(server: Server, id: String, name: String) -> Self {
        let keys = Keys::new(&server.config().prefix);
        Self { server, keys, id, name, room: Arc::new(Semaphore::new(ASKING)) }
    }

    /// Asks all other nodes, or the one called `name`.
    pub(super) async fn ask(
        &self,
        question: &NodeQuestion,
        name: Option<&str>,
    ) -> Result<Replies, RedisFailure> {
        let _room = timeout(PATIENCE, self.room.acquire())
            .await
            .map_err(|_| unreachable("too many questions are under way"))?
            .map_err(unreachable)?;
        let mut connection = self.server.connect(PATIENCE).await.map_err(unreachable)?;
        let mut waiting = self.others(&mut connection).await?;
        waiting.retain(|_, other| name.is_none_or(|name| name == other.name));
        if waiting.is_empty() {
            return Ok(Replies::default());
        }
        let reply = self.keys.of(&format!("reply:{}", id::short().map_err(unreachable)?));
        let letter = json(&Letter { reply: &reply, question })?;
        let mut letters = pipe();
        for node in waiting.keys() {
            let mailbox = self.mailbox(node);
            letters.cmd("RPUSH").arg(&mailbox).arg(&letter).ignore();
            letters.cmd("LTRIM").arg(&mailbox).arg(-LETTERS).arg(-1).ignore();
            letters.cmd("EXPIRE").arg(&mailbox).arg(KEPT).ignore();
        }
        send_all(&mut connection, &letters).await?;
        let mut answers = Vec::new();
        let gather = async {
            while waiting.values().any(|other| other.is_prompt) {
                let Some(text) = take(&mut connection, &reply).await? else { break };
                match serde_json::from_str::<Reply>(&text) {
                    Ok(Reply { node, answer }) => {
                        answers.extend(waiting.remove(&node).map(|other| (other.name, answer)));
                    }
                    // The reply lists that node as missing.
                    Err(error) => tracing::warn!(%error, "an answer of another node is unreadable"),
                }
            }
            Ok(())
        };
        // One deadline for each answer and for all of them together.
        match timeout(PATIENCE, gather).await {
            Ok(gathered) => gathered?,
            Err(_) => tracing::debug!(missing = waiting.len(), "some nodes did not answer"),
        }
        let missing = waiting.into_values().map(|other| other.name).collect();
        Ok(Replies { answers, missing })
    }

    /// All other nodes that said hello lately, by their ids in Redis.
    async fn others(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<BTreeMap<String, Other>, RedisFailure> {
        let mut list = cmd("ZRANGE");
        list.arg(self.keys.of("nodes")).arg(0).arg(-1).arg("WITHSCORES");
        // In the order of their hellos.
        let mut nodes: Vec<(String, f64)> = send(connection, &list).await?;
        let newest = nodes.last().map_or(0.0, |(_, hello)| *hello);
        nodes.retain(|(id, _)| *id != self.id);
        if nodes.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut get = cmd("MGET");
        nodes.iter().for_each(|(id, _)| {
            get.arg(self.name_key(id));
        });
        let names: Vec<Option<String>> = send(connection, &get).await?;
        let named = nodes.into_iter().zip(names).map(|((id, hello), name)| {
            // A node that has not read its mailbox yet has no name.
            let name = name.unwrap_or_else(|| id.clone());
            (id, Other { name, is_prompt: newest - hello < LATE })
        });
        Ok(named.collect())
    }

    /// Answers others until `stop`.
    pub(super) async fn serve(&self, own: &Node, stop: CancellationToken) {
        let mut backoff = backoff();
        loop {
            let failure = tokio::select! {
                () = stop.cancelled() => return,
                failure = self.attend(own, &mut backoff) => failure,
            };
            // The log's tail logs that Redis is away.
            tracing::debug!(%failure, "this node cannot be asked; trying again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.failed()) => {}
            }
        }
    }

    /// Serves over one connection until it fails.
    async fn attend(&self, own: &Node, backoff: &mut Backoff) -> RedisFailure {
        let mut connection = match self.server.connect(PATIENCE).await {
            Ok(connection) => connection,
            Err(error) => return unreachable(error),
        };
        loop {
            match self.turn(&mut connection, own).await {
                Ok(()) => {
                    backoff.worked();
                }
                Err(failure) => return failure,
            }
        }
    }

    /// Writes this node's name, and answers one question if there is one.
    async fn turn(
        &self,
        connection: &mut MultiplexedConnection,
        own: &Node,
    ) -> Result<(), RedisFailure> {
        let mut name = cmd("SET");
        name.arg(self.name_key(&self.id)).arg(&self.name).arg("EX").arg(NAMED);
        send::<()>(connection, &name).await?;
        let Some(letter) = take(connection, &self.mailbox(&self.id)).await? else { return Ok(()) };
        let Received { reply, question } = match serde_json::from_str(&letter) {
            Ok(received) => received,
            Err(error) => {
                // Perhaps from a newer version: the node that asked sees that we do not answer.
                tracing::warn!(%error, "another node asks what this one does not understand");
                return Ok(());
            }
        };
        let answer = own.answer(question).await;
        let text = json(&Reply { node: self.id.clone(), answer })?;
        let mut give = pipe();
        give.cmd("RPUSH").arg(&reply).arg(text).ignore();
        give.cmd("EXPIRE").arg(&reply).arg(KEPT).ignore();
        send_all(connection, &give).await
    }

    /// Removes this node from the list.
    pub(super) async fn leave(&self) -> Result<(), RedisFailure> {
        let mut connection = self.server.connect(Duration::ZERO).await.map_err(unreachable)?;
        let mut leave = pipe();
        leave.cmd("ZREM").arg(self.keys.of("nodes")).arg(&self.id).ignore();
        leave.cmd("DEL").arg(self.mailbox(&self.id)).arg(self.name_key(&self.id)).ignore();
        send_all(&mut connection, &leave).await
    }

    fn mailbox(&self, node: &str) -> String {
        self.keys.of(&format!("ask:{node}"))
    }

    fn name_key(&self, node: &str) -> String {
        self.keys.of(&format!("name:{node}"))
    }
}

/// The first element of a list, or the one that comes within `PATIENCE`.
async fn take(
    connection: &mut MultiplexedConnection,
    list: &str,
) -> Result<Option<String>, RedisFailure> {
    let mut wait = cmd("BLPOP");
    wait.arg(list).arg(PATIENCE.as_secs_f64());
    let taken: Option<(String, String)> = send(connection, &wait).await?;
    Ok(taken.map(|(_, text)| text))
}

async fn send<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<T, RedisFailure> {
    command.query_async(connection).await.map_err(|error| RedisFailure::of(&error))
}

async fn send_all(
    connection: &mut MultiplexedConnection,
    commands: &Pipeline,
) -> Result<(), RedisFailure> {
    commands.query_async(connection).await.map_err(|error| RedisFailure::of(&error))
}

fn json(value: &impl Serialize) -> Result<String, RedisFailure> {
    serde_json::to_string(value).map_err(unreachable)
}

fn unreachable(error: impl std::fmt::Display) -> RedisFailure {
    RedisFailure::Unreachable(error.to_string())
}
