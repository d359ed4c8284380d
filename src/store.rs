//! What nodes must agree on beside the log: the secret, leases, cursors, what duties keep, and collections.

mod collection;
mod document;
mod local;
mod secret;
mod shared;
mod watchers;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use secrecy::SecretString;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use self::document::PAGE_BYTES;
pub use self::{
    collection::Collection,
    document::{
        CollectionFull, CollectionKind, Document, DocumentPage, DocumentPlace, DocumentVersion,
        MAX_DOCUMENT, MAX_PAGE, NewDocument, Writes,
    },
    local::LocalStore,
    secret::{MIN_SECRET, SecretError, secret_in},
    shared::SharedStore,
};
use crate::{
    lease::Fence,
    position::Position,
    redis::{RedisFailure, Server},
    sqlite,
    time::Clock,
};

/// What nodes must agree on beside the log. Cheap to clone.
#[derive(Clone)]
pub enum Store {
    /// Of one node: a file.
    Local(LocalStore),
    /// Of many nodes: a Redis.
    Shared(SharedStore),
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
    Redis(#[from] RedisFailure),
    /// The lease is another's.
    #[error("the lease is another's now")]
    Fenced,
    /// A document is there already, or is another version than was read.
    #[error("somebody else changed it meanwhile: read it again")]
    Conflict,
    /// There are as many documents as there may be.
    #[error(transparent)]
    Full(#[from] CollectionFull),
    /// A document takes too much.
    #[error("the document has {bytes} bytes: one of the {name} may have {MAX_DOCUMENT}")]
    TooLarge {
        /// The collection's name.
        name: &'static str,
        /// What the document takes.
        bytes: usize,
    },
    /// The file is of an earlier version and somebody else's at present.
    #[error(
        "{0} was written by an earlier pulsehub, and another program has it open: stop the hub that runs on it, start this \
         version of it, and try again"
    )]
    InUse(PathBuf),
    /// The keys in Redis are of another version.
    #[error("the store was not opened: {0}")]
    Version(String),
    /// The secret could not be made or read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The runtime is ending.
    #[error("the store is closing")]
    Closing,
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

impl Store {
    /// Opens the store in `folder`, or makes it. Several processes may have it open. One of an earlier version is brought
    /// up to date, and can be opened by that version no more.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, StoreError> {
        LocalStore::open(folder, clock).map(Self::Local)
    }

    /// The store in the Redis that many nodes share.
    pub async fn join(server: Server, clock: Clock) -> Result<Self, StoreError> {
        SharedStore::join(server, clock).await.map(Self::Shared)
    }

    /// The secret the hub signs with; made at the first call ever.
    pub fn signing_secret(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Local(local) => local.signing_secret(),
            Self::Shared(shared) => Ok(shared.signing_secret()),
        }
    }

    /// The documents of one kind.
    pub fn collection<T: Serialize + DeserializeOwned>(
        &self,
        kind: CollectionKind,
    ) -> Collection<T> {
        Collection::new(self.clone(), kind)
    }

    /// Moves with the changes of some kinds of documents that are to be told: at once with those made here, and with those
    /// of other processes once [`poll`](Self::poll) has noticed. It may also move without a change.
    pub fn watch(&self, kinds: &[CollectionKind]) -> watch::Receiver<u64> {
        match self {
            Self::Local(local) => local.watch(kinds),
            Self::Shared(shared) => shared.watch(kinds),
        }
    }

    /// Notices what other processes wrote since the last call, or since the store was opened.
    ///
    /// One task of the application calls it about once a second; that is how long a revocation
    /// made elsewhere takes to reach open sockets. Whoever comes anew is checked at once.
    pub async fn poll(&self) -> Result<(), StoreError> {
        match self {
            Self::Local(local) => local.poll().await,
            Self::Shared(shared) => shared.poll().await,
        }
    }

    /// Takes the lease of the duty `name` for `holder`, for [`LEASE`](crate::lease::LEASE), or renews the one that is
    /// `held`; None while another holds it. One that is taken fences whatever was written under those before.
    pub async fn lease(
        &self,
        name: &str,
        holder: &str,
        held: Option<&Fence>,
    ) -> Result<Option<Fence>, StoreError> {
        match self {
            // The lock on the data folder lets only one node run: the lease is its own.
            Self::Local(_) => Ok(Some(Fence::new(name, 0))),
            Self::Shared(shared) => shared.lease(name, holder, held).await,
        }
    }

    /// Gives a lease back, so that nobody has to wait until it has run out.
    pub async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Shared(shared) => shared.release(fence).await,
        }
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
