//! What a `store.db` of an earlier version has in tables of its own.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::{IDENTITY, SCHEMA};
use crate::{id, sqlite, store::StoreError};

/// How long another program may have the file open: a command is done sooner, a hub is not.
const PATIENCE: Duration = Duration::from_secs(2);

/// Brings a file of version 1 up to date, in one transaction.
///
/// A hub of that version would look for API keys and sessions where they are no more: it is refused to do this while
/// another program has the file open. Who opens it afterwards with that version is refused as well.
pub(super) fn upgrade(path: &Path) -> Result<(), StoreError> {
    let started = Instant::now();
    loop {
        match try_upgrade(path) {
            Err(error) if !is_busy(&error) => return Err(error.into()),
            Err(_) if started.elapsed() < PATIENCE => {
                // Two that want the same must not meet again and again.
                sleep(Duration::from_millis(5 + id::random_below(Duration::from_millis(50))));
            }
            Err(_) => return Err(StoreError::InUse(path.to_owned())),
            Ok(()) => return Ok(()),
        }
    }
}

/// Whether the file is of version 1.
pub(super) fn is_older(path: &Path) -> rusqlite::Result<bool> {
    Ok(version(&sqlite::open_read_only(path)?)? < IDENTITY.version)
}

fn try_upgrade(path: &Path) -> rusqlite::Result<()> {
    let connection = sqlite::open_again(path)?;
    if version(&connection)? >= IDENTITY.version {
        return Ok(());
    }
    connection.busy_timeout(Duration::ZERO)?;
    // Done only for who has the file alone.
    connection.pragma_update(None, "journal_mode", "delete")?;
    let transaction = Transaction::new_unchecked(&connection, TransactionBehavior::Exclusive)?;
    if version(&transaction)? < IDENTITY.version {
        let has_owners: bool = transaction.query_row(
            "SELECT count(*) FROM pragma_table_info('passes') WHERE name = 'owner'",
            [],
            |row| row.get(0),
        )?;
        let owner = if has_owners { "owner" } else { "''" };
        transaction.execute_batch(SCHEMA)?;
        transaction
            .execute_batch(&format!("{MOVE_KEYS} {}", MOVE_PASSES.replace("{owner}", owner)))?;
        transaction.pragma_update(None, "user_version", IDENTITY.version)?;
    }
    transaction.commit()
}

const MOVE_KEYS: &str = "
    INSERT INTO documents(collection, id, owner, version, expires, body)
        SELECT 'keys', id, name, lower(hex(randomblob(8))), NULL,
            json_object('id', id, 'name', name, 'hash', hash, 'grants', json(grants), 'role', role,
                'created', created, 'expires', expires, 'revoked', json(iif(revoked, 'true', 'false')))
        FROM keys;
    DROP TABLE keys;";

const MOVE_PASSES: &str = "
    INSERT INTO documents(collection, id, owner, version, expires, body)
        SELECT kind || 's', hash, {owner}, lower(hex(randomblob(8))), expires, principal FROM passes;
    DROP TABLE passes;";

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
