//! Installations of TimeTracker that phone home: they register, send heartbeats and how they are used;
//! in an incident one of them is silent and sends later what it could not.

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{
    chance::Chance,
    client::{Post, Producer},
    day::TimeOfDay,
};
use crate::time::Clock;

/// All installations.
pub(super) struct TimeTracker {
    chance: Chance,
    clock: Clock,
    instances: Vec<Instance>,
    at: Option<f64>,
}

struct Instance {
    id: String,
    host: &'static str,
    version: &'static str,
    place: (&'static str, &'static str),
    /// When it sends its next heartbeat, in the day's seconds.
    next: f64,
    /// What it could not send.
    offline: Vec<Value>,
}

const INSTANCES: [(&str, &str, &str, &str); 5] = [
    ("tt-berlin", "3.2.1", "Germany", "Berlin"),
    ("tt-lyon", "3.2.1", "France", "Lyon"),
    ("tt-oslo", "3.2.0", "Norway", "Oslo"),
    ("tt-quito", "3.1.4", "Ecuador", "Quito"),
    ("tt-osaka", "3.2.1", "Japan", "Osaka"),
];
/// Seconds between two heartbeats: `METRICS_HEARTBEAT_SECONDS`.
const HEARTBEAT: f64 = 300.0;
/// What is used how often in an hour by all people of one installation.
const FEATURES: [(&str, f64); 5] =
    [("dashboard", 30.0), ("timer", 55.0), ("reports", 8.0), ("invoices", 4.0), ("export", 2.0)];

impl TimeTracker {
    pub(super) fn new(mut chance: Chance, clock: Clock) -> Self {
        let instances = INSTANCES.iter().map(|&(host, version, country, city)| {
            // It is its events' source. The same ones when the demo is started again with the same seed.
            let id = format!("demo-{host}-{:08x}", chance.below(1 << 32));
            let next = chance.share() * HEARTBEAT;
            Instance { id, host, version, place: (country, city), next, offline: Vec::new() }
        });
        let instances = instances.collect();
        Self { chance, clock, instances, at: None }
    }

    /// A point as the real client sends it later: with its own time, local and without a zone.
    fn stamped(&self, mut point: Value) -> Value {
        let now = Timestamp::from_millisecond(i64::try_from(self.clock.now()).unwrap_or(0));
        if let (Ok(now), Some(point)) = (now, point.as_object_mut()) {
            let local = now.to_zoned(TimeZone::system()).datetime();
            point.insert("timestamp".to_owned(), format!("{local:.6}").into());
        }
        point
    }
}

impl Producer for TimeTracker {
    const NAME: &str = "timetracker";

    fn step(&mut self, moment: TimeOfDay) -> Vec<Post> {
        let Some(before) = self.at.replace(moment.seconds) else {
            return self.instances.iter().map(Instance::register).collect();
        };
        let passed = moment.seconds - before;
        let mut posts = Vec::new();
        for index in 0..self.instances.len() {
            // The last one's line is bad.
            let is_cut = moment.incident > 0.0 && index + 1 == self.instances.len();
            let mut points = Vec::new();
            for (feature, often) in FEATURES {
                let mean = often * moment.activity * passed / 3600.0;
                for _ in 0..self.chance.count(mean) {
                    let point = usage(feature, self.chance.below(20));
                    points.push(if is_cut { self.stamped(point) } else { point });
                }
            }
            let Some(instance) = self.instances.get_mut(index) else { continue };
            if is_cut {
                instance.offline.extend(points);
                continue;
            }
            points.append(&mut instance.offline);
            if !points.is_empty() {
                posts.push(instance.data(points));
            }
            if moment.seconds >= instance.next {
                instance.next = moment.seconds + HEARTBEAT;
                posts.push(instance.heartbeat());
            }
        }
        posts
    }
}

impl Instance {
    fn register(&self) -> Post {
        let body = json!({
            "app_identifier": "timetracker",
            "version": self.version,
            "instance_id": self.id,
            "system_metadata": {
                "os": "Linux", "version": "6.1", "architecture": "64bit", "machine": "x86_64",
                "processor": "", "hostname": self.host, "local_ip": "10.1.0.7",
                "python_version": "3.11.9", "analytics_disabled": false,
            },
            "country": self.place.0,
            "city": self.place.1,
            "license_id": "NO-LICENSE-REQUIRED",
        });
        Post::new("/api/v1/register", body)
    }

    fn heartbeat(&self) -> Post {
        Post::new("/api/v1/heartbeat", json!({"instance_id": self.id}))
    }

    fn data(&self, points: Vec<Value>) -> Post {
        let body = json!({"app_identifier": "timetracker", "instance_id": self.id, "data": points});
        Post::new("/api/v1/data", body)
    }
}

fn usage(feature: &str, user: u64) -> Value {
    json!({
        "key": "usage_event",
        "value": "feature_used",
        "type": "string",
        "metadata": {"feature": feature, "user": format!("user{user}")},
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::demo::Day;

    #[test]
    fn a_day_registers_once_beats_regularly_and_catches_up_after_an_outage() {
        let day = Day::new(8.0, 3600.0, 11);
        let mut life = TimeTracker::new(Chance::new(11, 1), Clock::manual(1_800_000_000_000));
        let steps = (0..8 * 60).map(|minute| day.at(Duration::from_millis(minute * 1000 / 60)));
        let posts: Vec<_> = steps.flat_map(|moment| life.step(moment)).collect();
        let count = |path: &str| posts.iter().filter(|post| post.path == path).count();
        assert_eq!(count("/api/v1/register"), 5);
        assert!(
            (350..=480).contains(&count("/api/v1/heartbeat")),
            "{}",
            count("/api/v1/heartbeat")
        );
        let points = posts.iter().filter_map(|post| post.body["data"].as_array()).flatten();
        let (late, now): (Vec<_>, Vec<_>) =
            points.partition(|point| point.get("timestamp").is_some());
        assert!(
            !late.is_empty() && now.len() > 100 * late.len() / 10,
            "{} {}",
            late.len(),
            now.len()
        );
        assert!(!late[0]["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
