//! Questions that cost: few are worked on at a time, and one user has only so many.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Problem;
use crate::{
    auth::Principal,
    telemetry::{Limit, Telemetry},
};

/// How many are worked on at a time: each may hold some tens of MB, and work for a second.
const AT_A_TIME: usize = 4;

/// Lets in whoever asks, in the order in which they came.
pub struct Questions {
    room: Semaphore,
    by_user: Mutex<HashMap<Arc<str>, usize>>,
    most_by_user: usize,
    telemetry: Telemetry,
}

/// A question under way.
pub(super) struct Asking<'a> {
    _permit: SemaphorePermit<'a>,
    _counted: Counted<'a>,
}

/// Counts a question of a user for as long as it lives.
struct Counted<'a> {
    questions: &'a Questions,
    user: Arc<str>,
}

impl Questions {
    /// One user may have `most_by_user` under way, those that wait among them.
    pub fn new(most_by_user: usize, telemetry: Telemetry) -> Self {
        let room = Semaphore::new(AT_A_TIME);
        Self { room, by_user: Mutex::default(), most_by_user, telemetry }
    }

    /// Waits until there is room for a question; to be kept until it is answered.
    pub(super) async fn ask(&self, principal: &Principal) -> Result<Asking<'_>, Problem> {
        let counted = self.count(principal.identity())?;
        let closed = |_| Problem::unavailable("the hub takes no questions at present");
        let permit = self.room.acquire().await.map_err(closed)?;
        Ok(Asking { _permit: permit, _counted: counted })
    }

    fn count(&self, user: &Arc<str>) -> Result<Counted<'_>, Problem> {
        let mut by_user = self.by_user.lock();
        let count = by_user.entry(user.clone()).or_default();
        if *count >= self.most_by_user {
            self.telemetry.hit(Limit::Questions);
            return Err(Problem::too_many_questions(self.most_by_user));
        }
        *count += 1;
        Ok(Counted { questions: self, user: user.clone() })
    }
}

/// Works on a question beside the threads on which sockets are served.
pub(super) async fn work<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.map_err(|_| Problem::unavailable("the hub is shutting down"))
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut by_user = self.questions.by_user.lock();
        if let Some(count) = by_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                by_user.remove(&self.user);
            }
        }
    }
}
