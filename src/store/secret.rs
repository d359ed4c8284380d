//! The hub's own secret: a file that its owner alone can read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use crate::id::{self, RandomError};

const FILE: &str = "secret";

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
    /// None could be made.
    #[error(transparent)]
    Random(#[from] RandomError),
}

pub(super) fn read_or_make(folder: &Path) -> Result<SecretString, SecretError> {
    let path = folder.join(FILE);
    let io = |error| SecretError::Io { path: path.clone(), error };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let mode = fs::metadata(&path).map_err(io)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(SecretError::Open { path: path.clone(), mode });
            }
            Ok(text.trim().to_owned().into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(folder, &path)?;
            fs::read_to_string(&path).map_err(io).map(|text| text.trim().to_owned().into())
        }
        Err(error) => Err(io(error)),
    }
}

/// Written whole under another name first; a link fails if another process was quicker, and then
/// its secret is the one.
fn make(folder: &Path, path: &Path) -> Result<(), SecretError> {
    let secret = id::secret()?;
    let draft = folder.join(format!("{FILE}.{}", id::short()?));
    let io = |error| SecretError::Io { path: path.to_owned(), error };
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        writeln!(file, "{secret}")?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }?;
        File::open(folder)?.sync_all()
    };
    let written = write().map_err(io);
    fs::remove_file(&draft).map_err(io)?;
    written
}
