//! Room kept on the disk for what makes room: given up when the disk is full, so that old data can be deleted.
//!
//! A deletion is written to SQLite's write-ahead log first. On a full disk it would fail like any other write.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// How much is written in one step.
const STEP: u64 = 1 << 20;

/// A file of random bytes, which no file system stores in less room than they take.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    size: u64,
    made: u64,
}

impl Reserve {
    /// A reserve of `size` bytes in `folder`, as far as it is there.
    pub fn new(folder: &Path, size: u64) -> Self {
        let path = file(folder);
        let made = fs::metadata(&path).map_or(0, |found| found.len());
        Self { path, size, made }
    }

    /// Its size when it is whole, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes one step more of it; true once it is whole. It is not begun before the disk has room for half as much
    /// again, or the disk would soon be full once more. What is there of it is given back when there is no room for
    /// the rest.
    pub fn grow(&mut self) -> io::Result<bool> {
        if self.made == self.size {
            return Ok(true);
        }
        if self.made > self.size {
            self.give_up(); // it was configured larger
        }
        if self.made == 0 {
            find_room(&self.path, self.size.saturating_add(self.size / 2))?;
        }
        match self.add(STEP.min(self.size - self.made)) {
            Ok(()) => Ok(self.made == self.size),
            Err(error) => {
                self.give_up();
                Err(error)
            }
        }
    }

    fn add(&mut self, count: u64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).mode(0o600).open(&self.path)?;
        let mut bytes = vec![0; usize::try_from(count).map_err(io::Error::other)?];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        file.write_all(&bytes)?;
        // Some file systems find only now that there is no room.
        file.sync_data()?;
        self.made += count;
        Ok(())
    }

    /// Whether it was whole and somebody gave it up.
    pub fn was_given_up(&self) -> bool {
        self.made > 0 && fs::metadata(&self.path).is_err()
    }

    /// Frees its room.
    pub fn give_up(&mut self) {
        self.made = 0;
        give_up_at(&self.path);
    }
}

/// Whether the disk of `path` says that so many bytes are free; a quota it does not tell of is found in writing.
fn find_room(path: &Path, wanted: u64) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= wanted {
        return Ok(());
    }
    let message = format!("{free} bytes are free, {wanted} are wanted");
    Err(io::Error::new(io::ErrorKind::StorageFull, message))
}

/// Frees the room of the reserve in `folder`, whoever made it: its owner finds out.
pub fn give_up_reserve(folder: &Path) {
    give_up_at(&file(folder));
}

fn give_up_at(path: &Path) {
    // To be cut to nothing frees the room also where the file cannot be removed, or is open.
    let cut = File::options().write(true).open(path).and_then(|file| file.set_len(0));
    let removed = fs::remove_file(path);
    for error in [cut.err(), removed.err()].into_iter().flatten() {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "the reserve could not be given up");
        }
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("reserve")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_step_by_step_kept_and_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let size = 2 * STEP + 7;
        let length = || fs::metadata(file(folder.path())).map_or(0, |found| found.len());
        let mut reserve = Reserve::new(folder.path(), size);
        let steps = std::iter::from_fn(|| Some(reserve.grow().unwrap()));
        assert_eq!(steps.take_while(|whole| !whole).count(), 2);
        assert_eq!(length(), size);
        let mut again = Reserve::new(folder.path(), size);
        assert!(again.grow().unwrap() && !again.was_given_up());
        give_up_reserve(folder.path());
        assert!(again.was_given_up() && reserve.was_given_up());
        let mut none = Reserve::new(folder.path(), 0);
        assert!(none.grow().unwrap() && !none.was_given_up() && length() == 0);
        // Smaller than before.
        while !Reserve::new(folder.path(), size).grow().unwrap() {}
        assert!(Reserve::new(folder.path(), 5).grow().unwrap());
        assert_eq!(length(), 5);
    }

    #[test]
    fn a_part_for_which_there_is_no_room_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(folder.path(), 2 * STEP);
        assert!(!reserve.grow().unwrap());
        // From now on the disk is full.
        let path = file(folder.path());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        assert_eq!(reserve.grow().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(reserve.made, 0);
        assert!(fs::symlink_metadata(&path).is_err(), "it is still there");
    }

    #[test]
    fn it_is_not_begun_where_there_is_no_room_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let disk = rustix::fs::statvfs(folder.path()).unwrap();
        let all = disk.f_blocks * disk.f_frsize;
        let mut reserve = Reserve::new(folder.path(), all / 4 * 3);
        assert_eq!(reserve.grow().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!file(folder.path()).exists());
    }
}
