//! What nodes must agree on beside the log: the secret, keys, passes, cursors, leases.

mod local;
mod passes;
mod secret;
mod shared;

use std::path::Path;

use bytes::Bytes;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::{
    local::Local,
    secret::{MIN_SECRET, SecretError},
    shared::Shared,
};
use crate::{
    grants::Grants,
    lease::Fence,
    position::Position,
    redis::{Failure, Server},
    sqlite,
    time::{Clock, Millis},
};

/// What nodes must agree on beside the log. Cheap to clone.
#[derive(Clone)]
pub enum Store {
    /// Of one node: a file.
    Local(Local),
    /// Of many nodes: a Redis.
    Shared(Shared),
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
    /// Redis did not do it.
    #[error("the store failed: {0}")]
    Redis(#[from] Failure),
    /// The lease is another's.
    #[error("the lease is another's now")]
    Fenced,
    /// There are as many passes as there may be.
    #[error(transparent)]
    Full(#[from] PassesFull),
    /// The secret could not be made or read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The runtime is ending.
    #[error("the store is closing")]
    Closing,
}

/// An API key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// A piece of what a duty keeps beside its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which row, a plain word of the duty's.
    pub row: Box<str>,
    /// Where in the row; below [`COLUMNS`].
    pub column: u64,
    /// What is kept there; None removes it.
    pub bytes: Option<Bytes>,
}

/// Columns are numbers below this.
pub const COLUMNS: u64 = 1 << 53;

/// A pass on its way into the store.
#[derive(Debug, Clone)]
pub struct NewPass {
    /// What it is for.
    pub kind: PassKind,
    /// Of its secret.
    pub hash: String,
    /// Whose it is; theirs are counted together.
    pub owner: String,
    /// What it stands for.
    pub principal: String,
    /// When it runs out.
    pub expires: Millis,
    /// How many of this kind its owner may have.
    pub most: usize,
}

/// Why a pass is not kept. Nobody's pass ends to make room for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {most} {}s {} already: end some, or wait until they run out", kind.name(),
    if *is_owners { "of this user" } else { "in all" })]
pub struct PassesFull {
    /// Of which kind.
    pub kind: PassKind,
    /// How many there may be.
    pub most: usize,
    /// Whether they are all of one owner.
    pub is_owners: bool,
}

/// The most passes of one kind at a time, of all owners together.
pub const MAX_PASSES: usize = 100_000;

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
    const fn name(self) -> &'static str {
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
        Local::open(folder, clock).map(Self::Local)
    }

    /// The store in the Redis that many nodes share.
    pub async fn join(server: Server, clock: Clock) -> Result<Self, StoreError> {
        Shared::join(server, clock).await.map(Self::Shared)
    }

    /// The secret the hub signs with; made at the first call ever.
    pub fn signing_secret(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Local(local) => local.signing_secret(),
            Self::Shared(shared) => Ok(shared.signing_secret()),
        }
    }

    /// Moves when a key or a session was taken back here, or by another process once
    /// [`poll_changes`](Self::poll_changes) has noticed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        match self {
            Self::Local(local) => local.changes(),
            Self::Shared(shared) => shared.changes(),
        }
    }

    /// Notices what other processes wrote since the last call, or since the store was opened.
    ///
    /// One task of the application calls it about once a second; that is how long a revocation
    /// made elsewhere takes to reach open sockets. Whoever comes anew is checked at once.
    pub async fn poll_changes(&self) -> Result<(), StoreError> {
        match self {
            Self::Local(local) => local.poll_changes().await,
            Self::Shared(shared) => shared.poll_changes().await,
        }
    }

    /// Keeps a new API key.
    pub async fn put_key(&self, key: StoredKey) -> Result<(), StoreError> {
        match self {
            Self::Local(local) => local.put_key(key).await,
            Self::Shared(shared) => shared.put_key(&key).await,
        }
    }

    /// The API key of this id.
    pub async fn key(&self, id: &str) -> Result<Option<StoredKey>, StoreError> {
        match self {
            Self::Local(local) => local.key(id).await,
            Self::Shared(shared) => shared.key(id).await,
        }
    }

    /// All API keys, oldest first.
    pub async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        match self {
            Self::Local(local) => local.keys().await,
            Self::Shared(shared) => shared.keys().await,
        }
    }

    /// Takes an API key back; false if there is none.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        match self {
            Self::Local(local) => local.revoke_key(id).await,
            Self::Shared(shared) => shared.revoke_key(id).await,
        }
    }

    /// Keeps a pass until it runs out, or refuses it where there are as many as there may be.
    pub async fn put_pass(&self, pass: NewPass) -> Result<(), StoreError> {
        match self {
            Self::Local(local) => local.put_pass(pass).await,
            Self::Shared(shared) => shared.put_pass(&pass).await,
        }
    }

    /// What a pass stands for.
    pub async fn pass(&self, kind: PassKind, hash: String) -> Result<Option<String>, StoreError> {
        match self {
            Self::Local(local) => local.pass(kind, hash).await,
            Self::Shared(shared) => shared.pass(kind, &hash).await,
        }
    }

    /// What a pass stands for, and takes it: the next to ask gets nothing.
    pub async fn take_pass(
        &self,
        kind: PassKind,
        hash: String,
    ) -> Result<Option<String>, StoreError> {
        match self {
            Self::Local(local) => local.take_pass(kind, hash).await,
            Self::Shared(shared) => shared.take_pass(kind, &hash).await,
        }
    }

    /// Takes a pass back; false if there is none.
    pub async fn revoke_pass(&self, kind: PassKind, hash: String) -> Result<bool, StoreError> {
        match self {
            Self::Local(local) => local.revoke_pass(kind, hash).await,
            Self::Shared(shared) => shared.revoke_pass(kind, &hash).await,
        }
    }

    /// Takes or renews the lease of the duty `name` for `holder`, for
    /// [`LEASE`](crate::lease::LEASE); None while another holds it.
    pub async fn lease(&self, name: &str, holder: &str) -> Result<Option<Fence>, StoreError> {
        match self {
            // The lock on the data folder lets only one node run: the lease is its own.
            Self::Local(_) => Ok(Some(Fence::new(name, 0))),
            Self::Shared(shared) => shared.lease(name, holder).await,
        }
    }

    /// Gives a lease back, so that nobody has to wait until it has run out.
    pub async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Shared(shared) => shared.release(fence).await,
        }
    }

    /// Notes how far a duty has come; refused when its lease has passed to another.
    pub async fn save_cursor(&self, fence: &Fence, position: Position) -> Result<(), StoreError> {
        self.save(fence, position, Vec::new()).await
    }

    /// Notes how far a duty has come together with what it keeps: all of it or, when
    /// its lease has passed to another, nothing. Rows and columns that are not named stay.
    ///
    /// One save is one transaction, or one script that Redis does nothing beside: about a MiB at a
    /// time is fine.
    pub async fn save(
        &self,
        fence: &Fence,
        position: Position,
        parts: Vec<Part>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Local(local) => local.save(fence.name(), position, parts).await,
            Self::Shared(shared) => shared.save(fence, position, &parts).await,
        }
    }

    /// What the duty `name` keeps in columns of a row, in their order, without those
    /// that hold nothing; all of one save.
    pub async fn parts(
        &self,
        name: &str,
        row: &str,
        columns: Vec<u64>,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Self::Local(local) => local.parts(name, row, columns).await,
            Self::Shared(shared) => shared.parts(name, row, columns).await,
        }
    }

    /// The rows in which the duty `name` keeps something, in no order.
    pub async fn rows(&self, name: &str) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Local(local) => local.rows(name).await,
            Self::Shared(shared) => shared.rows(name).await,
        }
    }

    /// How far a duty had come.
    pub async fn load_cursor(&self, name: &str) -> Result<Option<Position>, StoreError> {
        match self {
            Self::Local(local) => local.load_cursor(name).await,
            Self::Shared(shared) => shared.load_cursor(name).await,
        }
    }
}
