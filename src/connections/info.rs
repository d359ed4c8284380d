//! A connection and its subscriptions, as lists of connections show them.

use std::sync::Arc;

use serde::Serialize;

use crate::dialect::Dialect;

/// A connection as `/api/v1/connections` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionInfo {
    /// Its name.
    pub conn: String,
    /// Whose it is.
    pub user: Option<Arc<str>>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// How it receives events.
    pub kind: Dialect,
    /// Where it comes from; without a port where a proxy did not tell it.
    pub peer: String,
    /// When it was opened, RFC 3339.
    pub since: String,
    /// Its subscriptions, each with how many offsets it is behind the head.
    pub subscriptions: Vec<SubscriptionInfo>,
}

/// A subscription as `/api/v1/connections` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscriptionInfo {
    /// Its name.
    pub sub: String,
    /// What it matches.
    pub topics: Vec<String>,
    /// Offsets between it and the head; 0 when it has all that matches.
    pub lag: u64,
}

impl ConnectionInfo {
    /// About what it takes as text.
    pub(super) fn bytes(&self) -> usize {
        let subscription = |one: &SubscriptionInfo| {
            one.sub.len() + one.topics.iter().map(|topic| topic.len() + 3).sum::<usize>() + 40
        };
        self.subscriptions.iter().map(subscription).sum::<usize>() + 250
    }
}
