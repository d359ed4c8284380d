//! `pulsehub-load`: puts load on a hub and on its peers, and writes what that cost beside the floor of the same run.

mod bench;
mod frame;
mod machine;
mod mark;
mod outcome;
mod plot;
mod process;
mod result;
mod scenario;
mod server;
mod swarm;
mod table;
mod work;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::{scenario::Scenario, server::Site};

#[derive(Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  pulsehub-load bench
  pulsehub-load run load-tests/scenarios/burst.toml
  pulsehub-load run load-tests/scenarios/*.toml --hub target/release/pulsehub --out /tmp/results

`make bench` builds everything and runs `bench`. How it is measured: docs/performance.md."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run some scenarios
    Run {
        /// Scenario files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Run all scenarios
    Bench {
        /// The folder of the scenario files
        #[arg(long, value_name = "FOLDER", default_value = "load-tests/scenarios")]
        scenarios: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Be the floor: write each payload of one publisher to every subscriber (the scenarios start this)
    Floor,
}

#[derive(Args)]
struct Place {
    /// The hub's program
    #[arg(long, value_name = "FILE", default_value = "target/release/pulsehub")]
    hub: PathBuf,
    /// A dated folder with the results is made in this one
    #[arg(long, value_name = "FOLDER", default_value = "load-tests/results")]
    out: PathBuf,
    /// Servers keep their data here; the file system decides what a sync costs
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// The core servers run on
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    server_core: usize,
    /// The core the load comes from
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    load_core: usize,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pulsehub-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    process::raise_files()?;
    let (scenarios, place) = match command {
        Command::Floor => return server::serve_floor().map(|()| ExitCode::SUCCESS),
        Command::Run { files, place } => {
            (files.iter().map(|file| Scenario::read(file)).collect::<Result<_>>()?, place)
        }
        Command::Bench { scenarios, place } => (Scenario::read_all(&scenarios)?, place),
    };
    anyhow::ensure!(place.hub.exists(), "{} is not there; build it first", place.hub.display());
    process::stay_on(place.load_core)?;
    let Place { hub, scratch, server_core: core, load_core, .. } = place;
    let site = Site { hub, core, load_core, redis_core: core, scratch };
    let (folder, whole) = bench::run(scenarios, &site, &place.out)?;
    println!("{}", folder.join("table.md").display());
    // A missed goal is a figure; a lost event is a failure.
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
