//! What a run was made with: figures of different machines do not compare.

use std::{fs, path::Path, process::Command};

use crate::server::Site;

/// The machine, the programs and the command. The host's name is nobody's business.
pub(crate) struct Machine {
    /// Pairs of what and its value.
    pub(crate) facts: Vec<(&'static str, String)>,
}

impl Machine {
    /// What cannot be found out is said to be unknown.
    pub(crate) fn here(site: &Site) -> Self {
        let arguments = std::env::args().skip(1).map(|argument| last_of_path(&argument));
        let command = format!("pulsehub-load {}", arguments.collect::<Vec<_>>().join(" "));
        let facts = vec![
            ("date", jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %:z").to_string()),
            ("command", command),
            ("revision", revision()),
            ("processor", field("/proc/cpuinfo", "model name")),
            ("cores", field_count("/proc/cpuinfo", "processor").max(1).to_string()),
            ("memory", field("/proc/meminfo", "MemTotal")),
            ("kernel", read("/proc/sys/kernel/osrelease")),
            ("load average at the start", read("/proc/loadavg")),
            ("file system of the data", file_system(&site.scratch)),
            ("hub", output(Command::new(&site.hub).arg("--version"))),
            ("nchan", package("libnginx-mod-nchan")),
            ("nats-server", package("nats-server")),
            ("redis-server", package("redis-server")),
        ];
        Self { facts }
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// Folders of the machine are left out of what is kept.
fn last_of_path(argument: &str) -> String {
    let path = Path::new(argument);
    match path.file_name() {
        Some(name) if path.is_absolute() => name.to_string_lossy().into_owned(),
        _ => argument.to_owned(),
    }
}

fn revision() -> String {
    let revision = output(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]));
    let changes =
        output(Command::new("git").args(["status", "--porcelain", "--", "src", "Cargo.toml"]));
    if changes.is_empty() { revision } else { format!("{revision}, with changes") }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

/// The value of the first `name: value` or `name : value`.
fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let values = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = values.filter(|(found, _)| found.trim() == name);
    values.next().map_or_else(unknown, |(_, value)| value.trim().to_owned())
}

fn field_count(path: &str, name: &str) -> usize {
    let text = read(path);
    text.lines().filter(|line| line.split(':').next().is_some_and(|n| n.trim() == name)).count()
}

/// The type of the file system a folder is on: a sync costs nothing on some.
fn file_system(folder: &Path) -> String {
    output(Command::new("stat").args(["--file-system", "--format=%T"]).arg(folder))
}

fn package(name: &str) -> String {
    let version =
        output(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", name]));
    if version.is_empty() { "not installed".to_owned() } else { version }
}

fn output(command: &mut Command) -> String {
    match command.output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        Ok(_) => String::new(),
        Err(_) => unknown(),
    }
}
