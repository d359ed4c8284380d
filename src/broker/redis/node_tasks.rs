//! The tasks of a node, and how they end.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::tasks::TaskFailures;

/// The tasks with which a node takes part in the log.
#[derive(Default)]
pub(super) struct NodeTasks {
    /// The writer, which ends by itself when it has stored what is queued.
    writing: TaskTracker,
    /// The queue takes no more.
    closing: CancellationToken,
    /// The others.
    following: TaskTracker,
    stop: CancellationToken,
    failures: TaskFailures,
}

impl NodeTasks {
    /// Begins the writer, which is to end after the token says so.
    pub(super) fn write<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.writing.spawn(self.failures.watch(name, task(self.closing.clone())));
    }

    /// Begins another task, which is to end when the token says so.
    pub(super) fn follow<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.following.spawn(self.failures.watch(name, task(self.stop.clone())));
    }

    /// Those that have failed.
    pub(super) fn failures(&self) -> &TaskFailures {
        &self.failures
    }

    /// Ends them: the writer first, which stores what is queued.
    pub(super) async fn close(&self) {
        self.writing.close();
        self.following.close();
        self.closing.cancel();
        self.writing.wait().await;
        self.stop.cancel();
        self.following.wait().await;
    }
}

impl Drop for NodeTasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
