//! A call centre: calls that come, last and end, its system's numbers, and an alert when it goes badly.

use serde_json::{Value, json};

use super::{
    chance::Chance,
    client::{Post, Producer},
    day::TimeOfDay,
};

/// The call centre as it is.
pub(super) struct VoiceHive {
    chance: Chance,
    /// When each call under way ends, in the day's seconds, and how long it has lasted then.
    calls: Vec<(f64, f64)>,
    at: Option<f64>,
    measured: f64,
    is_alarmed: bool,
}

/// Calls that come in an hour at the height of the day.
const CALLS: f64 = 260.0;
const AGENTS: [&str; 6] = ["roxy", "max", "nova", "iris", "otto", "luna"];
/// Seconds between two looks at its system.
const MEASURE: f64 = 15.0;

impl VoiceHive {
    pub(super) fn new(chance: Chance) -> Self {
        Self { chance, calls: Vec::new(), at: None, measured: f64::MIN, is_alarmed: false }
    }

    fn one_call(&mut self) -> f64 {
        self.chance.duration(170.0, 0.6).clamp(4.0, 3000.0)
    }

    /// What was under way before anybody looked.
    fn begin(&mut self, moment: TimeOfDay) {
        let under_way = self.chance.count(CALLS * moment.activity * 200.0 / 3600.0);
        for _ in 0..under_way {
            let (duration, passed) = (self.one_call(), self.chance.share());
            self.calls.push((moment.seconds + duration * (1.0 - passed), duration));
        }
    }

    fn ended(&mut self, moment: TimeOfDay) -> Vec<Value> {
        let (over, left) = self.calls.iter().partition(|(end, _)| *end <= moment.seconds);
        self.calls = left;
        let over: Vec<(f64, f64)> = over;
        let of_one = |(_, duration): (f64, f64)| {
            let failed = self.chance.happens(0.03 + 0.4 * moment.incident);
            let agent = self.chance.one_of(&AGENTS);
            event(
                "calls",
                "call.completed",
                None,
                json!({
                    "duration": (duration * 10.0).round() / 10.0,
                    "status": if failed { "error" } else { "success" },
                    "agent": agent,
                }),
            )
        };
        over.into_iter().map(of_one).collect()
    }

    fn system(&mut self, moment: TimeOfDay) -> Value {
        let TimeOfDay { activity, incident, seconds, .. } = moment;
        let mut around = |middle: f64, width: f64| {
            ((middle + width * self.chance.normal()).clamp(1.0, 99.0) * 10.0).round() / 10.0
        };
        event(
            "metrics",
            "metrics",
            None,
            json!({
                "memory_usage": around(48.0 + 18.0 * activity + 22.0 * incident, 1.0),
                "cpu_usage": around(12.0 + 45.0 * activity + 30.0 * incident, 3.0),
                "active_calls": self.calls.len(),
                "api_response_time": self.chance.duration(85.0 + 2600.0 * incident, 0.2).round(),
                "uptime_seconds": (400_000.0 + seconds).floor(),
            }),
        )
    }

    /// An alert opens and closes once for each incident.
    fn alert(&mut self, moment: TimeOfDay) -> Option<Value> {
        let is_bad = if self.is_alarmed { moment.incident > 0.05 } else { moment.incident > 0.3 };
        if is_bad == self.is_alarmed {
            return None;
        }
        self.is_alarmed = is_bad;
        let status = if is_bad { "firing" } else { "resolved" };
        let summary = "more than 5 % of the calls fail";
        let data = json!({"status": status, "severity": "critical", "summary": summary});
        Some(event("alerts", "alert", Some("HighErrorRate"), data))
    }
}

impl Producer for VoiceHive {
    const NAME: &str = "voicehive";

    fn step(&mut self, moment: TimeOfDay) -> Vec<Post> {
        let before = match self.at.replace(moment.seconds) {
            Some(before) => before,
            None => {
                self.begin(moment);
                moment.seconds
            }
        };
        let passed = moment.seconds - before;
        for _ in 0..self.chance.count(CALLS * moment.activity * passed / 3600.0) {
            let duration = self.one_call();
            self.calls.push((moment.seconds - self.chance.share() * passed + duration, duration));
        }
        let mut events = self.ended(moment);
        if moment.seconds - self.measured >= MEASURE {
            self.measured = moment.seconds;
            events.push(self.system(moment));
        }
        events.extend(self.alert(moment));
        if events.is_empty() {
            Vec::new()
        } else {
            vec![Post::new("/api/v1/publish", events.into())]
        }
    }
}

fn event(topic: &str, kind: &str, key: Option<&str>, data: Value) -> Value {
    let mut event = json!({
        "topic": format!("voicehive.{topic}"),
        "source": "demo-voicehive",
        "type": kind,
        "data": data,
    });
    if let (Some(key), Some(event)) = (key, event.as_object_mut()) {
        event.insert("key".to_owned(), key.into());
    }
    event
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::demo::Day;

    /// All events from `hour` on for one hour, by the topic's last word.
    fn hour(hour: f64) -> Vec<(String, Value)> {
        let day = Day::new(hour, 60.0, 3);
        let mut life = VoiceHive::new(Chance::new(3, 1));
        let steps = (0..240).map(|step| day.at(Duration::from_millis(step * 250)));
        let posts = steps.flat_map(|moment| life.step(moment)).collect::<Vec<_>>();
        let events = posts.into_iter().flat_map(|post| post.body.as_array().unwrap().clone());
        let named = events.map(|event| {
            let topic = event["topic"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
            (topic, event["data"].clone())
        });
        named.collect()
    }

    #[test]
    fn a_morning_is_busier_than_a_night() {
        let calls = |events: &[(String, Value)]| {
            events.iter().filter(|(topic, _)| topic == "calls").count()
        };
        let (night, morning) = (hour(2.0), hour(10.0));
        assert!(calls(&night) < 40, "{}", calls(&night));
        assert!((180..320).contains(&calls(&morning)), "{}", calls(&morning));
        let most = morning.iter().filter_map(|(_, data)| data["active_calls"].as_u64()).max();
        assert!((8..40).contains(&most.unwrap()), "{most:?}");
    }

    #[test]
    fn an_alert_that_fires_is_resolved() {
        let day = Day::new(8.0, 3600.0, 3);
        let mut life = VoiceHive::new(Chance::new(3, 1));
        let steps = (0..24 * 60).map(|minute| day.at(Duration::from_millis(minute * 1000 / 60)));
        let states: Vec<_> = steps
            .flat_map(|moment| life.step(moment))
            .flat_map(|post| post.body.as_array().unwrap().clone())
            .filter(|event| event["key"] == "HighErrorRate")
            .map(|event| event["data"]["status"].as_str().unwrap().to_owned())
            .collect();
        assert!(states.len() >= 8, "{states:?}");
        for pair in states.chunks(2) {
            assert_eq!(pair, ["firing", "resolved"]);
        }
    }
}
