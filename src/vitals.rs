//! The hub's own numbers, once a second on `hub.metrics`; its machine's, and the readiness that follows from them.

mod host;
mod readiness;

use std::time::Duration;

use serde::Serialize;
use serde_json::value::to_raw_value;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use self::{
    host::{Host, HostConfig},
    readiness::{Readiness, ReadyState, listen},
};
use crate::{
    admission::OwnEvent,
    broker::Broker,
    hub::Hub,
    telemetry::Telemetry,
    time::{Clock, Millis},
    topic::{Topic, TopicError},
};

/// Where they go.
const TOPIC: &str = "hub.metrics";
const INTERVAL: Duration = Duration::from_secs(1);

/// Takes the hub's numbers and publishes them.
pub struct Vitals {
    topic: Topic,
    node: Box<str>,
    telemetry: Telemetry,
    clock: Clock,
    process: Process,
    started: Millis,
    before: Counts,
}

/// What is counted up, at one moment.
#[derive(Debug, Clone, Copy)]
struct Counts {
    at: Millis,
    events: u64,
    deliveries: u64,
    cpu: Duration,
}

/// The payload of a `hub.metrics` event.
#[derive(Debug, Serialize)]
struct HubNumbers {
    connections: i64,
    subscriptions: i64,
    events_per_s: f64,
    deliveries_per_s: f64,
    publish_failures: u64,
    slowest_lag: i64,
    /// 100 is one core.
    cpu_percent: f64,
    memory_bytes: u64,
    journal_bytes: i64,
    uptime_s: u64,
}

impl Vitals {
    /// The numbers of the node called `node`, which has been up since now.
    pub fn new(node: &str, telemetry: Telemetry, clock: Clock) -> Result<Self, TopicError> {
        let mut process = Process::this();
        let started = clock.now();
        let before = Counts::take(&telemetry, &mut process, started).0;
        Ok(Self {
            topic: Topic::parse(TOPIC)?,
            node: node.into(),
            telemetry,
            clock,
            process,
            started,
            before,
        })
    }

    /// Publishes once a second until `stop`.
    pub async fn run(
        mut self,
        broker: Broker,
        hub: Hub,
        readiness: Readiness,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let lag = i64::try_from(hub.slowest_lag()).unwrap_or(i64::MAX);
            self.telemetry.slowest_lag.set(lag);
            let published = match self.sample() {
                Some(event) => broker.publish(event.into()).await,
                None => continue,
            };
            match published {
                Ok(published) => {
                    readiness.published(published.position.offset, self.clock.elapsed());
                }
                // The broker logs when it begins to fail; `/readyz` tells the rest.
                Err(error) => tracing::debug!(%error, "the hub's own numbers were not stored"),
            }
        }
    }

    /// The numbers since the last call as an event.
    fn sample(&mut self) -> Option<OwnEvent> {
        let now = self.clock.now();
        let (counts, memory_bytes) = Counts::take(&self.telemetry, &mut self.process, now);
        let before = std::mem::replace(&mut self.before, counts);
        let telemetry = &self.telemetry;
        let used = counts.cpu.as_secs_f64() - telemetry.cpu_seconds.get();
        telemetry.cpu_seconds.inc_by(used.max(0.0));
        telemetry.memory_bytes.set(i64::try_from(memory_bytes).unwrap_or(i64::MAX));
        let seconds = now.saturating_sub(before.at) as f64 / 1000.0;
        let rate = |amount: f64| {
            if seconds > 0.0 { (amount / seconds * 10.0).round() / 10.0 } else { 0.0 }
        };
        let numbers = HubNumbers {
            connections: telemetry.connections.get(),
            subscriptions: telemetry.subscriptions.get(),
            events_per_s: rate(counts.events.saturating_sub(before.events) as f64),
            deliveries_per_s: rate(counts.deliveries.saturating_sub(before.deliveries) as f64),
            publish_failures: telemetry.publish_failures.get(),
            slowest_lag: telemetry.slowest_lag.get(),
            cpu_percent: rate(counts.cpu.saturating_sub(before.cpu).as_secs_f64() * 100.0),
            memory_bytes,
            journal_bytes: telemetry.journal_bytes.get(),
            uptime_s: now.saturating_sub(self.started) / 1000,
        };
        // Plain numbers can always be written.
        let data = to_raw_value(&numbers).ok()?;
        Some(OwnEvent::new(&self.topic, TOPIC, now, data).with_key(&self.node))
    }
}

impl Counts {
    /// The counts now, and the memory in use.
    fn take(telemetry: &Telemetry, process: &mut Process, at: Millis) -> (Self, u64) {
        let (cpu, memory) = process.usage();
        let (events, deliveries) = (telemetry.events_stored.get(), telemetry.deliveries.get());
        (Self { at, events, deliveries, cpu }, memory)
    }
}

/// This process as the system sees it; nothing where the system does not tell.
struct Process(Option<(System, Pid)>);

impl Process {
    fn this() -> Self {
        let system = System::new();
        match (system, sysinfo::get_current_pid()) {
            (Ok(system), Ok(id)) => Self(Some((system, id))),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "the system does not tell how much CPU and memory the hub uses");
                Self(None)
            }
        }
    }

    /// CPU time used so far, and resident bytes.
    fn usage(&mut self) -> (Duration, u64) {
        let Some((system, id)) = &mut self.0 else { return (Duration::ZERO, 0) };
        let wanted = ProcessRefreshKind::nothing().with_cpu().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[*id]), false, wanted);
        system.process(*id).map_or((Duration::ZERO, 0), |process| {
            (Duration::from_millis(process.accumulated_cpu_time()), process.memory())
        })
    }
}

/// What this node calls itself: the host's name.
pub fn node_name() -> String {
    System::host_name().unwrap_or_else(|_| "hub".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_happened_since_the_last() {
        let (telemetry, clock) = (Telemetry::new(), Clock::manual(1000));
        let mut vitals = Vitals::new("n1", telemetry.clone(), clock.clone()).unwrap();
        telemetry.events_stored.inc_by(30);
        telemetry.connections.set(7);
        clock.set(3000);
        let event = vitals.sample().unwrap();
        assert_eq!((event.topic.as_str(), event.kind.as_deref()), (TOPIC, Some(TOPIC)));
        assert_eq!((&*event.source, event.key.as_deref()), ("hub", Some("n1")));
        let data: serde_json::Value = serde_json::from_str(event.data.get()).unwrap();
        assert_eq!(data["events_per_s"], 15.0);
        assert_eq!((&data["connections"], &data["uptime_s"]), (&7.into(), &2.into()));
        assert!(data["memory_bytes"].as_u64().unwrap() > 100_000);
        clock.set(4000);
        let data = vitals.sample().unwrap().data.clone();
        assert!(data.get().contains("\"events_per_s\":0.0"), "{data}");
        assert!(telemetry.memory_bytes.get() > 100_000);
    }

    #[tokio::test]
    async fn the_numbers_come_through_to_a_subscriber() {
        let config = crate::config::Config::load(None, [], &[]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (telemetry, clock) = (Telemetry::new(), Clock::system());
        let broker =
            Broker::open(config.journal, folder.path(), clock.clone(), telemetry.clone()).unwrap();
        let hub = crate::hub::Hub::new(broker.clone(), config.hub, telemetry.clone());
        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(hub.clone().run(stop.clone()));
        tasks.spawn(listen(hub.clone(), readiness.clone(), clock.clone(), stop.clone()));
        let vitals = Vitals::new("n1", telemetry, clock.clone()).unwrap();
        tasks.spawn(vitals.run(broker, hub.clone(), readiness.clone(), stop.clone()));
        let seen = async {
            while !readiness.state(clock.elapsed()).publishing {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap();
        stop.cancel();
        tasks.close();
        tokio::time::timeout(Duration::from_secs(30), tasks.wait()).await.unwrap();
    }
}
