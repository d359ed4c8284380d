//! Whether an instance lives: what its signs of life and its silence make of it.

use serde::{Deserialize, Serialize};

use crate::time::{Millis, Timestamp};

/// Whether an instance lives, and in what rhythm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// As of the last event.
    pub state: InstanceState,
    /// When it came into that state.
    pub since: Timestamp,
    /// When it last sent anything.
    pub last_seen: Timestamp,
    /// When it last sent a heartbeat.
    pub last_heartbeat: Option<Timestamp>,
    /// How many it has sent.
    pub heartbeats: u64,
    /// How often it is expected to be heard from, in seconds.
    pub interval_s: u64,
    /// The times between its last heartbeats, in seconds, oldest first.
    pub gaps_s: Vec<u64>,
}

/// Whether an instance is heard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// It has registered, and not yet sent anything else.
    Pending,
    /// It is heard from.
    Up,
    /// It has been silent for more than one interval.
    Late,
    /// It has been silent for more than two.
    Down,
}

/// What was heard of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It registered.
    Registration,
    /// It sent a heartbeat.
    Heartbeat,
    /// It sent data.
    Data,
}

/// Gaps that are remembered; their median is the rhythm, which neither one outage nor a restart
/// changes.
const GAPS: usize = 5;
/// So many must be known before they count.
const ENOUGH_GAPS: usize = 3;
/// No rhythm is taken to be faster or slower than this, in seconds.
const RHYTHMS: std::ops::RangeInclusive<u64> = 10..=7 * 86_400;
/// No other node's clock is ahead by more than this.
const MOST_AHEAD: Millis = 10_000;
/// A heartbeat may be late by this part of its interval: a client that sleeps between two heartbeats is always a little
/// late.
const SLACK: u64 = 20;

impl InstanceState {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Up, Self::Late, Self::Down];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            InstanceState::Pending => "pending",
            InstanceState::Up => "up",
            InstanceState::Late => "late",
            InstanceState::Down => "down",
        }
    }
}

impl Liveness {
    /// Of an instance that was never heard of before `now`.
    pub(super) fn new(interval_s: u64, now: Millis) -> Self {
        let now = Timestamp(now);
        Self {
            state: InstanceState::Pending,
            since: now,
            last_seen: now,
            last_heartbeat: None,
            heartbeats: 0,
            interval_s,
            gaps_s: Vec::new(),
        }
    }

    /// It was heard of; gives the state it was in, if that has changed. `registered` is when it last did.
    pub fn hear(
        &mut self,
        sign: Sign,
        registered: Option<Timestamp>,
        now: Millis,
    ) -> Option<InstanceState> {
        let state = match sign {
            Sign::Registration if self.last_heartbeat.is_none() => InstanceState::Pending,
            _ => InstanceState::Up,
        };
        if sign == Sign::Heartbeat {
            self.learn(registered, now);
        }
        let last_seen = self.last_seen;
        self.last_seen =
            if self.is_ahead(now) { Timestamp(now) } else { last_seen.max(Timestamp(now)) };
        self.enter(state, now)
    }

    /// Whether it was last heard from by a clock that was ahead, and has been put right since.
    pub(super) fn is_ahead(&self, now: Millis) -> bool {
        self.last_seen.0 > now.saturating_add(MOST_AHEAD)
    }

    /// The state that its silence has led to by `now`, if it is another one. Before `heard_from` nobody listened.
    pub fn overdue(&self, now: Millis, heard_from: Millis) -> Option<InstanceState> {
        self.silent(now, heard_from).filter(|state| *state > self.state)
    }

    /// How it is missed by `now`, if it is.
    pub fn silent(&self, now: Millis, heard_from: Millis) -> Option<InstanceState> {
        let heard = if self.is_ahead(now) { 0 } else { self.last_seen.0 };
        let silence = now.saturating_sub(heard.max(heard_from));
        let patience = self.interval_s.saturating_mul(1000 + 1000 / SLACK);
        match silence {
            silence if silence > patience.saturating_mul(2) => Some(InstanceState::Down),
            silence if silence > patience => Some(InstanceState::Late),
            _ => None,
        }
    }

    /// Changes the state; gives the one before, if it was another.
    pub fn enter(&mut self, state: InstanceState, now: Millis) -> Option<InstanceState> {
        let before = std::mem::replace(&mut self.state, state);
        (before != state).then(|| {
            self.since = Timestamp(now);
            before
        })
    }

    fn learn(&mut self, registered: Option<Timestamp>, now: Millis) {
        self.heartbeats = self.heartbeats.saturating_add(1);
        let Some(last) = self.last_heartbeat.replace(Timestamp(now)) else { return };
        if last.0 > now {
            return; // the clock was put back
        }
        // After a restart the first one comes at once, which is no rhythm.
        if registered.is_some_and(|registered| registered > last) {
            return;
        }
        self.gaps_s.push((now.saturating_sub(last.0) + 500) / 1000);
        let excess = self.gaps_s.len().saturating_sub(GAPS);
        self.gaps_s.drain(..excess);
        let mut gaps = self.gaps_s.clone();
        gaps.sort_unstable();
        if let (true, Some(median)) = (gaps.len() >= ENOUGH_GAPS, gaps.get(gaps.len() / 2)) {
            self.interval_s = *median.clamp(RHYTHMS.start(), RHYTHMS.end());
        }
    }
}
