//! Every node follows what the log tells of instances; one of them tells of their silence.

use std::{
    convert::Infallible,
    sync::atomic::Ordering,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    Instances, InstancesInner, LoadError, NAME,
    record::{self, UnwritableRecord},
    registry::{Announcement, Registry},
};
use crate::{
    admission::{Admitted, OwnEvent},
    broker::{Batch, PublishError, ReadError, Resumption},
    duty::{Duties, Duty, Term, TermError},
    follow::{Delivery, Follow},
    lease::Fence,
    position::Offset,
    time::Millis,
    topic::TopicFilter,
};

/// How often the time is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often the cursor moves on while the log tells nothing of instances.
const NOTE: Duration = Duration::from_secs(5);
/// The most that is told at once; the rest follows at the next tick.
const MOST: usize = 1000;

impl Instances {
    /// Follows the log and tells of silence, until `stop`.
    pub async fn run(self, duties: Duties, stop: CancellationToken) {
        let watch = duties.run(self.clone(), stop.clone());
        tokio::join!(self.follow(&stop), watch, self.listen(&stop));
    }

    /// Notices when this node did not run.
    async fn listen(&self, stop: &CancellationToken) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.heard_from(self.0.clock.now()),
            };
        }
    }

    fn heard_from(&self, now: Millis) -> Millis {
        let clocks = (std::time::Instant::now(), SystemTime::now());
        self.0.listening.lock().look(now, self.0.clock.elapsed(), clocks)
    }

    async fn follow(&self, stop: &CancellationToken) {
        let progress = self.0.progress.clone();
        let keeping_up = self.0.feed.keep_up(self, Some(progress.offset()), progress);
        tokio::select! {
            () = stop.cancelled() => {}
            _ = keeping_up.run() => {}
        }
    }

    /// What the newest event about each instance says, which outlives retention, up to the offset at least.
    async fn newest(&self) -> Result<(Registry, Offset), ReadError> {
        let broker = self.0.feed.broker();
        let head = broker.head().offset;
        let block = broker.latest(self.0.filter.clone()).all().await?;
        Ok((Registry::of(block.records()), head))
    }
}

impl Follow for Instances {
    type Error = LoadError;

    fn name(&self) -> &'static str {
        NAME
    }

    fn filter(&self) -> TopicFilter {
        self.0.filter.clone()
    }

    /// The newest events, and then again what came since the cursor: from there on a record may have been written from
    /// old knowledge, and not been mended yet.
    async fn rebuild(&self) -> Result<Offset, LoadError> {
        let InstancesInner { feed, store, filter, telemetry, .. } = &*self.0;
        let (mut registry, mut head) = self.newest().await?;
        let start = match store.load_cursor(NAME).await? {
            None => Resumption::From(0),
            Some(position) => feed.broker().epochs().resume(position).await?,
        };
        if let Resumption::From(start) = start {
            let mut before = feed.follow(NAME, filter.clone(), start);
            while let Some(delivery) = before.next_up_to(head).await? {
                if delivery.has_gap {
                    // What is left of it would bring back who was forgotten in what is gone.
                    (registry, head) = self.newest().await?;
                    break;
                }
                delivery.records().for_each(|record| registry.apply(record));
            }
        }
        registry.count(telemetry);
        *self.0.registry.write() = registry;
        Ok(head)
    }

    fn take_in(&self, delivery: &Delivery) {
        let mut registry = self.0.registry.write();
        for record in delivery.records() {
            registry.apply(record);
            self.0.told.store(record.offset(), Ordering::Release);
        }
        registry.count(&self.0.telemetry);
    }
}

impl Duty for Instances {
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

impl Instances {
    /// Tells of silence while the lease is ours. The cursor moves when all that was written up to
    /// there is whole: whoever takes over, or starts, begins with what may not be. It moves on where
    /// nothing is told of instances too, or a start would read all of that before anybody is served.
    async fn keep(&self, term: &Term) -> Result<Infallible, TermError> {
        let InstancesInner { feed, store, progress, told, .. } = &*self.0;
        let fence = term.fence();
        // What was told before is to be known before anything is told again.
        let mut known_from = term.began();
        let mut noted: Option<(Offset, Instant)> = None;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            progress.gets_to(known_from).await?;
            let followed = progress.offset();
            // After a failure nobody knows what was told: the next term begins with what the log holds.
            if let Some(offset) = self.tell(fence).await? {
                known_from = offset;
                continue;
            }
            let told = told.load(Ordering::Acquire);
            let is_due = noted.is_none_or(|(offset, at)| {
                let has_come = offset < told && told <= followed;
                has_come || offset < followed && at.elapsed() >= NOTE
            });
            if is_due {
                let position = feed.broker().epochs().position(followed);
                store.save(fence, position, Vec::new()).await?;
                noted = Some((followed, Instant::now()));
            }
        }
    }

    /// Tells what is due; gives the last offset of it, or nothing if there was nothing.
    async fn tell(&self, fence: &Fence) -> Result<Option<Offset>, PublishError> {
        let now = self.0.clock.now();
        let heard_from = self.heard_from(now);
        // Nobody is forgotten by a clock that is in doubt.
        let forget_after = match self.0.clock.is_settled() {
            true => self.0.config.forget_after.millis(),
            false => Millis::MAX,
        };
        let due = self.0.registry.read().due(now, heard_from, forget_after, MOST);
        let events: Admitted = due
            .into_iter()
            .filter_map(|due| {
                event(due, now).map_err(|error| tracing::error!(%error, "nothing is told")).ok()
            })
            .collect();
        if events.is_empty() {
            return Ok(None);
        }
        let published = self.0.feed.broker().publish(Batch::from(events).fenced(fence)).await?;
        Ok(Some(published.position.offset))
    }
}

/// The event that tells it. A silence has one id, so that it is told once however often it is tried.
fn event(due: Announcement, now: u64) -> Result<OwnEvent, UnwritableRecord> {
    match due {
        Announcement::Silent(mut record, state) => {
            let previous = record.enter(state, now);
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
