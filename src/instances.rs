//! The registry: which instances of which applications there are, and whether they are heard from.
//!
//! Each registration, heartbeat and change of state is an event on `hub.instances.{app}` with the
//! instance as its key and all that is known of it as its data. So the broker's newest values are
//! the registry; what a node has in memory is read from there at its start and follows the log.

mod keys;
mod known;
mod listening;
mod liveness;
mod record;
mod registry;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

pub use self::{
    keys::{InstanceKeys, KeyError},
    liveness::{InstanceState, Liveness, Sign},
    record::{InstanceRecord, OwnKey, Registered, UnwritableRecord},
};
use self::{known::KnownInstances, watch::SilenceWatch};
use crate::{
    admission::{OwnEvent, Speaker},
    bounds,
    broker::{PublishError, ReadError},
    duty::Duties,
    event::{AppName, InstanceId},
    follow::Feed,
    ingest::timetracker::Registration,
    position::Offset,
    store::{Store, StoreError},
    telemetry::{Limit, Telemetry},
    time::{Clock, Millis, Span, Timestamp},
    topic::TopicError,
};

/// The lease and the cursor of who tells of silence.
const NAME: &str = "instances";

/// The `[instances]` section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstancesConfig {
    /// How often an instance is expected to be heard from until its own rhythm is known.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { bounds::SECOND }>")]
    pub interval: Span,
    /// The most instances in the registry, of all applications together.
    #[serde(deserialize_with = "bounds::at_least::<_, _, 1>")]
    pub max: usize,
    /// An instance that was silent for so long is forgotten.
    #[serde(deserialize_with = "bounds::at_least::<_, _, { 60 * bounds::SECOND }>")]
    pub forget_after: Span,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Instances {
    known: Arc<KnownInstances>,
    keys: InstanceKeys,
    watch: SilenceWatch,
    config: InstancesConfig,
    clock: Clock,
    telemetry: Telemetry,
}

/// Why nothing was changed in the registry.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// There is no such instance.
    #[error("there is no such instance")]
    Unknown,
    /// There is no room for another.
    #[error("the registry holds {limit} instances, its limit: forget some, or raise instances.max")]
    Full {
        /// `instances.max`.
        limit: usize,
    },
    /// The record could not be written.
    #[error(transparent)]
    Unwritable(#[from] UnwritableRecord),
    /// The log did not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Why the registry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// How far it was whole.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the log tells of it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Instances {
    /// A registry that knows of nothing yet.
    pub fn new(
        config: InstancesConfig,
        feed: Feed,
        store: Store,
        clock: Clock,
        telemetry: Telemetry,
    ) -> Result<Self, TopicError> {
        let known = Arc::new(KnownInstances::new(feed, store, telemetry.clone())?);
        let keys = InstanceKeys::new(known.clone(), clock.clone());
        let watch = SilenceWatch::new(known.clone(), clock.clone(), config.forget_after.millis());
        Ok(Self { known, keys, watch, config, clock, telemetry })
    }

    /// Reads what the log has. It is followed once [`run`](Self::run) runs.
    pub async fn load(&self) -> Result<(), LoadError> {
        self.known.load().await
    }

    /// Follows the log and tells of silence, until `stop`.
    pub async fn run(self, duties: Duties, stop: CancellationToken) {
        let watch = duties.run(self.watch.clone(), stop.clone());
        tokio::join!(self.known.run(&stop), watch, self.watch.listen(&stop));
    }

    /// Their API keys.
    pub fn keys(&self) -> &InstanceKeys {
        &self.keys
    }

    /// What is known of an instance.
    pub fn get(&self, app: &AppName, id: &InstanceId) -> Option<InstanceRecord> {
        self.known.read().get(app, id).cloned()
    }

    /// The applications that have an instance of this name; one as a rule.
    pub fn apps_of(&self, id: &InstanceId) -> Vec<AppName> {
        let registry = self.known.read();
        registry.named(id).iter().map(|record| record.app.clone()).collect()
    }

    /// The instances that `wanted` lets through, in no order.
    pub fn list(&self, mut wanted: impl FnMut(&InstanceRecord) -> bool) -> Vec<InstanceRecord> {
        self.known.read().all().filter(|record| wanted(record)).cloned().collect()
    }

    /// An instance registers, for the first time or again; gives its record and whether it is new.
    pub async fn register(
        &self,
        speaker: &Speaker,
        said: Registration,
    ) -> Result<(InstanceRecord, bool), InstanceError> {
        let now = self.clock.now();
        let (mut record, is_new) = self.known_or_new(speaker, now)?;
        let previous = record.hear(Sign::Registration, now);
        record.registration = Some(Registered { at: Timestamp(now), said });
        self.known.publish(record.event("instance.registered", previous, now)?.into()).await?;
        Ok((record, is_new))
    }

    /// A heartbeat of each of these instances: of one name, which several applications may have.
    pub async fn heartbeat(
        &self,
        speakers: &[Speaker],
    ) -> Result<Vec<InstanceRecord>, InstanceError> {
        let (mut records, mut events) = (Vec::new(), Vec::new());
        for speaker in speakers {
            let (record, event) = self.heard(speaker, Sign::Heartbeat)?;
            records.push(record);
            events.push(event);
        }
        self.known.publish(events.into_iter().collect()).await?;
        Ok(records)
    }

    /// The event that an instance sent data, to be stored together with the data. None if it would say nothing new,
    /// because data may come much more often than heartbeats.
    pub fn sent_data(&self, speaker: &Speaker) -> Result<Option<OwnEvent>, InstanceError> {
        const WORTH_TELLING: u64 = 4;
        let now = self.clock.now();
        let is_told = self.get(speaker.app(), speaker.id()).is_some_and(|record| {
            let silence = now.saturating_sub(record.pulse.last_seen.0);
            record.pulse.state == InstanceState::Up
                && silence.saturating_mul(WORTH_TELLING)
                    < record.pulse.interval_s.saturating_mul(1000)
        });
        if is_told {
            Ok(None)
        } else {
            self.heard(speaker, Sign::Data).map(|(_, event)| Some(event))
        }
    }

    /// Waits until this node knows what was stored at `offset`, for a while.
    pub async fn followed(&self, offset: Offset) {
        self.known.followed(offset).await;
    }

    fn heard(
        &self,
        speaker: &Speaker,
        sign: Sign,
    ) -> Result<(InstanceRecord, OwnEvent), InstanceError> {
        let now = self.clock.now();
        let (mut record, _) = self.known_or_new(speaker, now)?;
        let previous = record.hear(sign, now);
        let kind = match sign {
            _ if previous.is_some() => "instance.up",
            Sign::Registration => "instance.registered",
            Sign::Heartbeat => "instance.heartbeat",
            Sign::Data => "instance.data",
        };
        let event = record.event(kind, previous, now)?;
        Ok((record, event))
    }

    fn known_or_new(
        &self,
        speaker: &Speaker,
        now: Millis,
    ) -> Result<(InstanceRecord, bool), InstanceError> {
        let (app, id) = (speaker.app(), speaker.id());
        let registry = self.known.read();
        if let Some(record) = registry.get(app, id) {
            return Ok((record.clone(), false));
        }
        let limit = self.config.max;
        if registry.len() >= limit {
            self.telemetry.hit(Limit::Instances);
            return Err(InstanceError::Full { limit });
        }
        let interval_s = self.config.interval.millis() / 1000;
        Ok((InstanceRecord::new(app.clone(), id.clone(), interval_s, now), true))
    }
}
