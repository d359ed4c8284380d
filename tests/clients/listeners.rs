//! Programs of others that listen to streams, and what they got.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::route::Route;
use crate::support::DEADLINE;

/// All clients on all routes; ended when dropped.
pub(super) struct Listeners {
    programs: Vec<Child>,
    lines: mpsc::UnboundedReceiver<Line>,
    heard: BTreeMap<String, Heard>,
}

/// What one client got.
#[derive(Default, Debug)]
pub(super) struct Heard {
    pub(super) name: String,
    /// Attempts that ended.
    pub(super) failures: usize,
    /// The reasons of the gaps it was told.
    pub(super) gaps: Vec<String>,
    position: Option<String>,
    numbers: u64,
    fault: Option<String>,
    last_failure: String,
}

/// What the programs write.
#[derive(Deserialize, Debug)]
struct Line {
    client: String,
    event: Option<String>,
    id: Option<String>,
    #[serde(default)]
    data: Value,
    failed: Option<String>,
    fault: Option<String>,
}

impl Listeners {
    /// Starts each of `clients` on each of `routes`; `page` is the port of a page that may use the hubs.
    pub(super) fn start(clients: &[&str], routes: &[Route], page: u16) -> Self {
        let ways: Vec<Value> = routes
            .iter()
            .map(|route| json!({"name": route.name, "url": route.url, "token": route.token}))
            .collect();
        let task = json!({"routes": ways, "page": page}).to_string();
        let (tell, lines) = mpsc::unbounded_channel();
        let python = root().join("target/python");
        let mut script = Command::new(python.join("bin/python"));
        script.arg(folder().join("listen.py"));
        let mut module = Command::new("node");
        module.arg(folder().join("listen.mjs"));
        let programs = [script, module].map(|mut command| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            command.arg(&task).env_clear().env("PATH", path);
            command.env("SSECLIENT", python.join("sseclient/sseclient.py"));
            let mut program = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("./tools/setup installs it");
            let output = BufReader::new(program.stdout.take().unwrap());
            let tell = tell.clone();
            std::thread::spawn(move || {
                for line in output.lines().map_while(Result::ok) {
                    let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                    if tell.send(line).is_err() {
                        return; // the test is over
                    }
                }
            });
            program
        });
        let names = clients
            .iter()
            .flat_map(|client| routes.iter().map(move |route| format!("{client} {}", route.name)));
        let heard = names.map(|name| (name.clone(), Heard { name, ..Heard::default() })).collect();
        Self { programs: programs.into(), lines, heard }
    }

    /// Waits until each client without a fault has got so far; who does not has a fault.
    pub(super) async fn until(&mut self, what: &str, is_so_far: impl Fn(&Heard) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let waits = |it: &Heard| it.fault.is_none() && !is_so_far(it);
        while self.heard.values().any(waits) {
            let Ok(line) = timeout_at(deadline, self.lines.recv()).await else {
                for it in self.heard.values_mut().filter(|it| waits(it)) {
                    let (next, why) = (it.numbers, &it.last_failure);
                    it.fault = Some(format!("{what} never came; {next} is next; it said: {why}"));
                }
                return;
            };
            let line = line.expect("the programs ended");
            match self.heard.get_mut(&line.client) {
                Some(it) => it.hear(line),
                None => panic!("{line:?}"),
            }
        }
    }

    /// How often each has failed so far.
    pub(super) fn failures(&self) -> BTreeMap<String, usize> {
        self.heard.iter().map(|(name, it)| (name.clone(), it.failures)).collect()
    }

    /// Who was told of gaps.
    pub(super) fn gaps(&self) -> Vec<&Heard> {
        self.heard.values().filter(|it| !it.gaps.is_empty()).collect()
    }

    pub(super) fn assert_faultless(&self) {
        let faults: Vec<String> = self
            .heard
            .values()
            .filter_map(|it| it.fault.as_ref().map(|fault| format!("{}: {fault}", it.name)))
            .collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

impl Heard {
    /// Whether it has a position to come back with.
    pub(super) fn is_placed(&self) -> bool {
        self.position.is_some()
    }

    /// The number that comes next.
    pub(super) fn next(&self) -> u64 {
        self.numbers
    }

    fn hear(&mut self, line: Line) {
        if let Some(why) = line.failed {
            self.failures += 1;
            self.last_failure = why;
            return;
        }
        let fault = match (line.fault, line.event.as_deref()) {
            (Some(fault), _) => Some(fault),
            (None, Some("message")) => {
                let number = line.data["data"]["n"].as_u64();
                self.numbers += 1;
                (number != Some(self.numbers - 1))
                    .then(|| format!("{} was {number:?}", self.numbers - 1))
            }
            (None, Some("hub.gap")) => {
                self.gaps.push(line.data["reason"].as_str().unwrap_or_default().to_owned());
                None
            }
            (None, Some("hub.position")) => (line.data != json!({})).then(|| line.data.to_string()),
            (None, Some("hub.reconnect")) => return,
            (None, other) => Some(format!("an event of the type {other:?}")),
        };
        self.position = line.id.filter(|id| !id.is_empty());
        let fault =
            fault.or_else(|| self.position.is_none().then(|| "an event without an id".to_owned()));
        self.fault = self.fault.take().or(fault);
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for program in &mut self.programs {
            drop(program.stdin.take()); // whereupon it ends, and its browser with it
        }
        for program in &mut self.programs {
            let _ = program.wait(); // nothing hangs on how it ended
        }
    }
}

fn folder() -> PathBuf {
    root().join("tests/clients")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
