//! HAProxy, with the very file that is shipped, before two hubs.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A running proxy; ended when dropped.
pub(crate) struct Haproxy {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

/// The file in its folder that it logs to.
const LOG: &str = "log";

impl Haproxy {
    pub(crate) fn before(hubs: [SocketAddr; 2]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/haproxy.cfg");
        let shipped = fs::read_to_string(path).unwrap();
        // Only what this machine does not have: the names of the nodes, and the port for everybody. The
        // proxy inherits a listening socket as its standard input, so that nobody else can get the port.
        // And requests are logged, so that it is seen how.
        let mut settings = shipped.replacen("bind :8080", "bind fd@0", 1);
        settings = settings.replace("local0 notice", "local0 info");
        for (name, hub) in ["hub-1:8080", "hub-2:8080"].into_iter().zip(hubs) {
            settings = settings.replace(name, &hub.to_string());
        }
        assert_eq!(settings.matches("127.0.0.1:").count(), 4, "{settings}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("haproxy")
            .env("PATH", format!("{path}:/usr/sbin"))
            .args(["-db", "-f"])
            .arg(file)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(File::create(folder.path().join(LOG)).unwrap())
            .spawn()
            .expect("haproxy: ./tools/setup installs it");
        Self { child, address, folder }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join(LOG)).unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
