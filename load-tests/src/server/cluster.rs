//! Two hubs that share one Redis and one secret, with nothing in front of them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    Site, Started,
    hub::{self, Hub},
};
use crate::process::Process;

const PROGRAM: &str = "redis-server";

pub(super) fn missing() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file());
    (!there).then_some("not installed: apt-get install redis-server")
}

/// Starts an empty Redis and two nodes. Subscribers and publishers take turns between them.
pub(super) fn start(site: &Site, folder: &Path, settings: &toml::Table) -> Result<Started> {
    let (redis, address) = redis(site, &subfolder(folder, "redis")?)?;
    let (secret, url) = (hub::secret()?, format!("redis://{address}"));
    let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
    for name in ["node-1", "node-2"] {
        let folder = subfolder(folder, name)?;
        let (node, address) = hub::node(site, &folder, settings, &secret, &["--redis", &url])?;
        nodes.push(node);
        addresses.push(address);
    }
    let (publishers, dialect) = (addresses.clone(), Box::new(Hub::new(&secret)?));
    Ok(Started { addresses, publishers, nodes, redis: Some(redis), dialect })
}

fn redis(site: &Site, folder: &Path) -> Result<(Process, SocketAddr)> {
    let address = super::free_address()?;
    let mut command = Command::new(PROGRAM);
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"]);
    command.arg(folder).args(["--appendonly", "yes", "--appendfsync", "everysec"]);
    // No snapshot and no rewrite: a child that comes and goes would be in some rounds and not in others.
    command.args(["--save", "", "--auto-aof-rewrite-percentage", "0"]);
    command.args(["--maxmemory-policy", "noeviction"]);
    let mut process = Process::start(&command, site.redis_core, &folder.join("log"))?;
    super::wait_until_open(&mut process, address)?;
    Ok((process, address))
}

fn subfolder(folder: &Path, name: &str) -> Result<PathBuf> {
    let folder = folder.join(name);
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
