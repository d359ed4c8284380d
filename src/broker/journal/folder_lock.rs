//! One pulsehub a data folder.

use std::{
    fs::{File, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::JournalOpenError;
use crate::sqlite;

/// Nobody else opens the folder while this lives. It ends with the process, however that ends.
pub(super) struct FolderLock(File);

impl FolderLock {
    /// Locks `folder`; refused if another pulsehub has locked it.
    pub(super) fn take(folder: &Path) -> Result<Self, JournalOpenError> {
        let path = folder.join("lock");
        let io = |error| sqlite::OpenError::Io { path: path.clone(), error };
        let mut options = File::options();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(JournalOpenError::Locked(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(io(error).into()),
        }
    }
}

impl Drop for FolderLock {
    /// Closing the file would not do: a program that is being started has it too, until it runs (flock(2)).
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the data folder stays locked until pulsehub ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stayed_locked_while_another_program_was_being_started() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        assert!(matches!(FolderLock::take(folder.path()), Err(JournalOpenError::Locked(_))));
        let _of_a_fork = lock.0.try_clone().unwrap();
        drop(lock);
        assert!(FolderLock::take(folder.path()).is_ok());
    }
}
