//! A disk of a few MiB that a test fills: a file system in memory, which only a namespace of its own sees.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Gone when dropped.
pub(crate) struct SmallDisk {
    /// Keeps the namespace.
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// Puts `size` bytes at `folder`; None where the machine does not allow it, with a word why.
    pub(crate) fn at(folder: &Path, size: u64) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "bash", "-c"]);
        command.arg(r#"mount -t tmpfs -o size="$1",mode=700 none "$0" && echo ready && read -r _"#);
        command.arg(folder).arg(size.to_string());
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let disk = Self { holder, folder: folder.to_owned() };
        if line.trim() != "ready" {
            println!("skipped: this machine lets nobody mount a file system of his own");
            return None;
        }
        Some(disk)
    }

    /// Words that run a program where the disk is seen.
    pub(crate) fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.holder.id());
        ["nsenter", &target, "--user", "--mount", "--preserve-credentials", "--wd=/"]
            .map(str::to_owned)
            .to_vec()
    }

    /// A file on it, for whoever does not see it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").unwrap()).join(name)
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut ballast = self.ballast();
        for size in [64 << 10, 4096, 1] {
            while ballast.write_all(&vec![7; size]).is_ok() {}
        }
    }

    /// Gives so many bytes of it back.
    pub(crate) fn free(&self, bytes: u64) {
        let ballast = self.ballast();
        ballast.set_len(ballast.metadata().unwrap().len().saturating_sub(bytes)).unwrap();
    }

    fn ballast(&self) -> File {
        File::options().create(true).append(true).open(self.file("ballast")).unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
