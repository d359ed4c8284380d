//! The table of a run, in Markdown: what was to be reached, then every scenario with all servers.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use crate::{
    machine::Machine,
    outcome::Outcome,
    result::{Case, Measure, Row, median, medians, ratio},
    scenario::{Goal, RedisCore, Scenario, Times},
    server::Kind,
};

/// The whole table.
pub(crate) fn markdown(outcomes: &[Outcome], machine: &Machine, plots: &[String]) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write_all(&mut text, outcomes, machine, plots);
    text
}

fn write_all(
    out: &mut String,
    outcomes: &[Outcome],
    machine: &Machine,
    plots: &[String],
) -> fmt::Result {
    writeln!(out, "# Load tests\n\n| | |\n|---|---|")?;
    for (what, value) in &machine.facts {
        writeln!(out, "| {what} | {value} |")?;
    }
    writeln!(
        out,
        "\nThe server runs on one core, the load on another. Each figure is the median of its rounds, in which the \
         servers took turns; CPU is the server's own, memory what of it is resident.\n"
    )?;
    goals(out, outcomes)?;
    for outcome in outcomes {
        scenario(out, outcome)?;
    }
    for plot in plots {
        writeln!(out, "![{plot}]({plot})\n")?;
    }
    Ok(())
}

fn goals(out: &mut String, outcomes: &[Outcome]) -> fmt::Result {
    writeln!(out, "## Goals\n\n| scenario | case | goal | reached | |\n|---|---|---|---|---|")?;
    for outcome in outcomes {
        for goal in &outcome.scenario.goals {
            for (_, case) in outcome.scenario.work.cases() {
                if goal.case.as_ref().is_none_or(|wanted| *wanted == case) {
                    let name = &outcome.scenario.name;
                    let (wanted, reached, verdict) = judge(goal, &case, outcome);
                    writeln!(out, "| {name} | {case} | {wanted} | {reached} | {verdict} |")?;
                }
            }
        }
    }
    writeln!(out)
}

/// What is wanted, what was reached, and whether that is enough.
fn judge(goal: &Goal, case: &str, outcome: &Outcome) -> (String, String, &'static str) {
    let rows = |kind: Kind, case: &str| -> Vec<&Row> {
        let of = |row: &&Row| row.server == kind && row.case == case && row.measure == goal.measure;
        outcome.rows.iter().filter(of).collect()
    };
    let own = rows(goal.server, case);
    let (reached, of) = match &goal.times {
        None => (median(own.iter().map(|row| row.value).collect()), String::new()),
        Some(Times::Floor) => (ratio(&own, &rows(Kind::Floor, case)), " × floor".to_owned()),
        Some(Times::Hub) => (ratio(&own, &rows(Kind::Hub, case)), " × one node".to_owned()),
        Some(Times::Case(other)) => {
            (ratio(&own, &rows(goal.server, other)), format!(" × that of {other}"))
        }
    };
    let mut wanted = match goal.server {
        Kind::Hub => goal.measure.name().to_owned(),
        other => format!("{}: {}", other.name(), goal.measure.name()),
    };
    for (sign, bound) in [("≤", goal.at_most), ("≥", goal.at_least)] {
        if let Some(bound) = bound {
            wanted += &format!(" {sign} {}{of}", figure(bound));
        }
    }
    let Some(reached) = reached else { return (wanted, "not measured".to_owned(), "**missed**") };
    let enough = goal.at_most.is_none_or(|bound| reached <= bound)
        && goal.at_least.is_none_or(|bound| reached >= bound);
    let verdict = if enough { "reached" } else { "**missed**" };
    (wanted, format!("{}{of}", figure(reached)), verdict)
}

fn scenario(out: &mut String, outcome: &Outcome) -> fmt::Result {
    let scenario = &outcome.scenario;
    writeln!(out, "## {}\n\n{} Rounds: {}.\n", scenario.name, scenario.about, scenario.rounds)?;
    for failure in &outcome.failures {
        writeln!(out, "**FAILED** {failure}\n")?;
    }
    nodes(out, scenario)?;
    let settings = toml::to_string(&scenario.hub).unwrap_or_else(|error| error.to_string());
    if !settings.is_empty() {
        writeln!(
            out,
            "Settings of the hub that are not its defaults:\n\n```toml\n{settings}```\n"
        )?;
    }
    let medians = medians(&outcome.rows);
    let measures: BTreeSet<Measure> = medians.values().flat_map(|by| by.keys().copied()).collect();
    write!(out, "| case | server |")?;
    measures.iter().try_for_each(|measure| write!(out, " {} |", measure.name()))?;
    writeln!(out, "\n|---|---|{}", "---|".repeat(measures.len()))?;
    let cases: Vec<Case> = scenario.work.cases();
    for case in cases {
        for kind in Kind::ALL {
            let Some(by) = medians.get(&(case.clone(), kind)) else { continue };
            write!(out, "| {} | {} |", case.1, kind.name())?;
            for measure in &measures {
                let value = by.get(measure).map_or_else(|| "—".to_owned(), |v| figure(*v));
                write!(out, " {value} |")?;
            }
            writeln!(out)?;
        }
    }
    writeln!(out)?;
    for (kind, reason) in &outcome.absent {
        writeln!(out, "{}: {reason}\n", kind.name())?;
    }
    Ok(())
}

/// Where two nodes run, and who goes to which.
fn nodes(out: &mut String, scenario: &Scenario) -> fmt::Result {
    if !scenario.servers.contains(&Kind::Cluster) {
        return Ok(());
    }
    let redis = match scenario.redis {
        RedisCore::WithServers => "the servers'",
        RedisCore::WithLoad => "the load's",
    };
    writeln!(
        out,
        "Two nodes share one Redis (append-only file, synced every second) and the servers' core; Redis runs on {redis} \
         core. Nothing is in front of them: subscribers and publishers take turns between the nodes, one publisher \
         alone goes to the first, so half of what it publishes crosses. CPU and memory are those of both nodes \
         together; Redis' own stand beside them.\n"
    )
}

/// Three digits that mean something, thousands apart.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let rest = rest.trim_end_matches('0').trim_end_matches('.');
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_have_the_digits_that_mean_something() {
        let written = [0.0, 0.1234, 1.25, 9.999, 12.34, 152_814.2, 1_000.0, 100.0].map(figure);
        assert_eq!(written, ["0", "0.123", "1.25", "10", "12.3", "152,814", "1,000", "100"]);
    }
}
