//! The machine a node runs on: its CPU, memory, disk, load and uptime, every few seconds on `hub.host`.
//!
//! Linux tells a container about the whole machine below it, and so do these numbers; only the
//! memory limit is the container's own, and the disk is the one that the data folder lies on.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use sysinfo::{CpuRefreshKind, DiskRefreshKind, Disks, System};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::OwnEvent,
    bounds,
    broker::Broker,
    event::METRICS,
    time::{Clock, Span},
    topic::{Topic, TopicError},
};

/// Where the numbers go.
const TOPIC: &str = "hub.host";

/// `[host]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Whether it is published.
    pub publish: bool,
    /// How often.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 100>")]
    pub interval: Span,
}

/// Takes the machine's numbers and publishes them.
pub struct Host {
    topic: Topic,
    node: Box<str>,
    config: HostConfig,
    clock: Clock,
    folder: PathBuf,
}

/// The payload of a `hub.host` event.
#[derive(Debug, Serialize)]
struct Payload {
    metrics: MachineNumbers,
}

/// What the system does not tell is null.
#[derive(Debug, Serialize)]
struct MachineNumbers {
    /// Of all cores together: 100 is the whole machine.
    cpu_percent: f64,
    cores: usize,
    memory_used_bytes: u64,
    memory_total_bytes: u64,
    memory_percent: Option<f64>,
    /// What the container may take, where there is such a limit.
    memory_limit_bytes: Option<u64>,
    swap_used_bytes: u64,
    swap_total_bytes: u64,
    disk_used_bytes: Option<u64>,
    disk_total_bytes: Option<u64>,
    disk_percent: Option<f64>,
    load_1: Option<f64>,
    load_5: Option<f64>,
    load_15: Option<f64>,
    uptime_s: Option<u64>,
}

impl Host {
    /// The numbers of the machine of the node called `node`, whose data is in `folder`.
    pub fn new(
        config: HostConfig,
        node: &str,
        folder: &Path,
        clock: Clock,
    ) -> Result<Self, TopicError> {
        let topic = Topic::parse(TOPIC)?;
        // Mount points are compared with it, and they are absolute.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let folder = folder.canonicalize().unwrap_or(folder);
        Ok(Self { topic, node: node.into(), config, clock, folder })
    }

    /// Publishes again and again until `stop`.
    pub async fn run(self, broker: Broker, stop: CancellationToken) {
        let mut machine = match Machine::new() {
            Ok(machine) => machine,
            Err(error) => {
                tracing::warn!(%error, "the system tells nothing of itself: there will be no {TOPIC}");
                return;
            }
        };
        // CPU use is a difference: the first is known one interval from now.
        let interval = self.config.interval.0;
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let folder = self.folder.clone();
            let measured = tokio::task::spawn_blocking(move || {
                // A disk that hangs must not hold up anybody else.
                let numbers = machine.measure(&folder);
                (machine, numbers)
            });
            let Ok((back, metrics)) = measured.await else {
                tracing::error!("measuring the machine broke off: there will be no more {TOPIC}");
                return;
            };
            machine = back;
            let (now, data) = (self.clock.now(), Payload { metrics });
            // Plain numbers can always be written.
            let Ok(data) = to_raw_value(&data) else { continue };
            let event = OwnEvent::new(&self.topic, METRICS, now, data).with_key(&self.node);
            if let Err(error) = broker.publish(event.into()).await {
                // The broker logs when it begins to fail; `/readyz` tells the rest.
                tracing::debug!(%error, "the machine's numbers were not stored");
            }
        }
    }
}

/// The machine as the system sees it.
struct Machine {
    system: System,
    /// None where the system does not list them.
    disks: Option<Disks>,
}

impl Machine {
    fn new() -> Result<Self, sysinfo::Error> {
        let mut system = System::new()?;
        system.refresh_cpu_list(CpuRefreshKind::nothing().with_usage());
        Ok(Self { system, disks: Disks::new().ok() })
    }

    /// The numbers now; the CPU's since the last call.
    fn measure(&mut self, folder: &Path) -> MachineNumbers {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        let system = &self.system;
        let disk = self.disks.as_mut().and_then(|disks| {
            disks.refresh_specifics(true, DiskRefreshKind::nothing().with_storage());
            space_of(disks, folder)
        });
        let load = System::load_average().ok();
        let (used, total) = (system.used_memory(), system.total_memory());
        let limit = system.cgroup_limits().map(|limits| limits.total_memory);
        MachineNumbers {
            cpu_percent: tenths(f64::from(system.global_cpu_usage())),
            cores: system.cpus().len(),
            memory_used_bytes: used,
            memory_total_bytes: total,
            memory_percent: percent(used, total),
            memory_limit_bytes: limit.filter(|limit| *limit < total),
            swap_used_bytes: system.used_swap(),
            swap_total_bytes: system.total_swap(),
            disk_used_bytes: disk.map(|(used, _)| used),
            disk_total_bytes: disk.map(|(_, total)| total),
            disk_percent: disk.and_then(|(used, total)| percent(used, total)),
            load_1: load.as_ref().map(|load| load.one),
            load_5: load.as_ref().map(|load| load.five),
            load_15: load.as_ref().map(|load| load.fifteen),
            uptime_s: System::uptime().ok(),
        }
    }
}

/// Used and total bytes of the disk that `folder` lies on: the deepest one mounted above it.
fn space_of(disks: &Disks, folder: &Path) -> Option<(u64, u64)> {
    let above = disks.iter().filter(|disk| folder.starts_with(disk.mount_point()));
    let disk = above.max_by_key(|disk| disk.mount_point().as_os_str().len())?;
    let total = disk.total_space();
    Some((total.saturating_sub(disk.available_space()), total))
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| tenths(part as f64 / whole as f64 * 100.0))
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_this_machine() {
        let mut machine = Machine::new().unwrap();
        std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        let numbers = machine.measure(Path::new("/"));
        assert!((0.0..=100.0).contains(&numbers.cpu_percent), "{numbers:?}");
        assert_eq!(
            numbers.cores,
            std::fs::read_to_string("/proc/cpuinfo").unwrap().matches("processor\t").count()
        );
        let total = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = total.lines().next().unwrap().split_whitespace().nth(1).unwrap();
        assert_eq!(numbers.memory_total_bytes, total.parse::<u64>().unwrap() * 1024);
        assert!(numbers.memory_used_bytes <= numbers.memory_total_bytes);
        assert!(numbers.uptime_s.unwrap() > 0);
        assert!(numbers.load_15.unwrap() >= 0.0);
    }

    #[test]
    fn a_share_of_nothing_is_unknown() {
        assert_eq!((percent(1, 0), percent(1, 3)), (None, Some(33.3)));
    }
}
