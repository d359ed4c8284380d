//! A sentinel of the test's own, that watches one master and makes its replica the next.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{
    eventually,
    port::free_port,
    redis::{RedisServer, program},
};

/// What the sentinel calls the master.
pub(crate) const MASTER: &str = "hub";

/// A running sentinel; killed when dropped.
pub(crate) struct Sentinel {
    port: u16,
    child: Child,
    /// It writes what it learns into its settings.
    _folder: TempDir,
}

impl Sentinel {
    /// One that gives a silent master up after half a second, and knows of one replica of `master`.
    pub(crate) async fn watching(master: &RedisServer) -> Self {
        let sentinel = Self::start(master, "");
        let url = format!("redis://127.0.0.1:{}", sentinel.port);
        eventually("a sentinel that knows the replica", || async {
            let client = redis::Client::open(&*url).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            let mut ask = redis::cmd("SENTINEL");
            ask.arg("REPLICAS").arg(MASTER);
            let replicas: Vec<redis::Value> = ask.query_async(&mut connection).await.ok()?;
            (replicas.len() == 1).then_some(())
        })
        .await;
        sentinel
    }

    /// One with these settings beside its own.
    pub(crate) fn start(master: &RedisServer, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sentinel.conf");
        let port = free_port();
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {MASTER} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {MASTER} 500\n\
             sentinel failover-timeout {MASTER} 3000\n{settings}",
            master.port()
        );
        std::fs::write(&file, text).unwrap();
        // What Debian calls redis-sentinel or valkey-sentinel is the same program.
        let mut command = Command::new(program());
        command.arg(&file).arg("--sentinel").arg("--dir").arg(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.expect("a Redis is installed (tools/setup, or REDIS_SERVER)");
        Self { port, child, _folder: folder }
    }

    /// How a hub is told of it, beside a sentinel that is not there.
    pub(crate) fn url(&self) -> String {
        self.url_with("")
    }

    /// How a hub is told of it, beside another whom it asks first.
    pub(crate) fn url_behind(&self, first: &Self) -> String {
        format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{}/{MASTER}", first.port, self.port)
    }

    /// The same with a login, such as `:password@`.
    pub(crate) fn url_with(&self, login: &str) -> String {
        format!("redis+sentinel://{login}127.0.0.1:1,127.0.0.1:{}/{MASTER}", self.port)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
