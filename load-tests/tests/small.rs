//! The generator does what it says: a small scenario of each kind against a real hub, built beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

#[test]
fn small_scenarios_leave_rows_a_table_and_a_plot() {
    let out = tempfile::tempdir().unwrap();
    let output = run(
        &["fanout", "idle", "stalled", "storm", "stored", "two-nodes", "two-nodes-stored"],
        &hub(),
        &out,
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let folder = table.parent().unwrap();

    let text = fs::read_to_string(&table).unwrap();
    for measure in ["CPU µs/delivery", "idle KiB/connection", "events/s", "s until all live"] {
        assert!(text.contains(measure), "no {measure} in {text}");
    }
    assert!(text.contains("write_timeout = \"60s\""), "{text}");
    assert!(!text.contains("FAILED") && !text.contains("missed"), "{text}");
    let rows = fs::read_to_string(folder.join("rows.ndjson")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for server in ["floor", "hub"] {
        // Two sizes at three paces, twice.
        let cpu = rows.iter().filter(|row| row["measure"] == "cpu_per_delivery");
        let cpu: Vec<_> =
            cpu.filter(|row| row["server"] == server && row["scenario"] == "fanout").collect();
        assert_eq!(cpu.len(), 12, "{server}: {cpu:?}");
        assert!(cpu.iter().all(|row| row["value"].as_f64().unwrap() > 0.0), "{cpu:?}");
    }
    let plot = fs::read_to_string(folder.join("fanout.svg")).unwrap();
    assert!(plot.contains("<polyline") && plot.contains("pulsehub"), "{plot}");
}

#[test]
fn a_hub_that_cannot_run_is_a_failure_that_is_told() {
    let out = tempfile::tempdir().unwrap();
    let output = run(&["stored"], Path::new("/bin/false"), &out);
    assert!(!output.status.success());
    let table = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let text = fs::read_to_string(table).unwrap();
    assert!(text.contains("**FAILED** pulsehub"), "{text}");
}

fn run(scenarios: &[&str], hub: &Path, out: &TempDir) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/small");
    let files = scenarios.iter().map(|name| folder.join(format!("{name}.toml")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsehub-load"));
    command.arg("run").args(files).arg("--hub").arg(hub).arg("--out").arg(out.path());
    // On a machine with one core both share it; nobody looks at the figures.
    let last = std::thread::available_parallelism().unwrap().get() - 1;
    command.args(["--load-core", &last.to_string()]).output().unwrap()
}

/// The hub that `cargo test --workspace` builds beside the generator.
fn hub() -> PathBuf {
    let hub = Path::new(env!("CARGO_BIN_EXE_pulsehub-load")).with_file_name("pulsehub");
    assert!(hub.exists(), "{} is not there: run cargo build first", hub.display());
    hub
}
