//! What is known of one instance.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::liveness::{InstanceState, Liveness, Sign};
use crate::{
    admission::OwnEvent,
    event::{AppName, InstanceId, Record},
    ingest::timetracker::Registration,
    time::{Millis, Timestamp},
};

/// All that is known of an instance: the `data` of each event about it.
///
/// Nodes write records from what they know at the moment. Two that do so at once differ in one of
/// the parts, and [`merge`](Self::merge) makes one of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// The application it is an instance of.
    pub app: AppName,
    /// Its own name.
    pub instance_id: InstanceId,
    /// When it was first heard of.
    pub first_seen: Timestamp,
    /// Whether it lives.
    #[serde(flatten)]
    pub pulse: Liveness,
    /// What it said of itself; None for an instance that never registered.
    pub registration: Option<Registered>,
    /// The API key that is its own, if one was made.
    pub key: Option<OwnKey>,
}

/// A registration and when it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// When it last registered.
    pub at: Timestamp,
    /// What it said.
    #[serde(flatten)]
    pub said: Registration,
}

/// An API key that was made for one instance; the newer one is the greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnKey {
    /// When it was made.
    pub at: Timestamp,
    /// Its public part.
    pub id: String,
}

impl InstanceRecord {
    /// The record of an instance that was never heard of before `now`.
    pub fn new(app: AppName, instance_id: InstanceId, interval_s: u64, now: Millis) -> Self {
        let (first_seen, pulse) = (Timestamp(now), Liveness::new(interval_s, now));
        Self { app, instance_id, first_seen, pulse, registration: None, key: None }
    }

    /// Whether this is the first that is told of it: whoever wrote it knew of nothing before.
    pub fn is_first(&self) -> bool {
        let Liveness { since, last_seen, .. } = self.pulse;
        self.first_seen == since && since == last_seen && self.key.is_none()
    }

    /// It was heard of; gives the state it was in, if that has changed.
    pub fn hear(&mut self, sign: Sign, now: Millis) -> Option<InstanceState> {
        let registered = self.registration.as_ref().map(|registered| registered.at);
        self.pulse.hear(sign, registered, now)
    }

    /// The newest parts of two records of the same instance; `other` came later in the log.
    pub fn merge(self, other: Self) -> Self {
        let age = |pulse: &Liveness| (pulse.last_seen, pulse.since, pulse.heartbeats);
        let registered = |of: &Option<Registered>| of.as_ref().map(|registered| registered.at);
        let newer_pulse = age(&other.pulse) >= age(&self.pulse);
        let newer_registration = registered(&other.registration) >= registered(&self.registration);
        Self {
            first_seen: self.first_seen.min(other.first_seen),
            pulse: if newer_pulse { other.pulse } else { self.pulse },
            registration: if newer_registration { other.registration } else { self.registration },
            key: self.key.max(other.key),
            app: other.app,
            instance_id: other.instance_id,
        }
    }

    /// The event that tells of the record: what happened, and the state before if that changed it.
    pub fn event(
        &self,
        kind: &str,
        previous: Option<InstanceState>,
        now: Millis,
    ) -> Result<OwnEvent, UnwritableRecord> {
        #[derive(Serialize)]
        struct RecordEvent<'a> {
            #[serde(flatten)]
            record: &'a InstanceRecord,
            #[serde(skip_serializing_if = "Option::is_none")]
            previous: Option<InstanceState>,
        }
        let text = serde_json::to_string(&RecordEvent { record: self, previous });
        let data = text.and_then(RawValue::from_string).map_err(|_| UnwritableRecord)?;
        event(&self.app, &self.instance_id, kind, data, now)
    }
}

/// The event that takes an instance out of the registry.
pub(super) fn removal(
    app: &AppName,
    instance_id: &InstanceId,
    now: Millis,
) -> Result<OwnEvent, UnwritableRecord> {
    event(app, instance_id, "instance.forgotten", RawValue::NULL.to_owned(), now)
}

/// A record that is no JSON, or whose topic is none. Names are checked, so that neither is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record of an instance cannot be written")]
pub struct UnwritableRecord;

fn event(
    app: &AppName,
    instance_id: &InstanceId,
    kind: &str,
    data: Box<RawValue>,
    now: Millis,
) -> Result<OwnEvent, UnwritableRecord> {
    let topic = app.registry_topic().map_err(|_| UnwritableRecord)?;
    Ok(OwnEvent::new(&topic, kind, now, data).with_key(instance_id.as_str()))
}

/// What an event says.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
pub(super) enum InstanceEvent {
    Record(InstanceRecord),
    Removal(AppName, InstanceId),
}

pub(super) fn read(told: Record<'_>) -> Option<InstanceEvent> {
    if !told.is_removal() {
        return serde_json::from_slice(told.data()).ok().map(InstanceEvent::Record);
    }
    let app = told.topic().strip_prefix(AppName::REGISTRY)?.strip_prefix('.')?;
    let id = serde_json::from_slice(told.key()?).ok()?;
    Some(InstanceEvent::Removal(AppName::parse(app).ok()?, id))
}

/// Whether an event tells that the state was another before.
pub(super) fn says_previous(told: Record<'_>) -> bool {
    #[derive(serde::Deserialize)]
    struct PreviousState {
        previous: Option<InstanceState>,
    }
    serde_json::from_slice(told.data()).is_ok_and(|said: PreviousState| said.previous.is_some())
}

pub(super) fn complain(told: Record<'_>) {
    let (topic, offset) = (told.topic(), told.offset());
    tracing::error!(topic, offset, "the record of an instance cannot be read");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Millis = 3_600_000;

    fn record() -> InstanceRecord {
        let (app, id) = (AppName::parse("tt").unwrap(), InstanceId::parse("i").unwrap());
        InstanceRecord::new(app, id, 3600, 0)
    }

    fn registered(record: &mut InstanceRecord, now: Millis) {
        record.registration =
            Some(Registered { at: Timestamp(now), said: Registration::default() });
        record.hear(Sign::Registration, now);
    }

    #[test]
    fn it_is_pending_then_up_then_late_then_down_and_up_again() {
        let mut record = record();
        registered(&mut record, 0);
        assert_eq!(record.pulse.state, InstanceState::Pending);
        assert_eq!(record.hear(Sign::Heartbeat, 1000), Some(InstanceState::Pending));
        assert_eq!((record.pulse.state, record.pulse.since), (InstanceState::Up, Timestamp(1000)));
        assert_eq!(record.pulse.overdue(1000 + HOUR + HOUR / 20, 0), None);
        assert_eq!(record.pulse.overdue(1001 + HOUR + HOUR / 20, 0), Some(InstanceState::Late));
        assert_eq!(record.pulse.enter(InstanceState::Late, 2 * HOUR), Some(InstanceState::Up));
        assert_eq!(record.pulse.overdue(2 * HOUR, 0), None, "it is known to be late");
        assert_eq!(
            record.pulse.overdue(1001 + 2 * (HOUR + HOUR / 20), 0),
            Some(InstanceState::Down)
        );
        record.pulse.enter(InstanceState::Down, 3 * HOUR);
        assert_eq!(record.pulse.overdue(100 * HOUR, 0), None);
        assert_eq!(record.hear(Sign::Data, 4 * HOUR), Some(InstanceState::Down));
        assert_eq!(record.pulse.state, InstanceState::Up);
        registered(&mut record, 5 * HOUR);
        assert_eq!(record.pulse.state, InstanceState::Up, "it has sent heartbeats before");
        assert_eq!(record.pulse.overdue(0, 0), None, "a clock that goes back makes nobody late");
    }

    #[test]
    fn a_clock_that_was_ahead_and_is_put_right_hides_no_silence() {
        let (ahead, right) = (48 * HOUR, HOUR);
        let mut record = record();
        record.hear(Sign::Heartbeat, ahead);
        // Nobody has listened by this clock before it was put right.
        assert_eq!(record.pulse.silent(right + 4 * HOUR, right), Some(InstanceState::Down));
        record.hear(Sign::Heartbeat, right);
        assert_eq!((record.pulse.last_seen, record.pulse.gaps_s.len()), (Timestamp(right), 0));
    }

    #[test]
    fn the_rhythm_is_learnt_and_survives_an_outage_and_a_restart() {
        let mut record = record();
        let mut now = 0;
        let mut beat = |record: &mut InstanceRecord, after: u64| {
            now += after * 1000;
            record.hear(Sign::Heartbeat, now);
            record.pulse.interval_s
        };
        assert_eq!([0, 60, 60].map(|after| beat(&mut record, after)), [3600; 3]);
        assert_eq!(beat(&mut record, 60), 60);
        assert_eq!(beat(&mut record, 7200), 60, "one outage is no rhythm");
        assert_eq!(beat(&mut record, 60), 60);
        let at = record.pulse.last_seen.0 + 1000;
        registered(&mut record, at);
        let gaps = record.pulse.gaps_s.clone();
        assert_eq!(beat(&mut record, 1), 60);
        assert_eq!(record.pulse.gaps_s, gaps, "the first after a restart does not count");
        assert_eq!(
            [600, 600, 600].map(|after| beat(&mut record, after))[2],
            600,
            "a new rhythm is"
        );
        assert_eq!(record.pulse.gaps_s.len(), 5);
        assert_eq!((0..9).map(|_| beat(&mut record, 0)).last(), Some(10), "and a flood is none");
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let mut record = record();
        registered(&mut record, 5000);
        record.hear(Sign::Heartbeat, 9000);
        record.key = Some(OwnKey { at: Timestamp(9500), id: "k".into() });
        let event = record.event("instance.up", Some(InstanceState::Pending), 9000).unwrap();
        assert_eq!((event.topic.as_str(), event.key.as_deref()), ("hub.instances.tt", Some("i")));
        let data: serde_json::Value = serde_json::from_str(event.data.get()).unwrap();
        assert_eq!((&data["state"], &data["previous"]), (&"up".into(), &"pending".into()));
        assert_eq!(data["last_seen"], "1970-01-01T00:00:09.000Z");
        assert_eq!(serde_json::from_str::<InstanceRecord>(event.data.get()).unwrap(), record);
    }

    #[test]
    fn what_two_nodes_wrote_at_once_is_all_in_the_merged_record() {
        let mut base = record();
        registered(&mut base, 10);
        let (mut one, mut two) = (base.clone(), base);
        registered(&mut one, 20);
        two.hear(Sign::Heartbeat, 21);
        two.key = Some(OwnKey { at: Timestamp(15), id: "k".into() });
        for merged in [one.clone().merge(two.clone()), two.clone().merge(one.clone())] {
            assert_eq!((&merged.registration, &merged.key), (&one.registration, &two.key));
            assert_eq!(merged.pulse, two.pulse);
        }
        let mut late = two.clone();
        late.pulse.enter(InstanceState::Late, 30);
        two.hear(Sign::Heartbeat, 31);
        assert_eq!(two.clone().merge(late).pulse.state, InstanceState::Up, "it was heard of since");
    }

    proptest! {
        #[test]
        fn merging_again_changes_nothing(steps in proptest::collection::vec((0u64..9, 0u8..3), 0..9)) {
            let (mut one, mut two) = (record(), record());
            for (at, which) in steps {
                let on = if at % 2 == 0 { &mut one } else { &mut two };
                match which {
                    0 => registered(on, at),
                    1 => { on.hear(Sign::Heartbeat, at); }
                    _ => { on.pulse.enter(InstanceState::Late, at); }
                }
            }
            let merged = one.clone().merge(two.clone());
            prop_assert_eq!(merged.clone().merge(merged.clone()), merged.clone());
            prop_assert_eq!(one.merge(merged.clone()), merged);
        }
    }
}
