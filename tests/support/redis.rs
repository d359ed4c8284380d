//! A Redis of the test's own, which can be frozen, killed and started again on its folder.

use std::{
    ffi::OsString,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use pulsehub::{
    redis::{RedisConfig, Server},
    time::Span,
};
use tempfile::TempDir;

use super::{DEADLINE, eventually, port::free_port};

/// The server program; `REDIS_SERVER` names another, such as a Valkey's.
pub(super) fn program() -> OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// A running Redis; killed when dropped.
pub(crate) struct RedisServer {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// A Redis that writes every command to its disk before it answers.
    pub(crate) async fn start() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// A Redis with these arguments.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        let mut redis = Self { folder, port, arguments, child: None };
        redis.start_again().await;
        redis
    }

    /// A Redis that speaks only TLS, with this certificate and key (paths), and wants a password.
    pub(crate) async fn with_tls(certificate: &str, key: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let arguments = [
            ["--tls-port", &port.to_string()],
            ["--tls-cert-file", certificate],
            ["--tls-key-file", key],
            ["--tls-auth-clients", "no"],
            ["--requirepass", password],
            ["--appendonly", "yes"],
        ];
        let arguments = arguments.as_flattened().iter().map(|text| (*text).to_owned()).collect();
        let mut redis = Self { folder, port, arguments, child: None };
        redis.launch(0);
        let listens = || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() };
        eventually("a Redis that listens", listens).await;
        redis
    }

    /// Starts it on its folder and port and waits until it answers.
    pub(crate) async fn start_again(&mut self) {
        self.launch(self.port);
        let url = self.url();
        eventually("an answer of Redis", || async {
            let client = redis::Client::open(&*url).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").query_async::<()>(&mut connection).await.ok()
        })
        .await;
    }

    fn launch(&mut self, port: u16) {
        let mut command = Command::new(program());
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--logfile", "redis.log"]);
        command.arg("--dir").arg(self.folder.path()).args(&self.arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("a Redis is installed (tools/setup, or REDIS_SERVER)"));
    }

    /// What it wrote about itself since it began on its folder.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("redis.log")).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Takes a copy of what is on its disk; it must not be writing meanwhile, or be a crash's leavings.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), copy.path());
        copy
    }

    /// Puts what is on the disk of one that is down back to what it was; none loses everything.
    pub(crate) fn fall_back_to(&self, copy: Option<&TempDir>) {
        assert!(self.child.is_none(), "it runs");
        std::fs::remove_dir_all(self.folder.path()).unwrap();
        std::fs::create_dir(self.folder.path()).unwrap();
        if let Some(copy) = copy {
            copy_folder(copy.path(), self.folder.path());
        }
    }

    /// How hubs in this process connect to it, with short patience.
    pub(crate) fn server(&self) -> Server {
        server(&self.url())
    }

    /// Stops it in the middle of whatever it does.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// Ends it as a crash of its machine does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already, and then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends one command, on a connection of its own.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(&*self.url()).unwrap();
        // The half second that it waits by itself is little where all tests share two cores.
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        asked.query_async(&mut connection).await.unwrap()
    }

    fn signal(&self, name: &str) {
        super::signal(self.child.as_ref().unwrap().id(), name);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// How hubs in this process connect to the Redis at `url`, with short patience.
pub(crate) fn server(url: &str) -> Server {
    server_with_replicas(url, 0)
}

/// The same, where so many replicas are to have what is answered: a busy machine may let one of them wait for long.
pub(crate) fn server_with_replicas(url: &str, replicas: u32) -> Server {
    let timeout = Span(Duration::from_secs(if replicas > 0 { 4 } else { 1 }));
    let config = RedisConfig { prefix: "pulsehub".to_owned(), timeout, replicas };
    Server::new(&url.into(), config).unwrap()
}
