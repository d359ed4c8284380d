//! Programs of others that talk to a hub: scripts of `tests/producers`, with the settings of their guides.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::{document::Document, hub::TestHub};

/// Runs a Python script of `tests/producers` with what `tools/setup` installed for it; gives what
/// it printed.
pub(crate) async fn python(script: &str, variables: &[(String, String)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "there is no {}: run tools/setup", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tests/producers").join(script));
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    // Beside the hub, which may run on the very thread that waits.
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    said
}

/// Where the hub is and who may do what there, as scripts name it.
pub(crate) fn variables(hub: &TestHub, patterns: &[&str]) -> Vec<(String, String)> {
    vec![("HUB".to_owned(), hub.url("")), ("TOKEN".to_owned(), hub.token("producer", patterns))]
}

/// What a guide in `docs/guides` has people set for a program: the lines of its `ini` block, with this hub's address and
/// credentials for these patterns in the place of the examples.
pub(crate) fn settings(guide: &str, hub: &TestHub, patterns: &[&str]) -> Vec<(String, String)> {
    let document = Document::read(&format!("docs/guides/{guide}"));
    let block = document.blocks.iter().find(|block| block.language == "ini").unwrap();
    let settings = block.body.replace("https://hub.example.com", &hub.url(""));
    let settings = settings.replace("phk_…", &hub.token("producer", patterns));
    let lines = settings.lines().map(|line| line.split_once('=').unwrap());
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
