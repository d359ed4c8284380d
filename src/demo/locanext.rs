//! A translation office: people sign in, upload, translate and leave; its metrics come every five minutes.

use serde_json::{Value, json};

use super::{
    chance::Chance,
    client::{Post, Producer},
    day::TimeOfDay,
};
use crate::time::Clock;

/// The office as it is.
pub(super) struct LocaNext {
    chance: Chance,
    clock: Clock,
    /// Who is signed in, and since when in the day's seconds.
    present: Vec<(u64, f64)>,
    at: Option<f64>,
    measured: f64,
    logins: u64,
    files: u64,
    rows: u64,
}

/// People who are there at the height of the day, of so many.
const PRESENT: f64 = 35.0;
const PEOPLE: u64 = 60;
/// Seconds between two metrics: `DASHBOARD_WEBHOOK_INTERVAL`.
const MEASURE: f64 = 300.0;
/// What one person does in an hour: the type, how often, and in a share of incidents how often more.
const DEEDS: [(&str, f64, f64); 5] = [
    ("translation_saved", 18.0, 0.0),
    ("tm_match_applied", 9.0, 0.0),
    ("file_upload", 0.8, 0.0),
    ("file_export", 0.5, 0.0),
    ("error", 0.1, 6.0),
];
const NAMES: [&str; 8] = ["ada", "bruno", "chiara", "dmitri", "elif", "farid", "grete", "hana"];

impl LocaNext {
    pub(super) fn new(chance: Chance, clock: Clock) -> Self {
        Self {
            chance,
            clock,
            present: Vec::new(),
            at: None,
            measured: f64::MIN,
            logins: 0,
            files: 0,
            rows: 0,
        }
    }

    /// People come and go until there are about as many as the hour says.
    fn sessions(&mut self, moment: TimeOfDay, passed: f64, posts: &mut Vec<Post>) {
        let wanted = PRESENT * moment.activity;
        // Everybody stays about an hour and a half.
        let leaving = self.chance.count(self.present.len() as f64 * passed / 5400.0);
        for _ in 0..leaving.min(self.present.len() as u64) {
            let index = self.chance.below(self.present.len() as u64);
            let (person, since) = self.present.swap_remove(usize::try_from(index).unwrap_or(0));
            let minutes = ((moment.seconds - since) / 60.0).round();
            let data = json!({"username": name(person), "session_duration": minutes});
            posts.push(self.event("user_logout", data));
        }
        let missing = (wanted - self.present.len() as f64).max(0.0);
        let coming = self.chance.count(wanted * passed / 5400.0 + missing * passed / 900.0);
        for _ in 0..coming {
            self.sign_in(moment.seconds, posts);
        }
    }

    fn sign_in(&mut self, since: f64, posts: &mut Vec<Post>) {
        let person = self.chance.below(PEOPLE);
        if self.present.iter().any(|(present, _)| *present == person) {
            return;
        }
        self.present.push((person, since));
        self.logins += 1;
        let ip = format!("10.0.{}.{}", person / 250, 2 + person % 250);
        posts.push(self.event("user_login", json!({"username": name(person), "ip": ip})));
    }

    fn deeds(&mut self, moment: TimeOfDay, passed: f64, posts: &mut Vec<Post>) {
        for (kind, often, more) in DEEDS {
            let rate = often + more * moment.incident;
            let mean = self.present.len() as f64 * rate * passed / 3600.0;
            for _ in 0..self.chance.count(mean) {
                let person = self.chance.one_of(&self.present).map(|(person, _)| name(*person));
                let data = self.deed(kind, person);
                posts.push(self.event(kind, data));
            }
        }
    }

    fn deed(&mut self, kind: &str, user: Option<String>) -> Value {
        let file = self.chance.below(400);
        let size = self.chance.duration(180_000.0, 1.1).round();
        let filename = format!("chapter-{file}.xlsx");
        match kind {
            "translation_saved" => {
                let rows = 1 + self.chance.below(12);
                self.rows += rows;
                json!({"user": user, "file_id": file, "row_count": rows})
            }
            "tm_match_applied" => {
                let percent = 75 + self.chance.below(26);
                json!({"user": user, "match_percent": percent, "source": "office"})
            }
            "file_upload" => {
                self.files += 1;
                json!({"user": user, "filename": filename, "size_bytes": size, "project_id": file % 7})
            }
            "file_export" => json!({"user": user, "filename": filename, "format": "xlsx"}),
            _ => json!({"user": user, "type": "TimeoutError", "message": "no answer within 30 s"}),
        }
    }

    fn metrics(&mut self, moment: TimeOfDay) -> Post {
        let TimeOfDay { activity, incident, .. } = moment;
        let mut around = |middle: f64| {
            ((middle + 2.0 * self.chance.normal()).clamp(1.0, 99.0) * 10.0).round() / 10.0
        };
        let system = json!({
            "cpu_percent": around(8.0 + 40.0 * activity + 35.0 * incident),
            "memory_percent": around(42.0 + 15.0 * activity + 20.0 * incident),
            "disk_percent": around(61.0),
        });
        let metrics = json!({
            "user_metrics": {
                "active_users": self.present.len(),
                "logins_today": self.logins,
                "total_users": PEOPLE,
            },
            "translation_metrics": {
                "files_uploaded_today": self.files,
                "total_rows": 125_000 + self.files * 80,
                "rows_modified_today": self.rows,
            },
            "system_metrics": system,
        });
        let body = json!({"source": SOURCE, "timestamp": self.timestamp(), "metrics": metrics});
        Post::new("/api/locanext/metrics", body)
    }

    fn event(&self, kind: &str, data: Value) -> Post {
        let body = json!({
            "source": SOURCE,
            "timestamp": self.timestamp(),
            "event_type": kind,
            "data": data,
        });
        Post::new("/api/locanext/events", body)
    }

    /// Naive, as Python's `utcnow().isoformat()` writes it.
    fn timestamp(&self) -> String {
        crate::time::rfc3339(self.clock.now()).trim_end_matches('Z').to_owned()
    }
}

const SOURCE: &str = "demo-locanext";

impl Producer for LocaNext {
    const NAME: &str = "locanext";

    fn step(&mut self, moment: TimeOfDay) -> Vec<Post> {
        let mut posts = Vec::new();
        match self.at.replace(moment.seconds) {
            Some(before) => {
                let passed = moment.seconds - before;
                self.sessions(moment, passed, &mut posts);
                self.deeds(moment, passed, &mut posts);
            }
            None => {
                // They were there before anybody looked: no events of their coming.
                for _ in 0..self.chance.count(PRESENT * moment.activity) {
                    self.sign_in(moment.seconds, &mut posts);
                }
                posts.clear();
            }
        }
        if moment.seconds - self.measured >= MEASURE {
            self.measured = moment.seconds;
            posts.push(self.metrics(moment));
        }
        posts
    }
}

fn name(person: u64) -> String {
    let index = usize::try_from(person).unwrap_or(0);
    let first = NAMES.get(index % NAMES.len()).copied().unwrap_or("somebody");
    format!("{first}{}", index / NAMES.len() + 1)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::demo::Day;

    #[test]
    fn a_working_hour_has_metrics_every_five_minutes_and_much_translation() {
        let day = Day::new(10.0, 60.0, 5);
        let mut life = LocaNext::new(Chance::new(5, 1), Clock::manual(1_800_000_000_000));
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        let mut users = 0;
        for step in 0..=240 {
            for post in life.step(day.at(Duration::from_millis(step * 250))) {
                if let Some(active) = post.body["metrics"]["user_metrics"]["active_users"].as_u64()
                {
                    users = active;
                }
                let kind = post.body["event_type"].as_str().unwrap_or("metrics").to_owned();
                *kinds.entry(kind).or_default() += 1;
            }
        }
        assert_eq!(kinds["metrics"], 13, "{kinds:?}");
        assert!((300..900).contains(&kinds["translation_saved"]), "{kinds:?}");
        assert!((15..60).contains(&users), "{users}");
        assert!(kinds.contains_key("user_login") && kinds.contains_key("user_logout"), "{kinds:?}");
    }
}
