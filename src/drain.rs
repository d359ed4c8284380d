//! Sending this node's clients elsewhere: for a while, or before it ends.
//!
//! A draining node is not ready, and tells its clients to come back, one after the other. A client that connects
//! nevertheless is told the same. Everything else works as before.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    connections::{Connections, Order},
    id,
    vitals::Readiness,
};

/// What becomes of this node's clients. Cheap to clone.
#[derive(Clone)]
pub struct Drain(Arc<DrainInner>);

struct DrainInner {
    connections: Connections,
    readiness: Readiness,
    /// How long sending everybody away takes.
    time: Duration,
    course: watch::Sender<Course>,
    /// Everybody was told, and the node is to end.
    leaving: CancellationToken,
}

/// What a node does with those who come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// It takes them.
    Serving,
    /// It takes nobody and sends away who is there.
    Draining,
    /// The same, and ends.
    Stopping,
}

/// How long to wait before the first client is told to leave: by then, load balancers should have noticed.
const NOTICE: f64 = 0.25;
/// How often some are told.
const TICK: Duration = Duration::from_millis(100);
/// Within what time they come back, after they were told one by one.
const SOON: Duration = Duration::from_secs(1);

impl Drain {
    /// A node that takes everybody, once `readiness` says so.
    pub fn new(connections: Connections, readiness: Readiness, time: Duration) -> Self {
        Self(Arc::new(DrainInner {
            connections,
            readiness,
            time,
            course: watch::Sender::new(Course::Serving),
            leaving: CancellationToken::new(),
        }))
    }

    /// What it does with those who come.
    pub fn course(&self) -> Course {
        *self.0.course.borrow()
    }

    /// Begins to drain, and if `stop` to end after that; once more changes nothing.
    pub fn begin(&self, stop: bool) {
        self.turn(|course| match course {
            Course::Serving | Course::Draining if stop => Course::Stopping,
            Course::Serving => Course::Draining,
            Course::Draining | Course::Stopping => course,
        });
    }

    /// Takes clients again, unless the node is about to end.
    pub fn undo(&self) {
        self.turn(|course| if self.0.leaving.is_cancelled() { course } else { Course::Serving });
    }

    /// The node ends: it takes nobody any more, and no command changes that.
    pub fn close(&self) {
        self.turn(|_| {
            self.0.leaving.cancel();
            Course::Stopping
        });
    }

    /// Tells everybody at once when to come back, each their own time.
    pub fn dismiss(&self) {
        let DrainInner { connections, time, .. } = &*self.0;
        connections.tell_all(|| Order::Reconnect { after_ms: id::random_below(*time) });
    }

    fn turn(&self, next: impl FnOnce(Course) -> Course) {
        // Within the change, so that two at a time leave the readiness as the last of them wants it.
        let is_turned = self.0.course.send_if_modified(|course| {
            let before = std::mem::replace(course, next(*course));
            if *course != before {
                self.0.readiness.accept(*course == Course::Serving);
            }
            *course != before
        });
        if is_turned {
            tracing::info!(state = ?self.course(), "this node's course was changed");
        }
    }

    /// Resolves when the node is to end.
    pub async fn leaving(&self) {
        self.0.leaving.cancelled().await;
    }

    /// Sends clients away whenever the node drains, until `over`.
    pub async fn run(self, over: CancellationToken) {
        let mut course = self.0.course.subscribe();
        let work = async {
            // The sender lives as long as this does.
            while course.wait_for(|course| *course != Course::Serving).await.is_ok() {
                tokio::select! {
                    _ = course.wait_for(|course| *course == Course::Serving) => {}
                    () = self.send_away() => return,
                }
            }
        };
        tokio::select! {
            () = over.cancelled() => {}
            () = work => {}
        }
    }

    /// Tells one after the other to come back soon; ends when the node is to end.
    async fn send_away(&self) {
        let DrainInner { connections, time, .. } = &*self.0;
        let begun = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = HashSet::new();
        loop {
            ticks.tick().await;
            let since = begun.elapsed();
            if since < notice(*time) {
                continue;
            }
            let here = connections.ids();
            told.retain(|id| here.contains(id));
            let left: Vec<u64> = here.difference(&told).copied().collect();
            if left.is_empty() && self.leaves() {
                return;
            }
            // Who comes later finds no other node, it seems: that must not become a storm.
            let spread = if since >= *time { *time } else { SOON };
            let share = share(left.len(), since, *time);
            for id in left.into_iter().take(share) {
                connections.tell(id, Order::Reconnect { after_ms: id::random_below(spread) });
                told.insert(id);
            }
        }
    }

    /// Whether the node is to end now; from then on that is not undone.
    fn leaves(&self) -> bool {
        self.0.course.send_if_modified(|course| {
            if *course == Course::Stopping {
                self.0.leaving.cancel();
            }
            false
        });
        self.0.leaving.is_cancelled()
    }
}

/// How long nobody is sent away, of all the `time` a drain takes.
fn notice(time: Duration) -> Duration {
    time.mul_f64(NOTICE)
}

/// How many of those `left` are told in one turn of a drain that has lasted `since` and takes `time`.
fn share(left: usize, since: Duration, time: Duration) -> usize {
    let turns = 1 + (time.saturating_sub(since).as_millis() / TICK.as_millis()) as usize;
    left.div_ceil(turns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dialect::Dialect, hub::TaskWaker, telemetry::Telemetry};

    #[test]
    fn clients_are_told_one_after_the_other_after_a_notice_and_all_in_time() {
        for (clients, seconds) in [(6, 1), (1000, 1), (1000, 30), (1, 0), (0, 10)] {
            let time = Duration::from_secs(seconds);
            let (mut since, mut told) = (notice(time), Vec::new());
            assert_eq!(since * 4, time, "a quarter for load balancers to notice");
            let left = |told: &[usize]| clients - told.iter().sum::<usize>();
            while left(&told) > 0 {
                told.push(share(left(&told), since, time));
                since += TICK;
            }
            let turns = told.len() as u32;
            assert!(notice(time) + TICK * turns.saturating_sub(1) <= time, "{clients}: {told:?}");
            let even = clients.div_ceil(told.len().max(1));
            assert!(told.iter().all(|&count| count <= even), "{clients}: {told:?}");
            assert!(seconds == 0 || clients < 2 || told.len() >= 6, "{clients}: {told:?}");
        }
    }

    #[tokio::test]
    async fn nobody_is_told_before_load_balancers_could_notice() {
        let over = CancellationToken::new();
        let drained = |time| {
            let connections = Connections::new(usize::MAX, Telemetry::new());
            let (peer, waker) = (([127, 0, 0, 1], 1).into(), Arc::new(TaskWaker::default()));
            let client = connections.enter(Dialect::Sse, peer, waker, 0);
            let drain = Drain::new(connections, Readiness::default(), time);
            drain.begin(false);
            tokio::spawn(drain.run(over.clone()));
            client
        };
        let patient = drained(Duration::from_secs(3600));
        let prompt = drained(Duration::ZERO);
        let told = async {
            let is_told = prompt.told();
            while !is_told() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
        // Its turn came first.
        assert!(!patient.told()());
        over.cancel();
    }
}
