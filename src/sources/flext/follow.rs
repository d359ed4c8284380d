//! Running executions, each followed on a stream of its own.

use std::collections::HashMap;

use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinError, JoinSet},
};
use tonic::{Code, Status};

use super::{daemon::FlextDaemon, proto::ExecutionUpdate};

/// The streams that are open. Dropping it ends them.
pub(super) struct Followed {
    streams: JoinSet<Result<(), Status>>,
    /// Which execution each task follows.
    ids: HashMap<Id, (String, AbortHandle)>,
    sender: mpsc::Sender<(String, ExecutionUpdate)>,
    updates: mpsc::Receiver<(String, ExecutionUpdate)>,
    /// Whether the daemon has such streams at all.
    is_offered: bool,
}

/// The most streams at a time; further executions are seen when the daemon is asked.
const MOST: usize = 16;
/// Updates that wait; when this many do, the daemon has to wait. With one update in each stream, all of them together
/// have at most 6 MiB on the wire.
const WAITING: usize = 8;

impl Default for Followed {
    fn default() -> Self {
        let (sender, updates) = mpsc::channel(WAITING);
        let (streams, ids) = (JoinSet::new(), HashMap::new());
        Self { streams, ids, sender, updates, is_offered: true }
    }
}

impl Followed {
    /// Follows those that are `running`, and no others: a daemon may keep a stream open for ever.
    pub(super) fn follow(&mut self, daemon: &FlextDaemon, running: &[&str]) {
        for (id, task) in self.ids.values() {
            if !running.contains(&&**id) {
                task.abort();
            }
        }
        for id in running {
            if !self.is_offered || self.ids.len() >= MOST {
                return;
            }
            if self.ids.values().all(|(followed, _)| followed != id) {
                let stream = follow_one(daemon.clone(), (*id).to_owned(), self.sender.clone());
                let task = self.streams.spawn(stream);
                self.ids.insert(task.id(), ((*id).to_owned(), task));
            }
        }
    }

    /// The next update of an execution, with its id; None for one that was too large to be taken.
    /// Nothing is lost when the wait is broken off.
    pub(super) async fn next(&mut self) -> Option<(String, ExecutionUpdate)> {
        loop {
            tokio::select! {
                Some(update) = self.updates.recv() => return Some(update),
                Some(ended) = self.streams.join_next_with_id() => {
                    if self.forget(ended) == Some(Code::OutOfRange) {
                        return None;
                    }
                }
                // Nothing is followed: whoever waits will have something else to do.
                else => std::future::pending().await,
            }
        }
    }

    /// An execution that still runs is followed again when the daemon was asked next. Gives why the
    /// stream broke off, if it did.
    fn forget(&mut self, ended: Result<(Id, Result<(), Status>), JoinError>) -> Option<Code> {
        let (task, ended) = match ended {
            Ok((task, ended)) => (task, ended),
            Err(error) => (error.id(), Ok(())),
        };
        let followed = self.ids.remove(&task);
        let (Some((id, _)), Err(status)) = (followed, ended) else { return None };
        tracing::debug!(execution = id, %status, "an execution is not followed any more");
        if status.code() == Code::Unimplemented {
            self.is_offered = false;
        }
        Some(status.code())
    }
}

/// The id is the one that was asked for, whatever the updates say.
async fn follow_one(
    daemon: FlextDaemon,
    id: String,
    sender: mpsc::Sender<(String, ExecutionUpdate)>,
) -> Result<(), Status> {
    let mut stream = daemon.follow(&id).await?;
    // A daemon that sends without end delays nobody: each send uses a part of tokio's budget for a turn, and waits when
    // `WAITING` updates are not read yet. The connection's task uses one part for each read.
    while let Some(update) = stream.message().await? {
        if sender.send((id.clone(), update)).await.is_err() {
            break;
        }
    }
    Ok(())
}
