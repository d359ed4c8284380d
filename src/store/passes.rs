//! Passes in the store of one node.

use rusqlite::{Connection, OptionalExtension as _, ToSql, TransactionBehavior, params};

use super::{MAX_PASSES, NewPass, PassKind, PassesFull, StoreError, local::Local};
use crate::time::Millis;

/// Leaves the disk out of what is lost without harm when the power fails: a pass that was made in the
/// last moments, and that a ticket was used, which has run out before the machine is back. Anything
/// else waits for the disk, for a session that was ended must not come back.
fn wait_for_disk(connection: &Connection, wait: bool) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", if wait { "full" } else { "normal" })
}

impl Local {
    /// Keeps a pass until it runs out, if there is room.
    pub async fn put_pass(&self, pass: NewPass) -> Result<(), StoreError> {
        let (now, settled) = (self.0.clock.now(), self.0.clock.settled());
        self.run(move |connection| {
            wait_for_disk(connection, false)?;
            let put = put(connection, &pass, now, settled);
            wait_for_disk(connection, true)?;
            put
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
            wait_for_disk(connection, kind != PassKind::Ticket)?;
            let taken = take(connection, kind, &hash, now);
            wait_for_disk(connection, true)?;
            taken
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

/// What has run out is dropped only by a clock that is `settled`, and takes no place of its owner's before.
fn put(
    connection: &mut Connection,
    pass: &NewPass,
    now: Millis,
    settled: Millis,
) -> Result<(), StoreError> {
    let NewPass { kind, hash, owner, principal, expires, most } = pass;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("DELETE FROM passes WHERE expires <= ?", [settled])?;
    let count = |whose: &str, values: &[&dyn ToSql]| -> rusqlite::Result<usize> {
        let select = format!("SELECT count(*) FROM passes WHERE kind = ? {whose}");
        transaction.prepare_cached(&select)?.query_row(values, |row| row.get(0))
    };
    if count("AND owner = ? AND expires > ?", &[&kind.name(), owner, &now])? >= *most {
        return Err(PassesFull { kind: *kind, most: *most, is_owners: true }.into());
    }
    if count("", &[&kind.name()])? >= MAX_PASSES {
        return Err(PassesFull { kind: *kind, most: MAX_PASSES, is_owners: false }.into());
    }
    transaction.execute(
        "INSERT INTO passes(hash, kind, principal, expires, owner) VALUES (?, ?, ?, ?, ?)",
        params![hash, kind.name(), principal, expires, owner],
    )?;
    Ok(transaction.commit()?)
}

/// A commit of its own says whether the pass is really gone: without, the statement would end unasked,
/// and a full disk would leave the pass for a second use.
fn take(
    connection: &mut Connection,
    kind: PassKind,
    hash: &str,
    now: Millis,
) -> Result<Option<String>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let taken = transaction
        .query_row(
            "DELETE FROM passes WHERE hash = ? AND kind = ? AND expires > ? RETURNING principal",
            params![hash, kind.name(), now],
            |row| row.get(0),
        )
        .optional()?;
    transaction.commit()?;
    Ok(taken)
}
