//! Every node follows what the log tells of instances; one of them tells of their silence.

use std::{
    convert::Infallible,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Inner, Instances, NAME,
    record::{self, UnwritableRecord},
    registry::{Due, Registry},
};
use crate::{
    broker::{PublishError, ReadError},
    duty::{Duties, Duty, Term, TermError},
    event::Event,
    follow::{Delivery, Follower},
    lease::Fence,
    position::Offset,
    time::Millis,
};

/// How often the time is looked at.
const TICK: Duration = Duration::from_millis(500);
/// The wait after something failed.
const AGAIN: Duration = Duration::from_secs(1);
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
        let start = self.0.followed.borrow().to_owned();
        let mut reader = Follower::new(self.0.filter.clone(), self.0.broker.clone(), start);
        let follow = async {
            let mut failing = false;
            loop {
                let result = self.take_next(&mut reader).await;
                if let Err(error) = &result {
                    if !failing {
                        tracing::warn!(%error, "the registry cannot follow the log; trying again");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                failing = result.is_err();
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
        }
    }

    /// Takes in what comes next. While nothing does, the place that was reached is noted.
    pub(super) async fn take_next(&self, reader: &mut Follower) -> Result<(), ReadError> {
        if let Ok(delivery) = timeout(TICK, reader.next()).await
            && !self.take_in(&delivery?)
        {
            // What was delivered does not come again, so that this is tried until it is done.
            *reader = loop {
                match self.read_newest().await {
                    Ok(reader) => break reader,
                    Err(error) => {
                        tracing::warn!(%error, "the registry cannot be read; trying again");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            };
        }
        self.0.followed.send_replace(reader.reached());
        Ok(())
    }

    /// Takes in what the log tells; false, and nothing is, if retention went past something.
    pub(super) fn take_in(&self, delivery: &Delivery) -> bool {
        if delivery.has_gap {
            return false;
        }
        let mut registry = self.0.registry.write();
        delivery.records().for_each(|record| registry.apply(record));
        registry.count(&self.0.telemetry);
        true
    }

    /// Makes the registry what the newest event about each instance says, which outlives retention;
    /// gives a reader of what comes behind. What came before is part of it, and taken in after it
    /// would bring back who was forgotten.
    pub(super) async fn read_newest(&self) -> Result<Follower, ReadError> {
        let Inner { broker, filter, .. } = &*self.0;
        let reader = Follower::new(filter.clone(), broker.clone(), broker.head().offset);
        let block = broker.latest(filter).await?;
        let newest = Registry::of(block.records());
        newest.count(&self.0.telemetry);
        *self.0.registry.write() = newest;
        Ok(reader)
    }
}

impl Duty for Instances {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    async fn serve(&mut self, term: &Term) -> Result<(), TermError> {
        tokio::select! {
            () = term.over() => Ok(()),
            Err(ended) = self.keep(term.fence()) => Err(ended),
        }
    }
}

impl Instances {
    /// Tells of silence while the lease is ours. The cursor moves when all that was written up to
    /// there is whole: whoever takes over, or starts, begins with what may not be. It moves on where
    /// nothing is told of instances too, or a start would read all of that before anybody is served.
    async fn keep(&self, fence: &Fence) -> Result<Infallible, TermError> {
        let Inner { broker, store, filter, .. } = &*self.0;
        let cursor = store.load_cursor(NAME).await?;
        let mut reader = Follower::resume(filter.clone(), broker.clone(), cursor).await?;
        // What was told before is to be known before anything is told again.
        let mut known_from = broker.head().offset;
        let mut undone: Option<Offset> = None;
        let mut noted: Option<(Offset, Instant)> = None;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                delivery = reader.next() => {
                    undone = Some(delivery?.position.offset);
                    continue;
                }
                _ = ticks.tick() => {}
            }
            let followed = *self.0.followed.borrow();
            if followed < known_from {
                continue;
            }
            match self.tell(fence).await {
                Ok(Some(offset)) => known_from = offset,
                Ok(None) => {
                    let has_come = undone.take_if(|offset| *offset <= followed).is_some();
                    let is_time =
                        noted.is_none_or(|(offset, at)| offset < followed && at.elapsed() >= NOTE);
                    if has_come || is_time {
                        store.save_cursor(fence, broker.position(followed)).await?;
                        noted = Some((followed, Instant::now()));
                    }
                }
                Err(PublishError::Fenced) => return Err(TermError::Lost),
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "the silence of instances cannot be told");
                    }
                    failing = true;
                    continue;
                }
            }
            failing = false;
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
        let events: Vec<Event> = due
            .into_iter()
            .filter_map(|due| {
                event(due, now).map_err(|error| tracing::error!(%error, "nothing is told")).ok()
            })
            .collect();
        if events.is_empty() {
            return Ok(None);
        }
        let published = self.0.broker.publish_fenced(events, fence).await?;
        Ok(Some(published.position.offset))
    }
}

/// The event that tells it. A silence has one id, so that it is told once however often it is tried.
fn event(due: Due, now: u64) -> Result<Event, UnwritableRecord> {
    match due {
        Due::Silent(mut record, state) => {
            let previous = record.enter(state, now);
            let event = record.event(&format!("instance.{}", state.name()), previous, now)?;
            let (id, last_seen) = (&record.instance_id, record.pulse.last_seen.0);
            let id = format!("{}:{last_seen}:{id}", state.name()).into();
            Ok(Event { id, id_is_ours: false, ..event })
        }
        Due::Returned(record, before) => {
            let event = record.event("instance.up", Some(before), now)?;
            let (id, last_seen) = (&record.instance_id, record.pulse.last_seen.0);
            Ok(Event { id: format!("up:{last_seen}:{id}").into(), id_is_ours: false, ..event })
        }
        Due::Whole(record) => record.event("instance.merged", None, now),
        Due::Forgotten(app, id) => record::removal(&app, &id, now),
    }
}
