//! What the file says of itself: its epochs, the key of its ids, the rules it is kept under.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{config::RetentionRules, schema};
use crate::{broker::lineage::Lineage, position::Epoch, sqlite};

/// What makes a file this log and no other.
pub(super) struct JournalIdentity {
    pub(super) lineage: Lineage,
    /// Whether the file knows of the newest epoch.
    pub(super) is_noted: bool,
    pub(super) dedupe_key: [u8; 16],
}

pub(super) enum IdentifyError {
    Sqlite(rusqlite::Error),
    Random(getrandom::Error),
}

impl From<rusqlite::Error> for IdentifyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Begins an epoch, the first or one more.
///
/// Nobody can tell a file from its copy, or whether it has lost its end: so every start is a fork.
pub(super) fn identify(
    connection: &Connection,
    rules: &RetentionRules,
) -> Result<JournalIdentity, IdentifyError> {
    let name = getrandom::u64().map_err(IdentifyError::Random)?;
    let identity = match lineage(connection)? {
        None => {
            let mut dedupe_key = [0; 16];
            getrandom::fill(&mut dedupe_key).map_err(IdentifyError::Random)?;
            let lineage = Lineage::of(Epoch::new(name));
            connection.execute(
                "INSERT INTO meta(key, value) VALUES ('lineage', ?), ('dedupe_key', ?), ('head', 0),
                     ('forgotten_through', 0), ('rules', ?)",
                params![lineage.to_string(), dedupe_key, rules.fingerprint()],
            )?;
            JournalIdentity { lineage, is_noted: true, dedupe_key }
        }
        Some(mut lineage) => {
            let dedupe_key = meta(connection, "dedupe_key")?;
            lineage.begin(Epoch::new(name), meta(connection, "head")?);
            let is_noted = match begin(connection, &lineage) {
                // The first commit notes it.
                Err(error) if sqlite::is_full(&error) => false,
                begun => begun.map(|()| true)?,
            };
            JournalIdentity { lineage, is_noted, dedupe_key }
        }
    };
    Ok(identity)
}

/// Whether the log was kept under these rules; under others every block has to be looked at anew.
pub(super) fn is_kept_under(
    connection: &Connection,
    rules: &RetentionRules,
) -> rusqlite::Result<bool> {
    Ok(meta::<String>(connection, "rules")? == rules.fingerprint())
}

/// The epochs the file knows; None in a new file.
pub(super) fn lineage(connection: &Connection) -> rusqlite::Result<Option<Lineage>> {
    let Some(text) = meta::<String>(connection, "lineage").optional()? else {
        let epoch: Option<i64> = meta(connection, "epoch").optional()?;
        return Ok(epoch.map(|epoch| Lineage::of(Epoch::new(epoch as u64))));
    };
    let unreadable = || rusqlite::Error::InvalidColumnName("meta.lineage".to_owned());
    Lineage::parse(&text).map(Some).ok_or_else(unreadable)
}

fn begin(connection: &Connection, lineage: &Lineage) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    note(&transaction, lineage)?;
    transaction.commit()
}

/// Writes the epochs down, in a file of whatever version.
pub(super) fn note(transaction: &Connection, lineage: &Lineage) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO meta(key, value) VALUES ('lineage', ?1) ON CONFLICT DO UPDATE SET value = ?1",
        [lineage.to_string()],
    )?;
    transaction
        .execute("UPDATE meta SET value = max(value, ?) WHERE key = 'head'", [lineage.base()])?;
    transaction.execute("DELETE FROM meta WHERE key = 'epoch'", [])?;
    transaction.pragma_update(None, "user_version", schema::IDENTITY.version)
}

fn meta<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<T> {
    connection.query_row("SELECT value FROM meta WHERE key = ?", [key], |row| row.get(0))
}
