//! Pipelines that are run, last and succeed or fail, as the hour has it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use prost_types::Timestamp;

use crate::{
    demo::{chance::Chance, day::TimeOfDay},
    sources::flext_proto::{
        ComponentHealth, Execution, ExecutionUpdate, HealthStatus, Status, SystemStats,
    },
    time::Clock,
};

/// All executions that are remembered, and the chance that more come of.
pub(super) struct Pipelines {
    chance: Chance,
    clock: Clock,
    /// The oldest first.
    runs: VecDeque<Run>,
    at: Option<f64>,
    up_from: Timestamp,
    started: u64,
    succeeded: u64,
    failed: u64,
}

struct Run {
    execution: Execution,
    /// In the day's seconds.
    began: f64,
    ends: f64,
    fails: bool,
}

const PIPELINES: [&str; 7] = [
    "crm-to-lake",
    "orders-hourly",
    "stock-sync",
    "invoices",
    "web-events",
    "hr-nightly",
    "partner-feed",
];
/// Executions that begin in an hour at the height of the day.
const RUNS: f64 = 40.0;
/// As many are remembered.
const REMEMBERED: usize = 100;

impl Pipelines {
    pub(super) fn new(chance: Chance, clock: Clock) -> Self {
        let (started, succeeded, failed) = (18_240, 17_901, 339);
        let (runs, up_from) = (VecDeque::new(), timestamp(&clock));
        Self { chance, clock, runs, at: None, up_from, started, succeeded, failed }
    }

    /// Lets everything happen that happened until now.
    pub(super) fn go_on(&mut self, moment: TimeOfDay) {
        let before = self.at.replace(moment.seconds).unwrap_or(moment.seconds - 900.0);
        let passed = (moment.seconds - before).max(0.0);
        for _ in 0..self.chance.count(RUNS * moment.activity.max(0.15) * passed / 3600.0) {
            self.begin(moment);
        }
        let now = self.now();
        for run in &mut self.runs {
            if run.execution.finished_at.is_some() || run.ends > moment.seconds {
                continue;
            }
            let execution = &mut run.execution;
            execution.finished_at = Some(now);
            // Not the day's seconds: it is what lies between the two times beside it.
            execution.duration_seconds =
                execution.started_at.map_or(0, |at| now.seconds - at.seconds);
            if run.fails {
                self.failed += 1;
                execution.set_status(Status::Failed);
                execution.error_message = "the extractor ended with exit code 1".to_owned();
            } else {
                self.succeeded += 1;
                execution.set_status(Status::Success);
            }
        }
        while self.runs.len() > REMEMBERED {
            self.runs.pop_front();
        }
    }

    fn begin(&mut self, moment: TimeOfDay) {
        self.started += 1;
        let pipeline = self.chance.one_of(&PIPELINES).copied().unwrap_or_default();
        let mut execution = Execution {
            id: format!("run-{}", self.started),
            pipeline_id: pipeline.to_owned(),
            started_at: Some(self.now()),
            triggered_by: if self.chance.happens(0.8) { "schedule" } else { "api" }.to_owned(),
            metadata: BTreeMap::from([("environment".to_owned(), "demo".to_owned())]),
            ..Execution::default()
        };
        execution.set_status(Status::Running);
        let ends = moment.seconds + self.chance.duration(240.0, 0.7).clamp(20.0, 3600.0);
        let fails = self.chance.happens(0.02 + 0.5 * moment.incident);
        self.runs.push_back(Run { execution, began: moment.seconds, ends, fails });
    }

    fn now(&self) -> Timestamp {
        timestamp(&self.clock)
    }

    fn running(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.execution.finished_at.is_none())
    }

    pub(super) fn stats(&mut self, moment: TimeOfDay) -> SystemStats {
        let active = i32::try_from(self.running().count()).unwrap_or(i32::MAX);
        let ended = (self.succeeded + self.failed).max(1) as f64;
        let up_for = self.now().seconds - self.up_from.seconds;
        let mut around = |middle: f64| {
            ((middle + 2.0 * self.chance.normal()).clamp(1.0, 99.0) * 10.0).round() / 10.0
        };
        SystemStats {
            active_pipelines: active,
            total_executions: i64::try_from(self.started).unwrap_or(i64::MAX),
            success_rate: (self.succeeded as f64 / ended * 1000.0).round() / 10.0,
            uptime_seconds: 250_000 + up_for,
            cpu_usage: around(10.0 + 4.0 * f64::from(active) + 30.0 * moment.incident),
            memory_usage: around(45.0 + 2.0 * f64::from(active)),
            active_connections: 3 + 2 * active,
        }
    }

    pub(super) fn health(&self, moment: TimeOfDay) -> HealthStatus {
        let is_well = moment.incident < 0.2;
        let component = |name: &str, healthy: bool| {
            let message = if healthy { "ok" } else { "queries take longer than 5 s" };
            let (key, message) = (name.to_owned(), message.to_owned());
            (key.clone(), ComponentHealth { name: key, healthy, message, ..Default::default() })
        };
        HealthStatus {
            healthy: is_well,
            components: BTreeMap::from([
                component("database", is_well),
                component("scheduler", true),
                component("workers", true),
            ]),
            timestamp: Some(self.now()),
        }
    }

    /// The newest first.
    pub(super) fn newest(&self, limit: usize) -> Vec<Execution> {
        self.runs.iter().rev().take(limit).map(|run| run.execution.clone()).collect()
    }

    /// How far an execution is; None if there is no such one.
    pub(super) fn update(&self, id: &str, moment: TimeOfDay) -> Option<ExecutionUpdate> {
        let run = self.runs.iter().find(|run| run.execution.id == id)?;
        let is_over = run.execution.finished_at.is_some();
        let share = (moment.seconds - run.began) / (run.ends - run.began).max(1.0);
        let progress = if is_over { 100.0 } else { (share * 100.0).clamp(0.0, 99.0).floor() };
        Some(ExecutionUpdate {
            execution_id: id.to_owned(),
            r#type: if is_over { "complete" } else { "progress" }.to_owned(),
            message: format!("{progress} % of the tables are copied"),
            timestamp: Some(self.now()),
            progress,
            status: run.execution.status,
            ..ExecutionUpdate::default()
        })
    }
}

fn timestamp(clock: &Clock) -> Timestamp {
    let since = Duration::from_millis(clock.now());
    let nanos = i32::try_from(since.subsec_nanos()).unwrap_or(0);
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(0), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Day;

    #[test]
    fn executions_begin_last_and_end_and_some_fail() {
        const START: u64 = 1_800_000_000_000;
        let (day, clock) = (Day::new(8.0, 60.0, 21), Clock::manual(START));
        let mut pipelines = Pipelines::new(Chance::new(21, 4), clock.clone());
        let mut most = 0;
        for minute in 0..8 * 60 {
            let moment = day.at(Duration::from_secs(minute));
            clock.set(START + minute * 1000);
            pipelines.go_on(moment);
            most = most.max(pipelines.stats(moment).active_pipelines);
        }
        assert!((3..15).contains(&most), "{most}");
        let newest = pipelines.newest(1000);
        assert_eq!(newest.len(), REMEMBERED);
        let count = |status: Status| newest.iter().filter(|run| run.status() == status).count();
        assert!(count(Status::Success) > 70 && count(Status::Failed) < 25);
        let done = newest.iter().find(|run| run.status() == Status::Success).unwrap();
        let [started, finished] = [done.started_at, done.finished_at].map(Option::unwrap);
        assert_eq!(done.duration_seconds, finished.seconds - started.seconds);
        let longest = newest.iter().map(|run| run.duration_seconds).max();
        assert!((10..=61).contains(&longest.unwrap()), "an hour of the day takes a minute");
        let update = pipelines.update(&done.id, day.at(Duration::from_secs(480))).unwrap();
        assert_eq!((&*update.r#type, update.progress), ("complete", 100.0));
        assert!(pipelines.update("nobody", day.at(Duration::ZERO)).is_none());
    }
}
