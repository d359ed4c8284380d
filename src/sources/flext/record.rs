//! The daemon's answers as the JSON that is published.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::proto;
use crate::event::MAX_ATTRIBUTE_BYTES;

/// The payload of `flext.stats`.
pub(super) fn stats(stats: &proto::SystemStats) -> Value {
    json!({"metrics": {
        "active_pipelines": stats.active_pipelines,
        "total_executions": stats.total_executions,
        "success_rate": stats.success_rate,
        "uptime_seconds": stats.uptime_seconds,
        "cpu_usage": stats.cpu_usage,
        "memory_usage": stats.memory_usage,
        "active_connections": stats.active_connections,
    }})
}

/// The payload of `flext.health`.
pub(super) fn health(health: &proto::HealthStatus) -> Value {
    let components = health.components.iter().map(|(key, component)| {
        let name = if component.name.is_empty() { key } else { &component.name };
        let value = json!({
            "name": name,
            "healthy": component.healthy,
            "message": component.message,
            "metadata": component.metadata,
        });
        (key.clone(), value)
    });
    json!({
        "healthy": health.healthy,
        "components": components.collect::<serde_json::Map<_, _>>(),
        "timestamp": health.timestamp.as_ref().and_then(rfc3339),
    })
}

/// The payload of `flext.executions`: the names are those of FLEXT's own JSON, and more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Execution {
    pub(super) id: String,
    pipeline_name: String,
    pub(super) status: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    /// Seconds; null until they are known.
    duration: Option<f64>,
    error: Option<String>,
    metadata: BTreeMap<String, String>,
    records_processed: i64,
    triggered_by: Option<String>,
    /// The last thing it said of itself while it was followed.
    pub(super) update: Option<Update>,
    /// How many such things it said; those between two events are not published.
    updates: u64,
}

/// What an execution said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Update {
    r#type: String,
    message: String,
    timestamp: Option<String>,
    progress: f64,
    metadata: BTreeMap<String, String>,
}

/// The status of those that are followed.
const RUNNING: &str = "running";

impl Execution {
    /// An execution as it was listed; `before` is what was known of it.
    pub(super) fn new(listed: proto::Execution, before: Option<&Self>) -> Self {
        let is_over = listed.finished_at.is_some();
        let elapsed = listed.started_at.zip(listed.finished_at).map(|(from, to)| {
            let seconds = to.seconds.saturating_sub(from.seconds) as f64;
            seconds + f64::from(to.nanos.saturating_sub(from.nanos)) / 1e9
        });
        // 0 is what a field has that was not set.
        let told = (listed.duration_seconds > 0).then_some(listed.duration_seconds as f64);
        let duration = told.or(elapsed.filter(|seconds| is_over && *seconds >= 0.0));
        Self {
            id: listed.id,
            pipeline_name: listed.pipeline_id,
            status: status(listed.status),
            started_at: listed.started_at.as_ref().and_then(rfc3339),
            finished_at: listed.finished_at.as_ref().and_then(rfc3339),
            duration,
            error: text(listed.error_message),
            metadata: listed.metadata,
            records_processed: listed.records_processed,
            triggered_by: text(listed.triggered_by),
            update: before.and_then(|before| before.update.clone()),
            updates: before.map_or(0, |before| before.updates),
        }
    }

    /// Whether it is under way.
    pub(super) fn is_running(&self) -> bool {
        self.status == RUNNING
    }

    /// Takes in what it said of itself.
    pub(super) fn update(&mut self, update: proto::ExecutionUpdate) {
        // What was said before it ended may be heard after that.
        if update.status != 0 && self.finished_at.is_none() {
            self.status = status(update.status);
        }
        // Anybody who may publish on the topic can have written there what we began with.
        self.updates = self.updates.saturating_add(1);
        self.update = Some(Update {
            r#type: update.r#type,
            message: update.message,
            timestamp: update.timestamp.as_ref().and_then(rfc3339),
            progress: if update.progress.is_finite() { update.progress } else { 0.0 },
            metadata: update.metadata,
        });
    }
}

/// A status as a word; one that is newer than this program stays the number it is.
fn status(number: i32) -> String {
    match proto::Status::try_from(number) {
        Ok(status) => status.as_str_name().trim_start_matches("STATUS_").to_ascii_lowercase(),
        Err(_) => number.to_string(),
    }
}

fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// None for what is no time that can be written.
fn rfc3339(time: &Timestamp) -> Option<String> {
    let time = jiff::Timestamp::new(time.seconds, time.nanos).ok()?;
    Some(format!("{time:.3}"))
}

/// Whether an event may be as large as that, with something to spare for its attributes.
pub(super) fn fits(value: &impl Serialize, limit: usize) -> bool {
    length(value).saturating_add(4 * MAX_ATTRIBUTE_BYTES) <= limit
}

/// How long it is as JSON.
pub(super) fn length(value: &impl Serialize) -> usize {
    json!(value).to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn what_is_not_known_is_null_and_no_zero() {
        let listed = proto::Execution { id: "e1".into(), status: 2, ..Default::default() };
        let running = Execution::new(listed.clone(), None);
        let value = serde_json::to_value(&running).unwrap();
        assert!(running.is_running());
        for field in ["started_at", "finished_at", "duration", "error", "triggered_by", "update"] {
            assert_eq!(value[field], Value::Null, "{field}");
        }
        let listed =
            proto::Execution { started_at: at(100), finished_at: at(160), status: 3, ..listed };
        let done = Execution::new(listed.clone(), None);
        assert_eq!((done.duration, &*done.status), (Some(60.0), "success"));
        let listed = proto::Execution { duration_seconds: 59, ..listed };
        assert_eq!(Execution::new(listed, None).duration, Some(59.0));
    }

    #[test]
    fn absurd_times_and_numbers_are_null() {
        let (early, late) = (i64::MIN, i64::MAX);
        let listed = proto::Execution {
            started_at: Some(Timestamp { seconds: early, nanos: i32::MIN }),
            finished_at: Some(Timestamp { seconds: late, nanos: i32::MAX }),
            status: 77,
            ..Default::default()
        };
        let value = serde_json::to_value(Execution::new(listed, None)).unwrap();
        assert_eq!((&value["started_at"], &value["status"]), (&Value::Null, &json!("77")));
        let backwards =
            proto::Execution { started_at: at(9), finished_at: at(1), ..Default::default() };
        assert_eq!(Execution::new(backwards, None).duration, None);
        let numbers = proto::SystemStats { cpu_usage: f64::NAN, ..Default::default() };
        assert_eq!(stats(&numbers)["metrics"]["cpu_usage"], Value::Null);
    }

    #[test]
    fn what_an_execution_said_outlives_its_being_listed_again() {
        let listed = proto::Execution { id: "e1".into(), status: 2, ..Default::default() };
        let mut execution = Execution::new(listed.clone(), None);
        let update = proto::ExecutionUpdate { progress: 0.5, ..Default::default() };
        execution.update(update.clone());
        execution.update(proto::ExecutionUpdate { status: 4, ..update });
        assert_eq!((&*execution.status, execution.updates), ("failed", 2));
        let again = Execution::new(listed, Some(&execution));
        assert_eq!((again.updates, again.update.unwrap().progress), (2, 0.5));
    }

    #[test]
    fn an_execution_that_has_ended_did_not_run_again_because_of_a_late_word() {
        let finished_at = at(9);
        let listed = proto::Execution { status: 3, finished_at, ..Default::default() };
        let mut execution = Execution::new(listed, None);
        execution.update(proto::ExecutionUpdate { status: 2, ..Default::default() });
        assert_eq!((&*execution.status, execution.updates), ("success", 1));
    }

    #[test]
    fn a_count_that_somebody_wrote_into_the_log_does_not_overflow() {
        let mut known = Execution::new(proto::Execution::default(), None);
        known.updates = u64::MAX;
        let mut execution = Execution::new(proto::Execution::default(), Some(&known));
        execution.update(proto::ExecutionUpdate::default());
        assert_eq!(execution.updates, u64::MAX);
    }

    #[test]
    fn a_component_without_a_name_has_its_keys() {
        let component = proto::ComponentHealth { healthy: true, ..Default::default() };
        let status = proto::HealthStatus {
            components: BTreeMap::from([("database".to_owned(), component)]),
            timestamp: at(0),
            ..Default::default()
        };
        let value = health(&status);
        assert_eq!(value["components"]["database"]["name"], "database");
        assert_eq!(value["timestamp"], "1970-01-01T00:00:00.000Z");
    }
}
