//! The peer nchan: a module of nginx, from the Debian packages nginx and libnginx-mod-nchan.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{Ack, Dialect, Event, Heard, Seat, Site, Started, http};
use crate::{frame::Frame, process::Process};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const PROGRAM: &str = "/usr/sbin/nginx";

pub(super) fn missing() -> Option<&'static str> {
    let there = Path::new(MODULE).exists() && Path::new(PROGRAM).exists();
    (!there).then_some("not installed: apt-get install nginx libnginx-mod-nchan")
}

/// Starts nginx with `peers/nginx.conf`.
pub(super) fn start(site: &Site, folder: &Path) -> Result<Started> {
    let address = super::free_address()?;
    let config = include_str!("../../peers/nginx.conf")
        .replace("{address}", &address.to_string())
        .replace("{folder}", &folder.display().to_string())
        .replace("{module}", MODULE);
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).context("cannot write nginx's settings")?;
    let mut command = Command::new(PROGRAM);
    command.arg("-c").arg(&file).arg("-p").arg(folder).args(["-e", "stderr"]);
    let mut process = Process::start(&command, site.core, &folder.join("log"))?;
    super::wait_until_open(&mut process, address)?;
    Ok(Started::alone(address, address, process, Nchan))
}

struct Nchan;

impl Dialect for Nchan {
    fn upgrade(&self, seat: &Seat) -> Vec<u8> {
        http::upgrade(&format!("/sub/{}", seat.topics[0]), "")
    }

    fn join(&self, _: &Seat) -> Option<Vec<u8>> {
        None
    }

    fn hear(&self, _: &Frame<'_>) -> Heard {
        Heard::Events
    }

    fn greet(&self) -> Vec<u8> {
        Vec::new()
    }

    /// nchan takes one event a request: a batch goes out as requests without waiting in between.
    fn publish(&self, events: &[Event], out: &mut Vec<u8>) -> usize {
        for event in events {
            let body = event.mark.payload(event.bytes);
            http::post(&format!("/pub/{}", event.topic), "", body.as_bytes(), out);
        }
        events.len()
    }

    fn acknowledged(&self, bytes: &[u8]) -> Result<Option<Ack>> {
        http::acknowledged(bytes)
    }
}
