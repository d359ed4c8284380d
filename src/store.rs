//! What nodes must agree on beside the log: the secret, keys, passes, cursors.
//!
//! On one node this is `store.db`, which the command line may open while a hub runs.

mod secret;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, params};
use secrecy::SecretString;
use tokio::sync::watch;

pub use self::secret::SecretError;
use crate::{
    grants::Grants,
    position::Position,
    sqlite::{self, Identity},
    time::{Clock, Millis},
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

/// The most passes at a time; beyond it the oldest go.
const MAX_PASSES: usize = 100_000;

/// The store of one node. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    clock: Clock,
    /// Held for one statement, on a thread that may wait.
    connection: Mutex<Connection>,
    changes: watch::Sender<u64>,
}

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file was not opened.
    #[error(transparent)]
    Open(#[from] sqlite::OpenError),
    /// SQLite refused.
    #[error("the store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// What is stored is not what was written.
    #[error("the store holds something unreadable: {0}")]
    Unreadable(String),
    /// The runtime is ending.
    #[error("the store is closing")]
    Closing,
}

/// An API key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its public part.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// Of its secret part.
    pub hash: String,
    /// What it may do.
    pub grants: Grants,
    /// A role, beside the grants.
    pub role: Option<String>,
    /// When it was made.
    pub created: Millis,
    /// When it runs out.
    pub expires: Option<Millis>,
    /// Whether it was taken back.
    pub revoked: bool,
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// Opens one socket.
    Ticket,
    /// Signs in once.
    Link,
    /// A signed-in browser.
    Session,
}

impl PassKind {
    fn name(self) -> &'static str {
        match self {
            PassKind::Ticket => "ticket",
            PassKind::Link => "link",
            PassKind::Session => "session",
        }
    }
}

impl Store {
    /// Opens the store in `folder`, or makes it. Several processes may have it open.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, StoreError> {
        sqlite::make_folder(folder)?;
        let connection = sqlite::open(&folder.join(FILE), &IDENTITY)?;
        connection.pragma_update(None, "synchronous", "full")?;
        // Little is written here: SQLite may tidy up by itself.
        connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            clock,
            connection: Mutex::new(connection),
            changes: watch::Sender::new(0),
        })))
    }

    /// The secret the hub signs with; made at the first call ever.
    pub fn signing_secret(&self) -> Result<SecretString, SecretError> {
        secret::read_or_make(&self.0.folder)
    }

    /// Moves when a key or a session was taken back here; see [`poll_changes`](Self::poll_changes).
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Notices what other processes wrote since the last call (`PRAGMA data_version`).
    pub async fn poll_changes(&self) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.run(move |connection| {
            let version: u64 = connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
            inner.changes.send_if_modified(|seen| std::mem::replace(seen, version) != version);
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
        let id = id.to_owned();
        self.change(move |connection| {
            Ok(connection.execute("UPDATE keys SET revoked = 1 WHERE id = ?", [id])? > 0)
        })
        .await
    }

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
            connection.execute("DELETE FROM passes WHERE expires <= ?", [now])?;
            connection.execute(
                "DELETE FROM passes WHERE hash IN (SELECT hash FROM passes
                     ORDER BY expires DESC LIMIT -1 OFFSET ?)",
                [MAX_PASSES],
            )?;
            connection.execute(
                "INSERT INTO passes(hash, kind, principal, expires) VALUES (?, ?, ?, ?)",
                params![hash, kind.name(), principal, expires],
            )?;
            Ok(())
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
        self.change(move |connection| {
            let mut take = connection.prepare_cached(
                "DELETE FROM passes WHERE hash = ? AND kind = ? AND expires > ?
                 RETURNING principal",
            )?;
            Ok(take.query_row(params![hash, kind.name(), now], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Notes how far a durable consumer has come.
    pub async fn save_cursor(&self, name: &str, position: Position) -> Result<(), StoreError> {
        let (name, position) = (name.to_owned(), position.to_string());
        self.run(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO cursors(name, position) VALUES (?, ?)
                     ON CONFLICT DO UPDATE SET position = excluded.position",
                )?
                .execute([name, position])?;
            Ok(())
        })
        .await
    }

    /// How far a durable consumer had come.
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

    async fn change<T: Send + 'static>(
        &self,
        statement: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let result = self.run(statement).await?;
        self.0.changes.send_modify(|seen| *seen = seen.wrapping_add(1));
        Ok(result)
    }

    async fn run<T: Send + 'static>(
        &self,
        statement: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || statement(&inner.connection.lock()))
            .await
            .map_err(|_| StoreError::Closing)?
    }
}

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
