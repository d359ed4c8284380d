//! Programs of others that talk to a hub: scripts of `tests/producers`, and the guides' own commands.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    blocks::{Block, Mark},
    document::Document,
    hub::TestHub,
};

/// Runs a Python script of `tests/producers` with what `tools/setup` installed for it; gives what
/// it printed.
pub(crate) async fn python(script: &str, variables: &[(&str, String)]) -> String {
    let python = root().join("target/python/bin/python");
    assert!(python.exists(), "there is no {}: run tools/setup", python.display());
    let mut command = Command::new(python);
    command.arg(root().join("tests/producers").join(script));
    run(command, variables).await
}

/// Runs the `sh` blocks of a guide in `docs/guides`, all in one shell; gives what they printed. Each says so in the
/// comment above it: `run by`, and the file of the test that asks for this.
pub(crate) async fn guide(name: &str, variables: &[(&str, String)]) -> String {
    let document = Document::read(&format!("docs/guides/{name}"));
    let is_ours = |block: &&Block| block.language == "sh" && matches!(block.mark, Mark::RunBy(_));
    let blocks: Vec<&str> =
        document.blocks.iter().filter(is_ours).map(|block| &*block.body).collect();
    assert!(!blocks.is_empty(), "{name} has no commands");
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &blocks.join("\n")]);
    run(command, variables).await
}

/// Where the hub is and who may do what there, as scripts and guides name it.
pub(crate) fn variables(hub: &TestHub, patterns: &[&str]) -> Vec<(&'static str, String)> {
    vec![("HUB", hub.url("")), ("TOKEN", hub.token("producer", patterns))]
}

/// Beside the hub, which may run on the very thread that waits.
async fn run(mut command: Command, variables: &[(&str, String)]) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    said
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
