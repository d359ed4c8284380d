//! The background tasks, each with a name. They all end before the hub does.

use std::borrow::Cow;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::tasks::TaskFailures;

pub(super) struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
    failures: TaskFailures,
}

impl Background {
    /// Tasks that tell `failures` if one fails.
    pub(super) fn new(failures: TaskFailures) -> Self {
        Self { tasks: TaskTracker::new(), stop: CancellationToken::new(), failures }
    }

    /// Begins a task, which ends by itself once the token given to `task` is cancelled.
    pub(super) fn run<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        task: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(self.failures.watch(name, task(self.stop.clone())));
    }

    /// Ends all of them.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Background {
    /// Also those of a hub that could not start.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    #[tokio::test]
    async fn the_tasks_of_a_hub_that_could_not_start_went_on() {
        let background = Background::new(TaskFailures::default());
        let (over, ended) = oneshot::channel();
        background.run("one", |stop| async move {
            stop.cancelled().await;
            let _ = over.send(()); // the test may have failed already
        });
        drop(background);
        timeout(Duration::from_secs(30), ended).await.unwrap().unwrap();
    }
}
