//! nginx, with the very configuration of its guide, before one hub.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{eventually, port::free_port};

/// A running proxy; ended when dropped.
pub(crate) struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    pub(crate) async fn before(hub: SocketAddr) -> Self {
        let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides/proxies.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        let (_, shown) = guide.split_once("```nginx\n").unwrap();
        let (shown, _) = shown.split_once("```").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        // Only what this machine does not have: the site's name and certificate, and the usual ports and folders.
        let mut settings: String = shown
            .lines()
            .filter(|line| !line.contains("ssl_certificate"))
            .collect::<Vec<_>>()
            .join("\n");
        for (theirs, ours) in [
            ("server 127.0.0.1:8080;", format!("server {hub};")),
            ("listen 443 ssl http2;", format!("listen {address};")),
            ("/var/log/nginx", place.to_string()),
        ] {
            assert!(settings.contains(theirs), "{theirs}");
            settings = settings.replace(theirs, &ours);
        }
        let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {place}/{name};\n"))
            .concat();
        let settings = format!(
            "daemon off;\nworker_processes 1;\npid {place}/pid;\nerror_log {place}/error.log;\n\
             events {{ worker_connections 256; }}\nhttp {{\n{folders}{settings}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, settings).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("nginx")
            .env("PATH", format!("{path}:/usr/sbin"))
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx: ./tools/setup installs it");
        let proxy = Self { child, address, _folder: folder };
        eventually("nginx", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        proxy
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker is ended by the main process, which a kill would leave no time for.
        super::signal(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}
