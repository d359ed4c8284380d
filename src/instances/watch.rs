//! One node tells of the silence of instances; every node notices when it could not hear them.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    NAME,
    known::KnownInstances,
    listening::Listening,
    record::{self, UnwritableRecord},
    registry::Announcement,
};
use crate::{
    admission::{Admitted, OwnEvent},
    broker::{Batch, PublishError},
    duty::{Duty, Term, TermError},
    lease::Fence,
    position::Offset,
    time::{Clock, Millis},
};

/// How often the time is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often the cursor moves on while the log tells nothing of instances.
const NOTE: Duration = Duration::from_secs(5);
/// The most events published at once; the rest follow at the next tick.
const MOST: usize = 1000;

/// Tells of the silence of instances. Cheap to clone.
#[derive(Clone)]
pub(super) struct SilenceWatch {
    known: Arc<KnownInstances>,
    clock: Clock,
    forget_after: Millis,
    /// Held to look at the clocks.
    listening: Arc<Mutex<Listening>>,
}

impl SilenceWatch {
    pub(super) fn new(known: Arc<KnownInstances>, clock: Clock, forget_after: Millis) -> Self {
        let listening = Arc::new(Mutex::new(Listening::new(clock.now(), clock.elapsed())));
        Self { known, clock, forget_after, listening }
    }

    /// Notices when this node did not run.
    pub(super) async fn listen(&self, stop: &CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.heard_from(self.clock.now()),
            };
        }
    }

    fn heard_from(&self, now: Millis) -> Millis {
        let clocks = (std::time::Instant::now(), SystemTime::now());
        self.listening.lock().look(now, self.clock.elapsed(), clocks)
    }

    /// Publishes silences while this node has the lease. The cursor moves once everything written up to it is complete,
    /// because the next holder starts there. It also moves where no instance has events; otherwise a start would read
    /// all of that before the hub serves anybody.
    async fn keep(&self, term: &Term) -> Result<Infallible, TermError> {
        let known = &*self.known;
        let fence = term.fence();
        // What was published before must be known before anything is published again.
        let mut known_from = term.began();
        let mut noted: Option<(Offset, Instant)> = None;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            known.progress.gets_to(known_from).await?;
            let followed = known.progress.offset();
            // After a failure it is unknown what was published: the next term begins with what is in the log.
            if let Some(offset) = self.tell(fence).await? {
                known_from = offset;
                continue;
            }
            let told = known.told();
            let is_due = noted.is_none_or(|(offset, at)| {
                let has_come = offset < told && told <= followed;
                has_come || offset < followed && at.elapsed() >= NOTE
            });
            if is_due {
                let position = known.broker().epochs().position(followed);
                known.store().save(fence, position, Vec::new()).await?;
                noted = Some((followed, Instant::now()));
            }
        }
    }

    /// Tells what is due; gives the last offset of it, or nothing if there was nothing.
    async fn tell(&self, fence: &Fence) -> Result<Option<Offset>, PublishError> {
        let now = self.clock.now();
        let heard_from = self.heard_from(now);
        // While the clock is in doubt, no instance is forgotten.
        let forget_after = match self.clock.is_settled() {
            true => self.forget_after,
            false => Millis::MAX,
        };
        let due = self.known.read().due(now, heard_from, forget_after, MOST);
        let events: Admitted = due
            .into_iter()
            .filter_map(|due| {
                event(due, now).map_err(|error| tracing::error!(%error, "nothing is told")).ok()
            })
            .collect();
        if events.is_empty() {
            return Ok(None);
        }
        let published = self.known.broker().publish(Batch::from(events).fenced(fence)).await?;
        Ok(Some(published.position.offset))
    }
}

impl Duty for SilenceWatch {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    async fn serve(&mut self, term: &Term) -> Result<(), TermError> {
        tokio::select! {
            () = term.over() => Ok(()),
            Err(ended) = self.keep(term) => Err(ended),
        }
    }
}

/// The event for it. Each silence has one id, so that it is stored once however often it is published.
fn event(due: Announcement, now: u64) -> Result<OwnEvent, UnwritableRecord> {
    match due {
        Announcement::Silent(mut record, state) => {
            let previous = record.pulse.enter(state, now);
            let event = record.event(&format!("instance.{}", state.name()), previous, now)?;
            let (id, last_seen) = (&record.instance_id, record.pulse.last_seen.0);
            Ok(event.with_id(format!("{}:{last_seen}:{id}", state.name())))
        }
        Announcement::Returned(record, before) => {
            let event = record.event("instance.up", Some(before), now)?;
            let (id, last_seen) = (&record.instance_id, record.pulse.last_seen.0);
            Ok(event.with_id(format!("up:{last_seen}:{id}")))
        }
        Announcement::Whole(record) => record.event("instance.merged", None, now),
        Announcement::Forgotten(app, id) => record::removal(&app, &id, now),
    }
}
