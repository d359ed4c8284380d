//! A server under test as a process of its own on a core of its own; killed when dropped.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// A running server.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` on `core`; what it writes goes to `log`.
    pub(crate) fn start(program: &Command, core: usize, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().context("cannot share the log")?;
        // taskset replaces itself by the program, which so has its core before its first thread.
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &core.to_string()]);
        command.arg(program.get_program()).args(program.get_args());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().context("cannot run taskset (package util-linux)")?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until a line of its log has `words`, and gives what follows them on it.
    pub(crate) fn wait_for(&mut self, words: &str, patience: Duration) -> Result<String> {
        let deadline = std::time::Instant::now() + patience;
        loop {
            let log = File::open(&self.log).context("cannot read the server's log")?;
            for line in BufReader::new(log).lines() {
                if let Some((_, rest)) = line.context("the server's log")?.split_once(words) {
                    return Ok(rest.to_owned());
                }
            }
            self.check()?;
            if std::time::Instant::now() > deadline {
                bail!("the server did not say {words:?} within {patience:?}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot ask for the server")? {
            Some(status) => bail!("the server ended with {status}: {}", self.log()),
            None => Ok(()),
        }
    }

    /// Processor time it has used so far, with its children and the threads that have ended. It is the clock that
    /// /proc/PID/task/*/schedstat show for each thread that lives.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.pids()?.into_iter().try_fold(Duration::ZERO, |sum, pid| {
            let clock = clock_getcpuclockid(pid).context("no clock of the server")?;
            Ok(sum + Duration::from(clock_gettime(clock).context("cannot read its clock")?))
        })
    }

    /// Bytes of its memory that are resident, with its children.
    pub(crate) fn rss(&self) -> Result<u64> {
        self.pids()?.into_iter().try_fold(0, |sum, pid| {
            // The roll-up is exact; VmRSS may be off by some pages of each core.
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            Ok(sum + kib.context("no Rss in smaps_rollup")? * 1024)
        })
    }

    fn pids(&self) -> Result<Vec<Pid>> {
        let own = self.child.id();
        let mut pids = vec![Pid::from_raw(own.cast_signed())];
        for entry in fs::read_dir("/proc").context("cannot read /proc")? {
            let name = entry.context("cannot read /proc")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // A process may end while the list is read.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            // The name in brackets may hold anything; after it come the state and the parent.
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2));
            if parent.and_then(|parent| parent.parse::<u32>().ok()) == Some(own) {
                pids.push(Pid::from_raw(pid));
            }
        }
        Ok(pids)
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The children first (nginx has a worker): nobody else would end them.
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let children = self.pids().unwrap_or_default();
        for pid in children.into_iter().filter(|child| *child != pid) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL); // ended already
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps this program on `core`, away from the servers.
pub(crate) fn stay_on(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).with_context(|| format!("there is no core {core}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot use core {core}"))
}

/// Allows this program and the servers as many open files as they may have, and tells how many that is.
pub(crate) fn raise_files() -> Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the limit of files")?;
    Ok(most)
}
