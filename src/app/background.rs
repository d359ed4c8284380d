//! The tasks behind the connections, each with a name: one that fails is told of, and none outlives the hub.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[derive(Default)]
pub(super) struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Background {
    /// Begins a task, which ends by itself once the token given to `task` is cancelled.
    pub(super) fn run<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = tokio::spawn(task(self.stop.clone()));
        self.tasks.spawn(async move {
            if let Err(error) = running.await {
                tracing::error!(task = name, %error, "a task of the hub has failed");
            }
        });
    }

    /// Ends all of them.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
