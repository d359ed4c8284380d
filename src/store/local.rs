//! The store of one node: `store.db`, which the command line may open while a hub runs.

mod documents;
mod upgrade;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};

use super::{CollectionKind, Part, SecretError, StoreError, secret, watchers::Watchers};
use crate::{
    position::Position,
    sqlite::{self, FileIdentity},
    time::{Clock, Millis},
};

const FILE: &str = "store.db";
const IDENTITY: FileIdentity =
    FileIdentity { application_id: u32::from_be_bytes(*b"puls"), version: 2, schema: SCHEMA };
/// Version 1 had tables for API keys and for passes, and at first no `parts`.
const SCHEMA: &str = "
    -- Collections. Of a credential the id or the body has a hash, never the secret.
    CREATE TABLE documents(collection TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL,
        version TEXT NOT NULL, expires INTEGER, body TEXT NOT NULL,
        PRIMARY KEY(collection, id)) WITHOUT ROWID;
    CREATE INDEX documents_owner ON documents(collection, owner, id);
    CREATE INDEX documents_expires ON documents(expires) WHERE expires IS NOT NULL;
    -- How far each duty has come, and what it keeps beside.
    CREATE TABLE IF NOT EXISTS cursors(name TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS parts(consumer TEXT NOT NULL, row TEXT NOT NULL,
        column INTEGER NOT NULL, bytes BLOB NOT NULL,
        PRIMARY KEY(consumer, row, column)) WITHOUT ROWID;
    ";

/// The store of one node. Cheap to clone.
#[derive(Clone)]
pub struct LocalStore(Arc<LocalInner>);

struct LocalInner {
    folder: PathBuf,
    clock: Clock,
    /// Waited for by tasks, so that a slow disk never holds more than one blocking thread.
    database: Arc<Mutex<Database>>,
    watchers: Watchers,
    /// What goes with it, if it is only looked at.
    _copy: Option<TempDir>,
}

impl LocalInner {
    /// Told by the thread that wrote, so that it is told even if nobody waits for the answer; and where writing failed as
    /// well, for it may have been done all the same, and that no poll would notice: of its own commits a connection is
    /// not told.
    fn tell(&self, kind: CollectionKind, is_new: bool) {
        if kind.told.include(is_new) {
            self.watchers.tell(|name| name == kind.name);
        }
    }
}

struct Database {
    connection: Connection,
    /// `PRAGMA data_version` when last asked: it moves with what other processes commit.
    data_version: u64,
}

impl LocalStore {
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

    /// The same to read its documents. A file of an earlier version stays as it is: a copy is brought up to date.
    pub fn look_into(folder: &Path, clock: Clock) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let failed = |error| sqlite::OpenError::of(&path, error);
        if sqlite::check_header(&path, &IDENTITY)? || !upgrade::is_older(&path).map_err(failed)? {
            return Self::open(folder, clock);
        }
        let io = |error| sqlite::OpenError::Io { path: path.clone(), error };
        let copy = tempfile::tempdir().map_err(io)?;
        let to = copy.path().join(FILE);
        let from = sqlite::open_read_only(&path).map_err(failed)?;
        from.execute("VACUUM INTO ?", [to.to_string_lossy()]).map_err(failed)?;
        Self::open_file(&to, clock, folder, Some(copy))
    }

    fn try_open(folder: &Path, clock: Clock) -> Result<Self, StoreError> {
        sqlite::make_folder(folder)?;
        Self::open_file(&folder.join(FILE), clock, folder, None)
    }

    /// Opens `path`, the file of `folder` or a copy of it.
    fn open_file(
        path: &Path,
        clock: Clock,
        folder: &Path,
        copy: Option<TempDir>,
    ) -> Result<Self, StoreError> {
        if !sqlite::check_header(path, &IDENTITY)? {
            // Before anything is written, for what is damaged stays as it is.
            check_whole(path)?;
            upgrade::upgrade(path)?;
        }
        let connection = sqlite::open(path, &IDENTITY)?;
        connection.pragma_update(None, "synchronous", "full")?;
        // Little is written here: SQLite may tidy up by itself.
        connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
        let data_version = data_version(&connection)?;
        Ok(Self(Arc::new(LocalInner {
            folder: folder.to_owned(),
            clock,
            database: Arc::new(Mutex::new(Database { connection, data_version })),
            watchers: Watchers::default(),
            _copy: copy,
        })))
    }

    /// The secret the hub signs with; made at the first call ever.
    pub fn signing_secret(&self) -> Result<SecretString, SecretError> {
        secret::secret_in(&self.0.folder)
    }

    pub(super) fn now(&self) -> Millis {
        self.0.clock.now()
    }

    pub(super) fn watch(&self, kinds: &[CollectionKind]) -> watch::Receiver<u64> {
        self.0.watchers.watch(kinds)
    }

    /// That another process wrote something is known, and not where.
    pub(super) async fn poll(&self) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.on_database(move |database| {
            let found = data_version(&database.connection)?;
            if std::mem::replace(&mut database.data_version, found) != found {
                inner.watchers.tell(|_| true);
            }
            Ok(())
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

    async fn run<T: Send + 'static>(
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
