//! The bytes that requests and answers may hold in memory: a total, and a share of it for each user.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::Problem;
use crate::{
    limits::Limits,
    telemetry::{Limit, Telemetry},
};

/// The budgets of the HTTP side.
pub struct Budgets {
    /// Bodies of callers whose credentials are known.
    pub(super) bodies: Budget,
    /// Bodies of requests without credentials: sign-ins.
    pub(super) stranger_bodies: Budget,
    /// Answers that are not read yet.
    pub(super) answers: Budget,
}

impl Budgets {
    /// As the settings say.
    pub fn new(limits: &Limits, telemetry: &Telemetry) -> Self {
        let budget = |limit, most: u64| Budget::new(limit, most, limits.body.0, telemetry.clone());
        Self {
            bodies: budget(Limit::Bodies, limits.bodies.0),
            stranger_bodies: Budget::new(
                Limit::StrangerBodies,
                limits.stranger_bodies.0,
                limits.small_body.0,
                telemetry.clone(),
            ),
            answers: budget(Limit::Answers, limits.answers.0),
        }
    }
}

/// One user has at most one part in this many, so that no single one keeps all others out.
const SHARES: u64 = 4;

/// Bytes in memory, counted.
#[derive(Clone)]
pub(super) struct Budget(Arc<BudgetInner>);

struct BudgetInner {
    limit: Limit,
    most: u64,
    share: u64,
    /// Locked to add and subtract, never for longer.
    held: Mutex<HeldBytes>,
    telemetry: Telemetry,
}

#[derive(Default)]
struct HeldBytes {
    total: u64,
    by_user: HashMap<Arc<str>, u64>,
}

/// What one request or answer holds; dropping it gives all of it back.
pub(super) struct Charge {
    budget: Budget,
    user: Arc<str>,
    bytes: u64,
}

impl Budget {
    /// A share is at least as large as `largest`, the largest single thing that is charged.
    fn new(limit: Limit, most: u64, largest: u64, telemetry: Telemetry) -> Self {
        let share = (most / SHARES).max(largest).min(most);
        Self(Arc::new(BudgetInner { limit, most, share, held: Mutex::default(), telemetry }))
    }

    /// Nothing yet, for `user`.
    pub(super) fn begin(&self, user: Arc<str>) -> Charge {
        Charge { budget: self.clone(), user, bytes: 0 }
    }
}

impl Charge {
    /// Holds `bytes` more: 429 where the user's own share is used up, 503 where the whole budget is.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let grown = self.try_grow(bytes as u64);
        grown.inspect_err(|_| self.budget.0.telemetry.hit(self.budget.0.limit))
    }

    fn try_grow(&mut self, bytes: u64) -> Result<(), Problem> {
        let BudgetInner { limit, most, share, .. } = *self.budget.0;
        let mut held = self.budget.0.held.lock();
        let own = held.by_user.get(&self.user).copied().unwrap_or_default();
        if own + bytes > share {
            return Err(Problem::over_share(limit, share));
        }
        if held.total + bytes > most {
            return Err(Problem::over_budget(limit, most));
        }
        held.total += bytes;
        *held.by_user.entry(self.user.clone()).or_default() += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut held = self.budget.0.held.lock();
        held.total -= self.bytes;
        if let Some(own) = held.by_user.get_mut(&self.user) {
            *own -= self.bytes;
            if *own == 0 {
                held.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
impl Budget {
    /// Bytes that are held now.
    pub(super) fn held(&self) -> u64 {
        self.0.held.lock().total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(most: u64) -> Budget {
        Budget::new(Limit::Bodies, most, 1, Telemetry::new())
    }

    #[test]
    fn one_user_has_a_share_and_all_have_the_whole() {
        let budget = budget(40);
        let begin = |name: &str| budget.begin(name.into());
        let mut ada = begin("ada");
        ada.grow(10).unwrap();
        assert_eq!(begin("ada").grow(1).unwrap_err().code(), "too_many_bytes");
        let mut others: Vec<_> = ["b", "c", "d"].into_iter().map(begin).collect();
        others.iter_mut().for_each(|charge| charge.grow(10).unwrap());
        assert_eq!(begin("e").grow(1).unwrap_err().code(), "overloaded");
        drop(ada);
        begin("e").grow(10).unwrap();
        assert_eq!(budget.held(), 30, "what is dropped is given back");
        begin("ada").grow(10).unwrap(); // to the share it is of, too
        drop(others);
        assert!(budget.0.held.lock().by_user.is_empty(), "nobody is remembered for nothing");
    }
}
