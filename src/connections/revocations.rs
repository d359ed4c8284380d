//! Ends the connections whose credentials were revoked, whatever fails meanwhile.
//!
//! A credential is checked until the store has answered. After the store was away, all credentials are checked, because
//! the write that raised its count of changes may be lost. A connection that has just authenticated is checked as well,
//! because its key may have been revoked after it was read.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Connections, Order};
use crate::{
    access::Access,
    auth::{AuthError, CredentialId, Principal},
    store::Store,
    telemetry::Telemetry,
};

/// How often keys and sessions taken back by another process are looked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same while the store owes an answer.
const SOON: Duration = Duration::from_millis(250);
/// How long one answer of the store is waited for: less than the store's own patience, because a
/// question that was lost in an outage must not delay the next beyond two seconds.
const PATIENCE: Duration = Duration::from_millis(750);
/// Questions to the store at a time.
const AT_A_TIME: usize = 16;

/// Watches until `stop`.
pub async fn watch_revocations(
    store: Store,
    access: Access,
    connections: Connections,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    let watch = RevocationWatch {
        access,
        connections,
        telemetry,
        unsure: HashMap::new(),
        is_failing: false,
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch.run(store) => {}
    }
}

struct RevocationWatch {
    access: Access,
    connections: Connections,
    telemetry: Telemetry,
    /// The credentials to be checked; at most one for each connection.
    unsure: HashMap<CredentialId, Arc<Principal>>,
    /// Whether the store owed an answer in the last round, so that this is logged once.
    is_failing: bool,
}

impl RevocationWatch {
    async fn run(mut self, store: Store) {
        let mut changes = self.access.changes();
        let mut has_missed = false;
        loop {
            let pause = if self.is_failing { SOON } else { INTERVAL };
            let mut failure = None;
            let mut all = tokio::select! {
                () = sleep(pause) => {
                    let polled = timeout(PATIENCE, store.poll()).await;
                    failure = match polled {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(error.to_string()),
                        Err(_) => Some("no answer in time".to_owned()),
                    };
                    self.telemetry.revocation_failures.inc_by(failure.is_some().into());
                    let is_back = failure.is_none() && has_missed;
                    has_missed = failure.is_some();
                    is_back
                }
                changed = changes.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
            };
            // Seen before anybody is asked about: what changes from here on is another round's.
            all |= changes.has_changed().unwrap_or(true);
            changes.mark_unchanged();
            self.unsure.extend(self.connections.newcomers());
            if all {
                self.unsure.extend(self.connections.credentials());
            }
            failure = self.ask().await.or(failure);
            self.tell_failure(failure);
        }
    }

    /// Asks about each credential once, however many connections it has; gives why the store did
    /// not answer, if it did not.
    async fn ask(&mut self) -> Option<String> {
        let access = &self.access;
        let asked = std::mem::take(&mut self.unsure).into_iter();
        let mut answers = stream::iter(asked)
            .map(|(credential, principal)| async move {
                let valid = timeout(PATIENCE, access.still_valid(&principal)).await;
                let late = || AuthError::Unavailable("no answer in time".to_owned());
                (credential, principal, valid.unwrap_or_else(|_| Err(late())))
            })
            .buffer_unordered(AT_A_TIME);
        let mut failure = None;
        while let Some((credential, principal, valid)) = answers.next().await {
            match valid {
                // A timer ends connections whose credentials expire.
                Ok(()) | Err(AuthError::Expired) => {}
                Err(AuthError::Unavailable(error)) => {
                    self.telemetry.revocation_failures.inc();
                    self.unsure.insert(credential, principal);
                    failure = Some(error);
                }
                Err(_) => self.connections.tell_bearers(&credential, Order::Revoked),
            }
        }
        failure
    }

    fn tell_failure(&mut self, failure: Option<String>) {
        let was_failing = std::mem::replace(&mut self.is_failing, failure.is_some());
        match failure {
            Some(error) if !was_failing => {
                tracing::warn!(error, "revocations cannot be looked for; trying again");
            }
            None if was_failing => tracing::info!("revocations can be looked for again"),
            _ => {}
        }
    }
}
