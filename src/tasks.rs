//! Tasks that the hub needs. If one fails, this is logged and the node is no longer ready.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

/// Which of some tasks has failed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TaskFailures(Arc<OnceLock<Cow<'static, str>>>);

impl TaskFailures {
    /// The first that failed.
    pub fn first(&self) -> Option<&str> {
        self.0.get().map(|name| &**name)
    }

    /// Begins a task; resolves when it has ended.
    pub fn watch(
        &self,
        name: impl Into<Cow<'static, str>>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (failures, name, running) = (self.clone(), name.into(), tokio::spawn(task));
        async move {
            if let Err(error) = running.await {
                tracing::error!(task = &*name, %error, "a task of the hub has failed; restart this node");
                // Only the first is kept.
                let _ = failures.0.set(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_task_that_failed_nobody_knew() {
        let failures = TaskFailures::default();
        failures.watch("good", async {}).await;
        assert_eq!(failures.first(), None);
        failures.watch("bad", async { panic!("of the test's making") }).await;
        failures.watch("worse", async { panic!("of the test's making") }).await;
        assert_eq!(failures.first(), Some("bad"));
    }
}
