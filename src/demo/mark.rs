//! The mark on a data folder with synthetic events: the page shows it, and no real log gets such events.

use std::{fs, io, path::Path};

use crate::sqlite::{self, OpenError};

/// A file in the data folder.
const MARK: &str = "demo";

const TEXT: &str = "The events in this folder are synthetic: `pulsehub demo` made them.\n";

/// Why a folder is not taken for synthetic events.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// It holds something else.
    #[error(
        "the folder holds something other than a demo: choose an empty one with --data, or leave --data out"
    )]
    NotEmpty,
    /// It cannot be made.
    #[error(transparent)]
    Folder(#[from] OpenError),
    /// It cannot be looked at or written to.
    #[error("the folder cannot be marked as a demo's: {0}")]
    Io(#[from] io::Error),
}

/// Whether the hub of this data folder shows synthetic data.
pub fn is_marked(folder: &Path) -> bool {
    folder.join(MARK).is_file()
}

/// Makes the folder if need be and marks it; refused if it holds anything that no demo made.
pub fn mark(folder: &Path) -> Result<(), MarkError> {
    if is_marked(folder) {
        return Ok(());
    }
    sqlite::make_folder(folder)?;
    if fs::read_dir(folder)?.next().is_some() {
        return Err(MarkError::NotEmpty);
    }
    Ok(fs::write(folder.join(MARK), TEXT)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_log_of_somebodys_own_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("journal.db"), "").unwrap();
        assert!(matches!(mark(&own), Err(MarkError::NotEmpty)));
        assert!(!is_marked(&own));
        let new = folder.path().join("new");
        mark(&new).unwrap();
        fs::write(new.join("journal.db"), "").unwrap();
        mark(&new).unwrap();
        assert!(is_marked(&new));
    }
}
