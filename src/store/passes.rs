//! Passes in the store of one node.

use rusqlite::{OptionalExtension as _, TransactionBehavior, params};

use super::{PassKind, StoreError, local::Local};
use crate::time::Millis;

/// The most passes at a time; beyond it the oldest go.
pub(super) const MAX_PASSES: usize = 100_000;

impl Local {
    /// Keeps a pass, under the hash of its secret, until `expires`.
    pub async fn put_pass(
        &self,
        kind: PassKind,
        hash: String,
        principal: String,
        expires: Millis,
    ) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        self.run(move |connection| {
            // One transaction, for it is one wait for the disk instead of three.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute("DELETE FROM passes WHERE expires <= ?", [now])?;
            transaction.execute(
                "DELETE FROM passes WHERE hash IN (SELECT hash FROM passes
                     ORDER BY expires DESC LIMIT -1 OFFSET ?)",
                [MAX_PASSES - 1],
            )?;
            transaction.execute(
                "INSERT INTO passes(hash, kind, principal, expires) VALUES (?, ?, ?, ?)",
                params![hash, kind.name(), principal, expires],
            )?;
            Ok(transaction.commit()?)
        })
        .await
    }

    /// What a pass stands for.
    pub async fn pass(&self, kind: PassKind, hash: String) -> Result<Option<String>, StoreError> {
        let now = self.0.clock.now();
        self.run(move |connection| {
            let mut select = connection.prepare_cached(
                "SELECT principal FROM passes WHERE hash = ? AND kind = ? AND expires > ?",
            )?;
            Ok(select.query_row(params![hash, kind.name(), now], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// What a pass stands for, and takes it: the next to ask gets nothing.
    pub async fn take_pass(
        &self,
        kind: PassKind,
        hash: String,
    ) -> Result<Option<String>, StoreError> {
        let now = self.0.clock.now();
        self.run(move |connection| {
            // A commit of its own says whether the pass is really gone: without, the statement
            // would end unasked, and a full disk would leave the pass for a second use.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let taken = transaction
                .query_row(
                    "DELETE FROM passes WHERE hash = ? AND kind = ? AND expires > ?
                     RETURNING principal",
                    params![hash, kind.name(), now],
                    |row| row.get(0),
                )
                .optional()?;
            transaction.commit()?;
            Ok(taken)
        })
        .await
    }

    /// Takes a pass back; false if there is none.
    pub async fn revoke_pass(&self, kind: PassKind, hash: String) -> Result<bool, StoreError> {
        let inner = self.0.clone();
        self.run(move |connection| {
            let delete = "DELETE FROM passes WHERE hash = ? AND kind = ?";
            inner.revoked(connection.execute(delete, params![hash, kind.name()]))
        })
        .await
    }
}
