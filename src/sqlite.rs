//! Opening one of our SQLite files: ours or new, never somebody else's.

mod reserve;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use self::reserve::{Reserve, give_up_reserve};

/// What tells our file from others.
#[derive(Debug, Clone, Copy)]
pub struct FileIdentity {
    /// `PRAGMA application_id`.
    pub application_id: u32,
    /// `PRAGMA user_version`: the version of the schema.
    pub version: u32,
    /// Its tables, for a new file.
    pub schema: &'static str,
}

/// Why a file was not opened. In every case it was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("cannot open {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file does not begin like a database.
    #[error("{0} is not a pulsehub file; move it away or choose another data folder")]
    Foreign(PathBuf),
    /// The file was written by a newer pulsehub.
    #[error("{path} has schema version {found}, this pulsehub knows {known}; run a newer pulsehub")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// SQLite cannot make sense of the file.
    #[error(
        "{path} is damaged ({error}); it was left untouched: restore it from a backup, or move it away to start afresh"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        error: rusqlite::Error,
    },
    /// There was no room on the disk, or it could not be written.
    #[error("cannot write {path}: {error}; make room on the disk")]
    Full {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        error: rusqlite::Error,
    },
    /// Another process holds the file.
    #[error("{0} is in use by another program: stop it, or try again")]
    Busy(PathBuf),
}

impl OpenError {
    /// Whether there was no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// What SQLite said while it opened the file at `path`.
    pub fn of(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error {
            error if is_busy(&error) => Self::Busy(path),
            error if is_full(&error) => Self::Full { path, error },
            error => Self::Damaged { path, error },
        }
    }
}

/// How long another process may hold the file.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// SQLite's database header (sqlite.org/fileformat2.html section 1.3) as far as it concerns us.
const HEADER: usize = 72;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Makes the folder, for its owner only, where there is none.
pub fn make_folder(path: &Path) -> Result<(), OpenError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| OpenError::Io { path: path.to_owned(), error })
}

/// Opens or makes the file at `path` for reading and writing, in WAL mode, checkpoints by hand.
pub fn open(path: &Path, identity: &FileIdentity) -> Result<Connection, OpenError> {
    let is_new = check_header(path, identity)?;
    let failed = |error| OpenError::of(path, error);
    let connection = Connection::open(path).map_err(failed)?;
    prepare(&connection).map_err(failed)?;
    if is_new {
        create(&connection, identity).map_err(failed)?;
    }
    switch_to_wal(&connection).map_err(failed)?;
    Ok(connection)
}

/// Opens the file at `path`, which [`open`] has opened before, once more.
pub fn open_again(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Opens the file at `path`, which [`open`] has opened before, for reading only.
pub fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    use rusqlite::OpenFlags;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Reads the header without SQLite, which might already change something. True for a new file.
pub fn check_header(path: &Path, identity: &FileIdentity) -> Result<bool, OpenError> {
    let io = |error| OpenError::Io { path: path.to_owned(), error };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            return match options.write(true).create_new(true).mode(0o600).open(path) {
                // Another process was quicker; `create` finds out how far it has come.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io(error)),
                _ => Ok(true),
            };
        }
        Err(error) => return Err(io(error)),
    };
    let mut header = Vec::new();
    file.by_ref().take(HEADER as u64).read_to_end(&mut header).map_err(io)?;
    if header.is_empty() {
        return Ok(true);
    }
    let number = |at: usize| {
        header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    };
    if header.get(..16) != Some(MAGIC) || number(68) != Some(identity.application_id) {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    match number(60) {
        Some(found) if found > identity.version => {
            Err(OpenError::Newer { path: path.to_owned(), found, known: identity.version })
        }
        _ => Ok(false),
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Checkpoints happen when we say, on every connection: the last one to close would else do it.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Everything in one transaction, so that a crash leaves an empty file or a whole one, and of two
/// processes that start together one makes the tables and the other finds them.
fn create(connection: &Connection, identity: &FileIdentity) -> rusqlite::Result<()> {
    // Deferred, for the next line must be the first to write: after an immediate one the file would
    // have its layout, and before the transaction the line would commit a header without our id.
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Deferred)?;
    transaction.pragma_update(None, "auto_vacuum", "incremental")?;
    let found: u32 = transaction.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if found != identity.application_id {
        transaction.execute_batch(&format!(
            "PRAGMA application_id={}; PRAGMA user_version={}; {}",
            identity.application_id, identity.version, identity.schema
        ))?;
    }
    transaction.commit()
}

/// The switch needs the file for itself, and SQLite gives up at once where another process wants
/// the same: its busy timeout does not cover this.
fn switch_to_wal(connection: &Connection) -> rusqlite::Result<()> {
    let started = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(error) if is_busy(&error) && started.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

/// Whether there was no room for what was to be written: the disk is full, or a quota or a limit of the
/// process ends there, which SQLite takes for a failed write.
pub fn is_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    const UNWRITTEN: [i32; 4] = [
        ffi::SQLITE_FULL,
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_SHMSIZE,
        ffi::SQLITE_IOERR_FSYNC,
    ];
    error.sqlite_error().is_some_and(|error| UNWRITTEN.contains(&error.extended_code))
}

/// Whether what a failed COMMIT was to do may be done, or be found done after a crash. It is not where a page could not be
/// written, for only the last page of a transaction makes it one.
pub fn may_be_done(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    const UNWRITTEN: [i32; 2] = [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE];
    error.sqlite_error().is_none_or(|error| !UNWRITTEN.contains(&error.extended_code))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}
