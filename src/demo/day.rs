//! The course of a day, faster than a real one if wished: how busy it is, and when something goes wrong.

use std::time::{Duration, Instant};

use super::chance::Chance;

/// The day that all synthetic producers live in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Day {
    began: Instant,
    hour: f64,
    speed: f64,
    seed: u64,
}

/// How things stand at one moment of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeOfDay {
    /// Seconds of the day's own time since it began.
    pub(super) seconds: f64,
    /// How busy everybody is: 1 at the height of the day, little at night.
    pub(super) activity: f64,
    /// How bad things are: 0 nearly always, 1 in the middle of an incident.
    pub(super) incident: f64,
}

/// One incident falls into each such stretch of the day's time.
const STRETCH: f64 = 4.0 * 3600.0;
/// How long an incident lasts.
const INCIDENT: f64 = 20.0 * 60.0;
const HOURS: f64 = 24.0;

impl Day {
    /// A day that begins now with the given hour and runs `speed` times as fast as a real one.
    pub fn new(hour: f64, speed: f64, seed: u64) -> Self {
        Self { began: Instant::now(), hour, speed, seed }
    }

    /// What all chance follows from.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// How things stand now.
    pub(super) fn now(&self) -> TimeOfDay {
        self.at(self.began.elapsed())
    }

    /// How things stand when so much real time has gone by since it began.
    pub(super) fn at(&self, elapsed: Duration) -> TimeOfDay {
        let seconds = elapsed.as_secs_f64() * self.speed;
        let hour = (self.hour + seconds / 3600.0).rem_euclid(HOURS);
        TimeOfDay { seconds, activity: activity(hour), incident: self.incident(seconds) }
    }

    /// How bad it is: rising to the middle of an incident and falling again.
    fn incident(&self, seconds: f64) -> f64 {
        let stretch = (seconds / STRETCH).floor();
        // Its own throw for each stretch, so that it does not matter who asks how often.
        let mut chance = Chance::new(self.seed, 1000 + stretch as u64);
        let middle = stretch * STRETCH + INCIDENT + chance.share() * (STRETCH - 2.0 * INCIDENT);
        let distance = (seconds - middle).abs() / (INCIDENT / 2.0);
        (1.0 - distance).max(0.0)
    }
}

/// Two hills, before and after lunch, over a low plain.
fn activity(hour: f64) -> f64 {
    let hill = |top: f64, width: f64| (-((hour - top) / width).powi(2)).exp();
    (0.04 + 0.96 * hill(10.5, 2.2).max(0.92 * hill(15.0, 2.4))).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_day_has_a_night_a_morning_and_a_lunch() {
        let [night, morning, lunch, afternoon] = [3.0, 10.5, 12.8, 15.0].map(activity);
        assert!(night < 0.1 && morning > 0.99 && afternoon > 0.9);
        assert!(lunch < 0.75 && lunch > 0.2, "{lunch}");
    }

    #[test]
    fn speed_makes_an_hour_of_a_minute() {
        let day = Day::new(9.5, 60.0, 1);
        let later = day.at(HOUR / 60);
        assert!((later.seconds - 3600.0).abs() < 1e-6);
        assert!((later.activity - activity(10.5)).abs() < 1e-9);
    }

    #[test]
    fn an_incident_comes_now_and_then_and_ends() {
        let day = Day::new(0.0, 1.0, 42);
        let minutes = (0..24 * 60).map(|minute| day.at(Duration::from_secs(minute * 60)).incident);
        let bad = minutes.filter(|incident| *incident > 0.0).count();
        // Six stretches of four hours, twenty minutes each.
        assert!((100..=130).contains(&bad), "{bad} minutes");
        assert_eq!(day.at(Duration::from_secs(60)).incident, 0.0);
    }
}
