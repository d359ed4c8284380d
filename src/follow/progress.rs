//! How far somebody has followed the log.

use tokio::sync::watch;

use crate::position::Offset;

/// How far a follower has come: everything up to there is in what it makes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Progress(watch::Sender<Offset>);

impl Progress {
    /// One that has come so far already.
    pub fn at(offset: Offset) -> Self {
        Self(watch::Sender::new(offset))
    }

    /// Everything up to `offset` is in. It never goes back.
    pub fn reach(&self, offset: Offset) {
        self.0.send_if_modified(|reached| {
            let is_further = offset > *reached;
            *reached = offset.max(*reached);
            is_further
        });
    }

    /// How far it has come.
    pub fn offset(&self) -> Offset {
        *self.0.borrow()
    }

    /// Waits until everything is in that the log held up to `offset`.
    pub async fn reaches(&self, offset: Offset) {
        let mut reached = self.0.subscribe();
        // We hold the other side ourselves.
        let _ = reached.wait_for(|reached| *reached >= offset).await;
    }
}
