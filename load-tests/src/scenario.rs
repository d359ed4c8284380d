//! A scenario file: what is done, on which servers, how often, and what is to be reached.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{result::Measure, server::Kind, work::Work};

/// A scenario as its file says; unknown keys are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The file's name.
    #[serde(skip)]
    pub(crate) name: String,
    /// One sentence for the table.
    pub(crate) about: String,
    /// How often all of it is repeated, servers taking turns.
    pub(crate) rounds: usize,
    pub(crate) servers: Vec<Kind>,
    pub(crate) work: Work,
    /// The hub's settings that differ from its defaults.
    #[serde(default)]
    pub(crate) hub: toml::Table,
    /// Where the Redis of two nodes runs.
    #[serde(default)]
    pub(crate) redis: RedisCore,
    #[serde(default)]
    pub(crate) goals: Vec<Goal>,
    /// The figure to draw against the number of subscribers.
    pub(crate) plot: Option<Measure>,
}

/// Beside whom Redis runs: with the servers it takes from their core, with the load from the load's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RedisCore {
    #[default]
    WithServers,
    WithLoad,
}

/// What a server is to reach.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Goal {
    pub(crate) measure: Measure,
    /// Whose goal it is; without it the hub's.
    #[serde(default = "hub")]
    pub(crate) server: Kind,
    /// The cases it is about; without it all of them.
    pub(crate) case: Option<String>,
    pub(crate) at_most: Option<f64>,
    pub(crate) at_least: Option<f64>,
    /// The bounds are multiples of the floor's or the hub's figure of the same round, or of another case's.
    pub(crate) times: Option<Times>,
}

/// What a goal is a multiple of.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Times {
    Floor,
    Hub,
    Case(String),
}

fn hub() -> Kind {
    Kind::Hub
}

impl Scenario {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let scenario: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, ..scenario })
    }

    /// All scenarios of a folder, by name.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let files = fs::read_dir(folder);
        let files = files.with_context(|| format!("cannot read {}", folder.display()))?;
        let mut paths = Vec::new();
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        anyhow::ensure!(!paths.is_empty(), "{} holds no scenarios", folder.display());
        paths.iter().map(|path| Self::read(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_of_this_folder_are_read_and_unknown_keys_are_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let scenarios = Scenario::read_all(&folder).unwrap();
        for Scenario { name, rounds, servers, goals, work, .. } in &scenarios {
            assert!(*rounds > 0 && servers.contains(&Kind::Hub), "{name}");
            for goal in goals {
                assert!(servers.contains(&goal.server), "{name}: nobody has that goal");
                assert!(goal.at_most.is_some() || goal.at_least.is_some(), "{name}: no bound");
                let cases: Vec<_> = work.cases().into_iter().map(|(_, label)| label).collect();
                let named = [
                    goal.case.as_ref(),
                    match &goal.times {
                        Some(Times::Case(case)) => Some(case),
                        _ => None,
                    },
                ];
                for case in named.into_iter().flatten() {
                    assert!(cases.contains(case), "{name}: no case {case:?} in {cases:?}");
                }
            }
        }
        let text = fs::read_to_string(folder.join("burst.toml")).unwrap();
        assert!(toml::from_str::<Scenario>(&text).is_ok());
        assert!(toml::from_str::<Scenario>(&format!("surprise = 1\n{text}")).is_err());
        let inner = text.replace("[work.fanout]", "[work.fanout]\nsurprise = 1");
        assert!(toml::from_str::<Scenario>(&inner).is_err());
    }
}
