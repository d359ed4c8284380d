//! The hub as a process of its own, which can be killed and started again on its folder.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::oneshot, time::timeout};

use super::{DEADLINE, small_disk::SmallDisk};

/// A folder with settings and data, on which one hub after the other is run.
pub(crate) struct Home {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
    /// What its data are on, if that is a disk of its own.
    disk: Option<SmallDisk>,
}

impl Home {
    /// `settings` is the text of the settings file.
    pub(crate) fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pulsehub.toml"), settings).unwrap();
        Self { folder, variables: Vec::new(), disk: None }
    }

    /// With the data on a disk of `size` bytes; None where the machine does not allow that.
    pub(crate) fn on_a_small_disk(mut self, size: u64) -> Option<Self> {
        self.disk = Some(SmallDisk::at(&self.data(), size)?);
        Some(self)
    }

    pub(crate) fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// Changes the text of the settings file, for the next hub.
    pub(crate) fn settings(&self, text: &str) {
        std::fs::write(self.folder.path().join("pulsehub.toml"), text).unwrap();
    }

    /// With a variable of the environment, for every command.
    pub(crate) fn with_variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Starts a hub and waits until it listens.
    pub(crate) async fn start(&self) -> Process {
        let mut command = self.command("serve");
        command.args(["--listen", "127.0.0.1:0"]);
        self.listen(command).await
    }

    /// Starts a hub at this address: where another listened before, or where a document says.
    pub(crate) async fn start_at(&self, address: SocketAddr) -> Process {
        let mut command = self.command("serve");
        command.args(["--listen", &address.to_string()]);
        self.listen(command).await
    }

    /// Starts a hub to which a file that grows too large is an error, not its end.
    pub(crate) async fn start_ignoring_file_size_signals(&self) -> Process {
        let hub = self.command("serve");
        let mut command = clean(Command::new("bash"));
        command.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#]).arg(hub.get_program());
        command.args(hub.get_args()).args(["--listen", "127.0.0.1:0"]);
        self.listen(command).await
    }

    /// Starts a hub that may have so many descriptors.
    pub(crate) async fn start_with_descriptors(&self, most: u32) -> Process {
        let hub = self.command("serve");
        let mut command = clean(Command::new("sh"));
        command.args(["-c", &format!(r#"ulimit -n {most} && exec "$0" "$@""#)]);
        command.arg(hub.get_program());
        command.args(hub.get_args()).args(["--listen", "127.0.0.1:0"]);
        self.listen(command).await
    }

    /// Starts a hub that must not come up; what it says.
    pub(crate) async fn start_fails(&self) -> String {
        let mut command = self.command("serve");
        command.args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.output());
        let ended = timeout(DEADLINE, ended).await.expect("it came up").unwrap().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        String::from_utf8(ended.stderr).unwrap()
    }

    async fn listen(&self, mut command: Command) -> Process {
        let log = self.folder.path().join("log");
        let log_file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut process = Process { child, address: SocketAddr::from(([0, 0, 0, 0], 0)), log };
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let _ = tell.send(lines.next()); // the test may have given up
            lines.for_each(drop); // a pipe nobody reads would end the hub
        });
        let line = timeout(DEADLINE, told).await.ok().and_then(Result::ok).flatten();
        let line = line.and_then(Result::ok).unwrap_or_default();
        let address = line.strip_prefix("listening on http://");
        let address = address.and_then(|address| address.parse().ok());
        process.address = address.unwrap_or_else(|| panic!("{line:?}, {}", process.log()));
        process
    }

    /// A token for `patterns`, to publish and to subscribe.
    pub(crate) fn token(&self, name: &str, patterns: &str) -> String {
        let mut command = self.command("token");
        command.args(["--sub", name, "--subscribe", patterns, "--publish", patterns]);
        output(command).trim().to_owned()
    }

    /// The events in the log that match, whether a hub runs or not.
    pub(crate) fn export(&self, pattern: &str) -> Vec<Value> {
        let mut command = self.command("export");
        command.args(["--topics", pattern]);
        output(command).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs a command that talks to this hub, as an admin; what it prints.
    pub(crate) async fn run_at(&self, hub: &Process, name: &str, arguments: &[&str]) -> String {
        let mut token = self.command("token");
        token.args(["--sub", "root", "--role", "admin"]);
        let mut command = clean(Command::new(env!("CARGO_BIN_EXE_pulsehub")));
        command.arg(name).args(arguments).env("PULSEHUB_TOKEN", output(token).trim());
        command.arg("--url").arg(format!("http://{}", hub.address));
        tokio::task::spawn_blocking(|| output(command)).await.unwrap()
    }

    /// Runs a command that talks to this hub with a token; what it prints.
    pub(crate) async fn run_as(
        &self,
        token: &str,
        hub: &Process,
        name: &str,
        arguments: &[&str],
    ) -> String {
        let mut command = clean(Command::new(env!("CARGO_BIN_EXE_pulsehub")));
        command.arg(name).args(arguments).env("PULSEHUB_TOKEN", token);
        command.arg("--url").arg(format!("http://{}", hub.address));
        tokio::task::spawn_blocking(|| output(command)).await.unwrap()
    }

    /// Runs a command on the folder, which may be of two words; what it prints.
    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = self.command(name);
        command.args(arguments);
        output(command)
    }

    /// All that its hubs wrote about themselves.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where the settings are, and whatever a test puts beside them.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the log and the store are.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, name: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_pulsehub").to_owned();
        let enter = self.disk.iter().flat_map(SmallDisk::enter);
        let words: Vec<String> = enter.chain([program]).collect();
        let mut command = clean(Command::new(&words[0]));
        command.args(&words[1..]);
        command.args(name.split(' ')).arg("--data").arg(self.data());
        command.arg("--config").arg(self.folder.path().join("pulsehub.toml"));
        // Hundreds of hubs need not write it; a test that wants it has the variable.
        command.env("PULSEHUB_JOURNAL_RESERVE", "0 B");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The tester's own variables must not become the hub's settings.
fn clean(mut command: Command) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path);
    command
}

fn output(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A running hub; killed when dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Process {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "the hub had ended by itself: {}", self.log());
        self.end();
    }

    /// Stops the process in the middle of whatever it does.
    pub(crate) fn freeze(&self) {
        super::signal(self.id(), "STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        super::signal(self.id(), "CONT");
    }

    /// Waits until the process has ended by itself; its exit code.
    pub(crate) async fn ends(&mut self) -> Option<i32> {
        let child = std::cell::RefCell::new(&mut self.child);
        let ended = || async { child.borrow_mut().try_wait().unwrap() };
        super::eventually("the end of the hub", ended).await.code()
    }

    /// What the hub wrote last, for messages.
    pub(crate) fn log(&self) -> String {
        last_lines(&self.log)
    }

    fn end(&mut self) {
        // It may have ended already, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
