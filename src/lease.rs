//! Leases: who does a duty, and what proves it.

use std::time::Duration;

/// How long a lease is good without being renewed.
pub const LEASE: Duration = Duration::from_secs(5);

/// The proof that a lease was held when something was begun: whoever takes the lease next has a
/// higher token, and what is written under a lower one is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    name: Box<str>,
    token: u64,
}

impl Fence {
    /// The proof of a lease that was given out.
    pub fn new(name: &str, token: u64) -> Self {
        Self { name: name.into(), token }
    }

    /// The duty's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Grows with each holder.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// What the lease is called in Redis.
    pub fn key(&self) -> String {
        format!("lease:{}", self.name)
    }
}
