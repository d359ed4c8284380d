//! How far somebody has followed the log.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

use crate::{
    broker::{Broker, ReadError},
    lease::LEASE,
    position::Offset,
};

/// A follower that makes no progress for this long is stuck.
pub(super) const PATIENCE: Duration = LEASE.saturating_mul(2);

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

    /// The same, but fails when it gets no further.
    pub async fn gets_to(&self, offset: Offset) -> Result<(), ReadError> {
        gets_to(self.0.subscribe(), offset, PATIENCE).await
    }
}

/// Waits until this node has read the log up to `offset`; fails when it gets no further.
pub async fn read_up_to(broker: &Broker, offset: Offset) -> Result<(), ReadError> {
    gets_to(broker.tail(), offset, PATIENCE).await
}

/// Waits until somebody has come to `offset`; fails when nothing moves for so long.
async fn gets_to(
    mut reached: watch::Receiver<Offset>,
    offset: Offset,
    patience: Duration,
) -> Result<(), ReadError> {
    loop {
        let at = *reached.borrow_and_update();
        if at >= offset {
            return Ok(());
        }
        // Without the offset wanted, which moves: who says each reason once would say it again and again.
        let stuck = |why: &str| ReadError(format!("it was read up to {at} only, {why}"));
        match timeout(patience, reached.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(stuck("and is closed")),
            Err(_) => return Err(stuck("and this node gets no further")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waited_for_a_log_that_stood_still_waited_for_ever() {
        let reached = watch::Sender::new(3);
        let short = Duration::from_millis(1);
        assert!(gets_to(reached.subscribe(), 3, short).await.is_ok());
        let stuck = gets_to(reached.subscribe(), 4, short).await.unwrap_err().to_string();
        assert!(stuck.contains("up to 3 only, and this node gets no further"), "{stuck}");
        // Whoever gets on may take as long as it likes.
        let moving = async {
            for offset in 4..=6 {
                tokio::task::yield_now().await;
                reached.send_replace(offset);
            }
        };
        let long = Duration::from_secs(60);
        let (arrived, ()) = tokio::join!(gets_to(reached.subscribe(), 6, long), moving);
        assert!(arrived.is_ok());
        let last = reached.subscribe();
        drop(reached);
        assert!(gets_to(last, 7, long).await.unwrap_err().to_string().contains("is closed"));
    }
}
