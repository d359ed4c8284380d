//! The store of one node: `store.db`, which the command line may open while a hub runs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use secrecy::SecretString;
use tokio::sync::{Mutex, watch};

use super::{Part, SecretError, StoreError, StoredKey, secret};
use crate::{
    position::Position,
    sqlite::{self, Identity},
    time::Clock,
};

const FILE: &str = "store.db";
const IDENTITY: Identity = Identity {
    application_id: u32::from_be_bytes(*b"puls"),
    version: 1,
    schema: "
    CREATE TABLE keys(id TEXT PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL,
        grants TEXT NOT NULL, role TEXT, created INTEGER NOT NULL, expires INTEGER,
        revoked INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
    -- Tickets, sign-in links and sessions: the hash of a secret that stands for a principal.
    CREATE TABLE passes(hash TEXT PRIMARY KEY, kind TEXT NOT NULL, principal TEXT NOT NULL,
        expires INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX passes_expires ON passes(expires);
    CREATE TABLE cursors(name TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
    ",
};

/// The store of one node. Cheap to clone.
#[derive(Clone)]
pub struct Local(pub(super) Arc<Inner>);

pub(super) struct Inner {
    folder: PathBuf,
    pub(super) clock: Clock,
    /// Waited for by tasks, so that a slow disk never holds more than one blocking thread.
    database: Arc<Mutex<Database>>,
    changes: watch::Sender<u64>,
}

impl Inner {
    /// Told by the thread that wrote, so that it is told even if nobody waits for the answer.
    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether something was taken back. A failure may have taken it back all the same, and that no
    /// poll would notice: of its own commits a connection is not told.
    pub(super) fn revoked(&self, count: rusqlite::Result<usize>) -> Result<bool, StoreError> {
        if !matches!(count, Ok(0)) {
            self.changed();
        }
        Ok(count? > 0)
    }
}

struct Database {
    connection: Connection,
    /// `PRAGMA data_version` when last asked: it moves with what other processes commit.
    data_version: u64,
}

impl Local {
    /// Opens the store in `folder`, or makes it. Several processes may have it open.
    /// On a full disk the reserve is given up for it.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, StoreError> {
        Self::try_open(folder, clock.clone()).or_else(|error| {
            if !is_full(&error) {
                return Err(error);
            }
            sqlite::give_up_reserve(folder);
            Self::try_open(folder, clock)
        })
    }

    fn try_open(folder: &Path, clock: Clock) -> Result<Self, StoreError> {
        sqlite::make_folder(folder)?;
        let path = folder.join(FILE);
        if !sqlite::check_header(&path, &IDENTITY)? {
            // Before anything is written, for what is damaged stays as it is.
            check_whole(&path)?;
        }
        let connection = sqlite::open(&path, &IDENTITY)?;
        connection.pragma_update(None, "synchronous", "full")?;
        // Little is written here: SQLite may tidy up by itself.
        connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
        connection.execute_batch(PARTS)?;
        add_owners_of_passes(&connection)?;
        let data_version = data_version(&connection)?;
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            clock,
            database: Arc::new(Mutex::new(Database { connection, data_version })),
            changes: watch::Sender::new(0),
        })))
    }

    /// The secret the hub signs with; made at the first call ever.
    pub fn signing_secret(&self) -> Result<SecretString, SecretError> {
        secret::read_or_make(&self.0.folder)
    }

    /// Moves when a key or a session was taken back here, or by another process once
    /// [`poll_changes`](Self::poll_changes) has noticed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Notices what other processes wrote since the last call, or since the store was opened.
    ///
    /// One task of the application calls it about once a second; that is how long a revocation
    /// made by the command line takes to reach open sockets. Whoever comes anew is checked at once.
    pub async fn poll_changes(&self) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.on_database(move |database| {
            let found = data_version(&database.connection)?;
            if std::mem::replace(&mut database.data_version, found) != found {
                inner.changed();
            }
            Ok(())
        })
        .await
    }

    /// Keeps a new API key.
    pub async fn put_key(&self, key: StoredKey) -> Result<(), StoreError> {
        let grants = json(&key.grants)?;
        self.run(move |connection| {
            connection.execute(
                "INSERT INTO keys(id, name, hash, grants, role, created, expires, revoked)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    key.id,
                    key.name,
                    key.hash,
                    grants,
                    key.role,
                    key.created,
                    key.expires,
                    key.revoked
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// The API key of this id.
    pub async fn key(&self, id: &str) -> Result<Option<StoredKey>, StoreError> {
        let id = id.to_owned();
        self.run(move |connection| {
            let mut select = connection.prepare_cached(&format!("{SELECT_KEY} WHERE id = ?"))?;
            select.query_row([id], read_key).optional()?.transpose()
        })
        .await
    }

    /// All API keys, oldest first.
    pub async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.run(|connection| {
            let mut select = connection.prepare(&format!("{SELECT_KEY} ORDER BY created, id"))?;
            let keys = select.query_map([], read_key)?.collect::<Result<Vec<_>, _>>()?;
            keys.into_iter().collect()
        })
        .await
    }

    /// Takes an API key back; false if there is none.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        let (id, inner) = (id.to_owned(), self.0.clone());
        self.run(move |connection| {
            let count = connection.execute("UPDATE keys SET revoked = 1 WHERE id = ?", [id]);
            inner.revoked(count)
        })
        .await
    }

    /// Notes how far a duty has come, together with what it keeps.
    pub async fn save(
        &self,
        name: &str,
        position: Position,
        parts: Vec<Part>,
    ) -> Result<(), StoreError> {
        let (name, position) = (name.to_owned(), position.to_string());
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            transaction
                .prepare_cached(
                    "INSERT INTO cursors(name, position) VALUES (?, ?)
                     ON CONFLICT DO UPDATE SET position = excluded.position",
                )?
                .execute([&name, &position])?;
            for Part { row, column, bytes } in &parts {
                match bytes {
                    Some(bytes) => transaction
                        .prepare_cached(
                            "INSERT INTO parts(consumer, row, column, bytes) VALUES (?, ?, ?, ?)
                             ON CONFLICT DO UPDATE SET bytes = excluded.bytes",
                        )?
                        .execute(params![name, row, column, &bytes[..]])?,
                    None => transaction
                        .prepare_cached(
                            "DELETE FROM parts WHERE consumer = ? AND row = ? AND column = ?",
                        )?
                        .execute(params![name, row, column])?,
                };
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    /// What a duty keeps in columns of a row.
    pub async fn parts(
        &self,
        name: &str,
        row: &str,
        columns: Vec<u64>,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let (name, row) = (name.to_owned(), row.to_owned());
        self.run(move |connection| {
            let mut found = Vec::new();
            // One transaction, for another process may write between two statements.
            let transaction = connection.transaction()?;
            let mut select = transaction.prepare_cached(
                "SELECT bytes FROM parts WHERE consumer = ? AND row = ? AND column = ?",
            )?;
            for column in columns {
                let read = |found: &rusqlite::Row<'_>| found.get::<_, Vec<u8>>(0);
                let bytes = select.query_row(params![name, row, column], read).optional()?;
                found.extend(bytes.map(|bytes| (column, bytes.into())));
            }
            Ok(found)
        })
        .await
    }

    /// The rows in which a duty keeps something.
    pub async fn rows(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let name = name.to_owned();
        self.run(move |connection| {
            // From each row to the next: DISTINCT would read all of their bytes.
            let mut select = connection.prepare_cached(
                "WITH RECURSIVE found(row) AS (
                     SELECT min(row) FROM parts WHERE consumer = ?1
                     UNION ALL
                     SELECT (SELECT min(row) FROM parts WHERE consumer = ?1 AND row > found.row)
                     FROM found WHERE row IS NOT NULL)
                 SELECT row FROM found WHERE row IS NOT NULL",
            )?;
            let found = select.query_map([name], |row| row.get(0))?;
            Ok(found.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// How far a duty had come.
    pub async fn load_cursor(&self, name: &str) -> Result<Option<Position>, StoreError> {
        let name = name.to_owned();
        let stored: Option<String> = self
            .run(move |connection| {
                let mut select =
                    connection.prepare_cached("SELECT position FROM cursors WHERE name = ?")?;
                Ok(select.query_row([name], |row| row.get(0)).optional()?)
            })
            .await?;
        let read = |text: String| {
            text.parse().map_err(|error| StoreError::Unreadable(format!("{text:?}: {error}")))
        };
        stored.map(read).transpose()
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        statement: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.0.clone();
        self.on_database(move |database| {
            let done = statement(&mut database.connection);
            // The next try finds room: to take a key back matters more than to store events.
            if done.as_ref().is_err_and(is_full) {
                sqlite::give_up_reserve(&inner.folder);
            }
            done
        })
        .await
    }

    async fn on_database<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // The guard goes along to the thread: it is not held by a task that waits.
        let mut database = self.0.database.clone().lock_owned().await;
        tokio::task::spawn_blocking(move || work(&mut database))
            .await
            .map_err(|_| StoreError::Closing)?
    }
}

/// Whether there was no room on the disk.
fn is_full(error: &StoreError) -> bool {
    match error {
        StoreError::Open(error) => error.is_full(),
        StoreError::Sqlite(error) => sqlite::is_full(error),
        _ => false,
    }
}

/// Refuses a file that has lost pages; it is small, so that this takes no time worth noting.
fn check_whole(path: &Path) -> Result<(), StoreError> {
    let failed = |error| sqlite::OpenError::of(path, error);
    let connection = sqlite::open_again(path).map_err(failed)?;
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(failed(rusqlite::Error::SqliteFailure(code, Some(verdict))).into())
}

fn data_version(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// What duties keep beside their cursors. Made when it is missing, for the files of
/// earlier versions.
const PARTS: &str = "
    CREATE TABLE IF NOT EXISTS parts(consumer TEXT NOT NULL, row TEXT NOT NULL,
        column INTEGER NOT NULL, bytes BLOB NOT NULL,
        PRIMARY KEY(consumer, row, column)) WITHOUT ROWID;
    ";

const SELECT_KEY: &str = "SELECT id, name, hash, grants, role, created, expires, revoked FROM keys";

fn read_key(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<StoredKey, StoreError>> {
    let grants: String = row.get(3)?;
    let grants = match serde_json::from_str(&grants) {
        Ok(grants) => grants,
        Err(error) => return Ok(Err(StoreError::Unreadable(error.to_string()))),
    };
    Ok(Ok(StoredKey {
        id: row.get(0)?,
        name: row.get(1)?,
        hash: row.get(2)?,
        grants,
        role: row.get(4)?,
        created: row.get(5)?,
        expires: row.get(6)?,
        revoked: row.get(7)?,
    }))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

/// What a file of an earlier version lacks: whose a pass is.
fn add_owners_of_passes(connection: &Connection) -> rusqlite::Result<()> {
    let has_owners = |connection: &Connection| {
        connection
            .prepare("SELECT 1 FROM pragma_index_list('passes') WHERE name = 'passes_owner'")?
            .exists([])
    };
    if has_owners(connection)? {
        return Ok(());
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Another process may have been quicker.
    if !has_owners(&transaction)? {
        transaction.execute_batch(
            "ALTER TABLE passes ADD COLUMN owner TEXT NOT NULL DEFAULT '';
             CREATE INDEX passes_owner ON passes(kind, owner);",
        )?;
    }
    transaction.commit()
}
