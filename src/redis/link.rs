//! One connection that comes back: made when it is needed, dropped when it fails.

use std::time::{Duration, Instant};

use ::redis::{
    Cmd, FromRedisValue, Pipeline, RedisError, ScriptInvocation, aio::MultiplexedConnection,
};
use tokio::sync::Mutex;

use super::Server;
use crate::backoff::Backoff;

/// Why Redis did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisFailure {
    /// It was not asked: there is no connection.
    #[error("Redis cannot be reached: {0}")]
    Unreachable(String),
    /// It was asked and did not answer: it may have done it, or may do it yet.
    #[error("Redis did not answer: {0}")]
    Unanswered(String),
    /// It answered that it does not do it.
    #[error("Redis refused: {0}")]
    Refused(String),
}

/// A connection for commands, shared by those who send them.
pub struct Link {
    server: Server,
    state: Mutex<LinkState>,
}

struct LinkState {
    connection: Option<MultiplexedConnection>,
    /// Tells connections apart: one that failed must not take its successor along.
    number: u64,
    /// After a failed attempt: why, and when the next may be made.
    failed: Option<(String, Instant)>,
    backoff: Backoff,
}

/// The connection that a script ran on.
pub struct RanOn {
    number: u64,
    connection: MultiplexedConnection,
}

/// Answers of Redis that go with the connection: another server may be the right one.
const WRONG_SERVER: [&str; 4] = ["READONLY", "MASTERDOWN", "LOADING", "NOAUTH"];

impl Link {
    /// A link that connects at its first use.
    pub fn new(server: Server) -> Self {
        let state = LinkState { connection: None, number: 0, failed: None, backoff: backoff() };
        Self { server, state: Mutex::new(state) }
    }

    /// Sends a command that does no harm when it is done twice.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        let (number, mut connection) = self.connection().await?;
        let mut answer = command.query_async(&mut connection).await;
        if let Some((number, mut connection)) = self.again(number, &answer).await? {
            answer = command.query_async(&mut connection).await;
            return self.judge(number, answer).await;
        }
        self.judge(number, answer).await
    }

    /// Sends several commands at once that do no harm when they are done twice.
    pub async fn run_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisFailure> {
        let (number, mut connection) = self.connection().await?;
        let mut answer = commands.query_async(&mut connection).await;
        if let Some((number, mut connection)) = self.again(number, &answer).await? {
            answer = commands.query_async(&mut connection).await;
            return self.judge(number, answer).await;
        }
        self.judge(number, answer).await
    }

    /// Another connection if this one turned out to be broken, which only its use can tell.
    async fn again<T>(
        &self,
        number: u64,
        answer: &Result<T, RedisError>,
    ) -> Result<Option<(u64, MultiplexedConnection)>, RedisFailure> {
        if !answer.as_ref().is_err_and(RedisError::is_connection_dropped) {
            return Ok(None);
        }
        self.drop_number(number).await;
        self.connection().await.map(Some)
    }

    /// Runs a script.
    pub async fn script<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        self.script_on(script).await.map(|(answer, _)| answer)
    }

    /// Runs a script; gives its answer, and where it ran.
    pub async fn script_on<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<(T, RanOn), RedisFailure> {
        let (number, mut connection) = self.connection().await?;
        let answer = script.invoke_async(&mut connection).await;
        Ok((self.judge(number, answer).await?, RanOn { number, connection }))
    }

    /// Waits until as many replicas as are wanted have everything that was written before a script ended. Asked on any
    /// other connection, Redis would speak of what was written before that one's last command: of nothing, if it is new.
    pub async fn replicated(&self, ran_on: RanOn, patience: Duration) -> Result<(), RedisFailure> {
        let wanted = self.server.config().replicas;
        if wanted == 0 {
            return Ok(());
        }
        let RanOn { number, mut connection } = ran_on;
        let mut wait = ::redis::cmd("WAIT");
        // Zero would be for ever.
        wait.arg(wanted).arg(patience.as_millis().max(1) as u64);
        let reached = wait.query_async(&mut connection).await;
        // It was written before: a master that became a replica meanwhile refuses to wait, and may have handed it on.
        let reached: u32 = self.judge(number, reached).await.map_err(|failure| match failure {
            RedisFailure::Refused(why) => RedisFailure::Unanswered(why),
            other => other,
        })?;
        if reached < wanted {
            let message = format!("{reached} of {wanted} replicas have what was written");
            return Err(RedisFailure::Unanswered(message));
        }
        Ok(())
    }

    /// How long Redis may take for an answer.
    pub fn timeout(&self) -> Duration {
        self.server.config().timeout.0
    }

    /// Drops the connection, with whatever it still owes; the next use makes a new one.
    pub async fn forget(&self) {
        self.state.lock().await.connection = None;
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisFailure> {
        // Held while connecting, so that all who wait share the one attempt.
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((state.number, connection.clone()));
        }
        if let Some((reason, until)) = &state.failed
            && Instant::now() < *until
        {
            return Err(RedisFailure::Unreachable(reason.clone()));
        }
        match self.server.connect(Duration::ZERO).await {
            Ok(connection) => {
                state.number += 1;
                state.connection = Some(connection.clone());
                state.failed = None;
                state.backoff.worked();
                Ok((state.number, connection))
            }
            Err(error) => {
                let reason = error.to_string();
                state.failed = Some((reason.clone(), Instant::now() + state.backoff.failed()));
                Err(RedisFailure::Unreachable(reason))
            }
        }
    }

    async fn judge<T>(
        &self,
        number: u64,
        answer: Result<T, RedisError>,
    ) -> Result<T, RedisFailure> {
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let failure = RedisFailure::of(&error);
        let is_refusal = matches!(failure, RedisFailure::Refused(_));
        if !is_refusal || error.code().is_some_and(|code| WRONG_SERVER.contains(&code)) {
            self.drop_number(number).await;
        }
        Err(failure)
    }

    async fn drop_number(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.number == number {
            state.connection = None;
        }
    }
}

impl RedisFailure {
    /// What an error means for what was asked.
    pub fn of(error: &RedisError) -> Self {
        let text = error.to_string();
        if error.code().is_some() { Self::Refused(text) } else { Self::Unanswered(text) }
    }
}

/// The pauses between attempts to reach Redis; nodes shall not come all at once.
pub const fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(1)).spread()
}
