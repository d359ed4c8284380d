//! The hub's own secret: a file that its owner alone can read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret as _, SecretString};

use crate::id::{self, RandomError};

const FILE: &str = "secret";

/// The shortest secret, in bytes: as many as the hash of HS256 has (RFC 7518 section 3.2).
pub const MIN_SECRET: usize = 32;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or written.
    #[error("cannot use {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others can read the file.
    #[error(
        "{path} can be read by others (mode {mode:o}): run `chmod 600 {path}`, and if they may have read it, delete it so that a new one is made"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds too little to be a secret.
    #[error(
        "{path} holds {bytes} bytes, a secret needs at least {MIN_SECRET}: delete the file so that a new one is made; tokens signed with the old one end"
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// How many bytes it holds.
        bytes: usize,
    },
    /// None could be made.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The secret that the hub on `folder` signs with; made at the first call ever.
pub fn secret_in(folder: &Path) -> Result<SecretString, SecretError> {
    let path = folder.join(FILE);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(folder, &path)?;
            read(&path)
        }
        _ => read(&path),
    }
}

fn read(path: &Path) -> Result<SecretString, SecretError> {
    let io = |error| SecretError::Io { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(io)?;
    // Asked of the open file, so that it is the mode of what is read.
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(io)?;
    let secret = text.trim();
    if secret.len() < MIN_SECRET {
        return Err(SecretError::Short { path: path.to_owned(), bytes: secret.len() });
    }
    Ok(secret.to_owned().into())
}

/// Written whole under another name first; a link fails if another process was quicker, and then
/// its secret is the one.
fn make(folder: &Path, path: &Path) -> Result<(), SecretError> {
    let secret = id::secret()?;
    // A crash can leave a draft behind; nobody reads it, and the next maker takes another name.
    let draft = folder.join(format!("{FILE}.{}", id::short()?));
    let io = |error| SecretError::Io { path: path.to_owned(), error };
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        writeln!(file, "{}", secret.expose_secret())?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }?;
        File::open(folder)?.sync_all()
    };
    let written = write();
    let removed = fs::remove_file(&draft);
    // What went wrong first is what helps: a draft that was never made cannot be removed either.
    written.and(removed).map_err(io)
}
