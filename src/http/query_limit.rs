//! Expensive questions: few are answered at a time, and the number of each user is limited.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::Problem;
use crate::{
    auth::Principal,
    telemetry::{Limit, Telemetry},
    turns::{Turn, Turns},
};

/// Admits questions, those of each user in the order in which they came.
pub struct QueryLimit {
    turns: Turns,
    by_user: ByUser,
    most_by_user: usize,
    telemetry: Telemetry,
}

/// How many questions each user has under way.
type ByUser = Arc<Mutex<HashMap<Arc<str>, usize>>>;

/// A question that is being worked on.
pub(super) struct QueryPermit {
    _turn: Turn,
    _counted: CountedQuery,
}

/// Counts a question of a user until it is dropped.
pub(super) struct CountedQuery {
    by_user: ByUser,
    user: Arc<str>,
}

impl QueryLimit {
    /// One user may have `most_by_user` under way, those that wait among them.
    pub fn new(most_by_user: usize, telemetry: Telemetry) -> Self {
        Self { turns: Turns::default(), by_user: Arc::default(), most_by_user, telemetry }
    }

    /// Waits for a turn; to be kept until the question is answered.
    pub(super) async fn ask(&self, principal: &Principal) -> Result<QueryPermit, Problem> {
        let counted = self.count(principal)?;
        let turn = self.turns.begin(Some(principal.identity())).await;
        Ok(QueryPermit { _turn: turn, _counted: counted })
    }

    /// Of a question that only waits for other nodes: it takes no turn.
    pub(super) fn count(&self, principal: &Principal) -> Result<CountedQuery, Problem> {
        let user = principal.identity();
        let mut by_user = self.by_user.lock();
        let count = by_user.entry(user.clone()).or_default();
        if *count >= self.most_by_user {
            self.telemetry.hit(Limit::Questions);
            return Err(Problem::too_many_questions(self.most_by_user));
        }
        *count += 1;
        Ok(CountedQuery { by_user: self.by_user.clone(), user: user.clone() })
    }
}

/// Answers a question on a thread of its own, not on those that serve sockets. It counts as under way until the work is
/// done, even if the caller has gone.
pub(super) async fn work<T: Send + 'static>(
    permit: QueryPermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(T, QueryPermit), Problem> {
    let worked = tokio::task::spawn_blocking(move || (work(), permit)).await;
    worked.map_err(|_| Problem::unavailable("the hub is shutting down"))
}

impl Drop for CountedQuery {
    fn drop(&mut self) {
        let mut by_user = self.by_user.lock();
        if let Some(count) = by_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                by_user.remove(&self.user);
            }
        }
    }
}
