//! Runs scenarios and writes a folder of what came out: rows, table, plots.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    machine::Machine,
    outcome::Outcome,
    plot,
    result::{self, Row},
    scenario::{RedisCore, Scenario},
    server::{Kind, Site},
    table,
    work::Job,
};

/// Runs each scenario and writes everything into a new folder below `out`; gives the folder and whether all went well.
pub(crate) fn run(scenarios: Vec<Scenario>, site: &Site, out: &Path) -> Result<(PathBuf, bool)> {
    let folder = folder(out)?;
    let machine = Machine::here(site);
    let mut outcomes = Vec::new();
    for scenario in scenarios {
        outcomes.push(run_one(scenario, site));
        // After each, so that a run that is ended early leaves what it has.
        write(&outcomes, &machine, &folder)?;
    }
    let whole = outcomes.iter().all(|outcome| outcome.failures.is_empty());
    Ok((folder, whole))
}

/// A folder named after the moment, and a number where that is taken.
fn folder(out: &Path) -> Result<PathBuf> {
    let name = jiff::Zoned::now().strftime("%Y-%m-%dT%H%M%S").to_string();
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let folder = out.join(name);
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn run_one(scenario: Scenario, site: &Site) -> Outcome {
    let redis_core = match scenario.redis {
        RedisCore::WithServers => site.core,
        RedisCore::WithLoad => site.load_core,
    };
    let site = &Site { redis_core, ..site.clone() };
    let (mut rows, mut absent, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    let mut servers = scenario.servers.clone();
    servers.retain(|kind| match kind.missing() {
        Some(reason) => {
            eprintln!("{}: without {}, {reason}", scenario.name, kind.name());
            absent.push((*kind, reason.to_owned()));
            false
        }
        None => true,
    });
    let cases = scenario.work.cases();
    for round in 0..scenario.rounds {
        for (index, (subscribers, label)) in cases.iter().enumerate() {
            // Servers take turns within a round, so that a noisy minute meets all of them.
            for kind in servers.clone() {
                let name = &scenario.name;
                let server = kind.name();
                let (now, all) = (round + 1, scenario.rounds);
                eprintln!("{name}: {label}, {server}, round {now} of {all}");
                let job = Job { kind, site, hub: &scenario.hub };
                match scenario.work.run(index, &job) {
                    Ok(figures) => rows.extend(figures.into_iter().map(|(measure, value)| Row {
                        scenario: name.clone(),
                        case: label.clone(),
                        server: kind,
                        subscribers: *subscribers,
                        round,
                        measure,
                        value,
                    })),
                    Err(error) => {
                        eprintln!("{name}: {label}, {server}: FAILED: {error:#}");
                        let fault = format!("{label}: {error:#}");
                        match kind {
                            Kind::Floor | Kind::Hub | Kind::Cluster => {
                                failures.push(format!("{server}: {fault}"))
                            }
                            Kind::Nchan | Kind::Nats => {
                                absent.push((kind, fault));
                                servers.retain(|other| *other != kind);
                            }
                        }
                    }
                }
            }
        }
    }
    Outcome { scenario, rows, absent, failures }
}

fn write(outcomes: &[Outcome], machine: &Machine, folder: &Path) -> Result<()> {
    let rows: Vec<_> = outcomes.iter().flat_map(|outcome| outcome.rows.clone()).collect();
    result::write(&rows, &folder.join("rows.ndjson"))?;
    let mut plots = Vec::new();
    for outcome in outcomes {
        if let Some(measure) = outcome.scenario.plot {
            let name = format!("{}.svg", outcome.scenario.name);
            plot::draw(outcome, measure, &folder.join(&name))?;
            plots.push(name);
        }
    }
    let text = table::markdown(outcomes, machine, &plots);
    fs::write(folder.join("table.md"), text).context("cannot write the table")
}
