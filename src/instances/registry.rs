//! The instances as the log tells of them, in memory.

use std::collections::{HashMap, HashSet};

use super::{
    liveness::InstanceState,
    record::{InstanceEvent, InstanceRecord, complain, read, says_previous},
};
use crate::{
    event::{self, AppName, InstanceId},
    telemetry::Telemetry,
    time::Millis,
};

/// Every instance there is. Only the log changes it, in the log's order.
#[derive(Default)]
pub(super) struct Registry {
    /// By name; the same name may be used by instances of different applications.
    records: HashMap<InstanceId, Vec<InstanceRecord>>,
    len: usize,
    /// Those of which the log's newest event does not say all that is known.
    partial: HashSet<(AppName, InstanceId)>,
    /// Forgotten ones of which something was written by who had not heard that yet.
    astray: HashSet<(AppName, InstanceId)>,
    /// Those heard from again by who had not heard that they were missed, and how they were missed. A start finds them
    /// again if the cursor had not passed the telling.
    returned: HashMap<(AppName, InstanceId), InstanceState>,
}

/// What is to be told of an instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Announcement {
    /// Its silence has brought it to another state.
    Silent(InstanceRecord, InstanceState),
    /// It is up again after that state, which was never published.
    Returned(InstanceRecord, InstanceState),
    /// All that is known of it.
    Whole(InstanceRecord),
    /// It has been silent for so long that it is forgotten, or it was forgotten before.
    Forgotten(AppName, InstanceId),
}

impl Registry {
    /// What the newest event of each instance says.
    pub(super) fn of<'a>(newest: impl Iterator<Item = event::Record<'a>>) -> Self {
        let mut registry = Self::default();
        for told in newest {
            match read(told) {
                Some(InstanceEvent::Record(record)) => registry.insert(record),
                Some(InstanceEvent::Removal(..)) => {} // which the newest values leave out
                None => complain(told),
            }
        }
        registry
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, app: &AppName, id: &InstanceId) -> Option<&InstanceRecord> {
        self.records.get(id)?.iter().find(|record| record.app == *app)
    }

    /// The instances of this name, of whatever application.
    pub(super) fn named(&self, id: &InstanceId) -> &[InstanceRecord] {
        self.records.get(id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &InstanceRecord> {
        self.records.values().flatten()
    }

    /// Takes in one event of the log, in the order of the log.
    pub(super) fn apply(&mut self, told: event::Record<'_>) {
        match read(told) {
            Some(InstanceEvent::Record(record)) => self.put(record, told),
            Some(InstanceEvent::Removal(app, id)) => self.remove(app, id),
            None => complain(told),
        }
    }

    fn put(&mut self, told: InstanceRecord, event: event::Record<'_>) {
        let place = (told.app.clone(), told.instance_id.clone());
        let same_name = self.records.get_mut(&place.1);
        let Some(known) = same_name.and_then(|all| all.iter_mut().find(|one| one.app == place.0))
        else {
            if told.is_first() {
                self.astray.remove(&place);
                self.insert(told);
            } else {
                self.astray.insert(place);
            }
            return;
        };
        let mut known_before = known.clone();
        if known.pulse.is_ahead(event.received()) && told.pulse.last_seen < known.pulse.last_seen {
            // By a clock that has been put right: what it said would hold until it is overtaken.
            known_before.pulse = told.pulse.clone();
        }
        let merged = known_before.merge(told.clone());
        if merged == told {
            self.partial.remove(&place);
        } else {
            self.partial.insert(place.clone());
        }
        let (before, after, said) = (known.pulse.state, merged.pulse.state, told.pulse.state);
        *known = merged;
        let tells_change = says_previous(event);
        let is_missed =
            |state: &InstanceState| matches!(state, InstanceState::Late | InstanceState::Down);
        // The state that was published last, whichever record is the newer.
        let last = if tells_change { said } else { before };
        if after != InstanceState::Up || tells_change && said == InstanceState::Up {
            self.returned.remove(&place);
        } else if let Some(missed) = Some(last).filter(is_missed) {
            self.returned.insert(place, missed);
        }
    }

    fn insert(&mut self, record: InstanceRecord) {
        self.records.entry(record.instance_id.clone()).or_default().push(record);
        self.len += 1;
    }

    fn remove(&mut self, app: AppName, id: InstanceId) {
        if let Some(same_name) = self.records.get_mut(&id) {
            let before = same_name.len();
            same_name.retain(|record| record.app != app);
            self.len -= before - same_name.len();
            if same_name.is_empty() {
                self.records.remove(&id);
            }
        }
        let place = (app, id);
        self.partial.remove(&place);
        self.returned.remove(&place);
        self.astray.remove(&place);
    }

    /// The events that are due at `now`, at most `most`. An instance with a key of its own is never forgotten. Time
    /// before `heard_from`, when nobody listened, does not count as silence.
    pub(super) fn due(
        &self,
        now: Millis,
        heard_from: Millis,
        forget_after: Millis,
        most: usize,
    ) -> Vec<Announcement> {
        let partial = self.partial.iter().filter_map(|(app, id)| self.get(app, id));
        let partial = partial.map(|record| Announcement::Whole(record.clone()));
        let astray = self.astray.iter().cloned().map(|(app, id)| Announcement::Forgotten(app, id));
        let returned = self.returned.iter().filter_map(|((app, id), before)| {
            Some(Announcement::Returned(self.get(app, id)?.clone(), *before))
        });
        let silent = self.all().filter_map(|record| {
            let silence = now.saturating_sub(record.pulse.last_seen.0);
            let is_missed = record.pulse.silent(now, heard_from) == Some(InstanceState::Down);
            if silence > forget_after && is_missed && record.key.is_none() {
                return Some(Announcement::Forgotten(
                    record.app.clone(),
                    record.instance_id.clone(),
                ));
            }
            let state = record.pulse.overdue(now, heard_from)?;
            Some(Announcement::Silent(record.clone(), state))
        });
        astray.chain(returned).chain(partial).chain(silent).take(most).collect()
    }

    /// Shows how many there are in each state.
    pub(super) fn count(&self, telemetry: &Telemetry) {
        for state in InstanceState::ALL {
            let count = self.all().filter(|record| record.pulse.state == state).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            telemetry.instances(state.name()).set(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admission::OwnEvent,
        event::BlockBuilder,
        instances::{
            liveness::Sign,
            record::{OwnKey, removal},
        },
        time::Timestamp,
    };

    fn app() -> AppName {
        AppName::parse("tt").unwrap()
    }

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    fn apply(registry: &mut Registry, event: OwnEvent) {
        apply_at(registry, event, 0);
    }

    fn apply_at(registry: &mut Registry, event: OwnEvent, received: Millis) {
        let mut builder = BlockBuilder::default();
        builder.push(1, received, &event);
        let block = builder.finish();
        block.records().for_each(|record| registry.apply(record));
    }

    fn heard(name: &str, now: Millis) -> InstanceRecord {
        let mut record = InstanceRecord::new(app(), id(name), 3600, now);
        record.hear(Sign::Heartbeat, now);
        record
    }

    #[test]
    fn what_a_clock_ahead_told_gives_way_to_what_is_told_once_it_is_put_right() {
        let mut registry = Registry::default();
        let (hour, day) = (3_600_000, 86_400_000);
        let ahead = heard("a", 2 * day);
        let told = ahead.event("instance.up", None, 2 * day).unwrap();
        apply_at(&mut registry, told, 2 * day);
        let mut right = ahead;
        right.hear(Sign::Heartbeat, hour);
        apply_at(&mut registry, right.event("instance.heartbeat", None, hour).unwrap(), hour);
        let known = registry.get(&app(), &id("a")).unwrap();
        assert_eq!(known.pulse.last_seen, Timestamp(hour));
    }

    #[test]
    fn what_the_log_tells_is_known_until_it_is_taken_back() {
        let mut registry = Registry::default();
        for name in ["a", "b\"\\ü"] {
            apply(&mut registry, heard(name, 5).event("x", None, 5).unwrap());
        }
        let other = AppName::parse("other").unwrap();
        let same_name = InstanceRecord::new(other.clone(), id("a"), 60, 7);
        apply(&mut registry, same_name.event("x", None, 7).unwrap());
        assert_eq!((registry.len(), registry.named(&id("a")).len()), (3, 2));
        assert_eq!(registry.get(&other, &id("a")).unwrap().pulse.interval_s, 60);
        for (app, name) in [(&app(), "b\"\\ü"), (&other, "a"), (&other, "a")] {
            apply(&mut registry, removal(app, &id(name), 9).unwrap());
        }
        assert_eq!((registry.len(), registry.named(&id("a")).len()), (1, 1));
        assert_eq!(registry.due(9, 0, 1000, 10), []);
        let odd = serde_json::value::RawValue::from_string("[1]".into()).unwrap();
        let odd = OwnEvent::new(&app().registry_topic().unwrap(), "x", 5, odd).with_key("c");
        apply(&mut registry, odd);
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn who_was_missed_by_mistake_is_told_to_be_up_again() {
        let mut registry = Registry::default();
        let mut one = heard("a", 0);
        apply(&mut registry, one.event("instance.up", Some(InstanceState::Pending), 0).unwrap());
        let hour = 3_600_000;
        // Its heartbeat and its silence are told at once, and the first knows nothing of the second.
        let mut late = one.clone();
        late.pulse.enter(InstanceState::Late, 2 * hour);
        apply(
            &mut registry,
            late.event("instance.late", Some(InstanceState::Up), 2 * hour).unwrap(),
        );
        assert_eq!(one.hear(Sign::Heartbeat, 2 * hour), None);
        apply(&mut registry, one.event("instance.heartbeat", None, 2 * hour).unwrap());
        let due = registry.due(2 * hour, 0, 48 * hour, 10);
        let told = due.iter().find_map(|due| match due {
            Announcement::Returned(record, before) => Some((record.clone(), *before)),
            _ => None,
        });
        let Some((up, InstanceState::Late)) = told else { panic!("{due:?}") };
        apply(&mut registry, up.event("instance.up", Some(InstanceState::Late), 2 * hour).unwrap());
        assert_eq!(registry.due(2 * hour, 0, 48 * hour, 10), []);
    }

    #[test]
    fn late_was_told_behind_the_heartbeat_and_up_never() {
        let hour = 3_600_000;
        let up = heard("a", 0);
        let (mut late, mut beat) = (up.clone(), up.clone());
        late.pulse.enter(InstanceState::Late, 2 * hour);
        beat.hear(Sign::Heartbeat, 2 * hour);
        let late = late.event("instance.late", Some(InstanceState::Up), 2 * hour).unwrap();
        let beat = beat.event("instance.heartbeat", None, 2 * hour).unwrap();
        let due = |registry: &Registry| registry.due(2 * hour, 0, 48 * hour, 10);
        let is_told = |due: &[Announcement]| {
            due.iter().any(|due| matches!(due, Announcement::Returned(_, InstanceState::Late)))
        };
        for told in [[&beat, &late], [&late, &beat]] {
            let mut registry = Registry::default();
            apply(&mut registry, up.event("instance.up", Some(InstanceState::Pending), 0).unwrap());
            told.into_iter().for_each(|event| apply_at(&mut registry, event.clone(), 2 * hour));
            assert!(is_told(&due(&registry)), "{:?}", due(&registry));
            // A start reads the newest values, and then again what came since the cursor.
            let mut registry = Registry::default();
            registry.insert(serde_json::from_str(told[1].data.get()).unwrap());
            told.into_iter().for_each(|event| apply_at(&mut registry, event.clone(), 2 * hour));
            assert!(is_told(&due(&registry)), "after a start: {:?}", due(&registry));
            let known = registry.get(&app(), &id("a")).unwrap().clone();
            let again = known.event("instance.up", Some(InstanceState::Late), 2 * hour).unwrap();
            apply_at(&mut registry, again, 2 * hour);
            assert_eq!(due(&registry), []);
        }
    }

    #[test]
    fn a_start_and_a_suspension_are_nobodys_silence() {
        let mut registry = Registry::default();
        apply(&mut registry, heard("a", 0).event("x", None, 0).unwrap());
        let (hour, day) = (3_600_000, 86_400_000);
        assert_eq!(registry.due(3 * day, 3 * day - hour, day, 10), []);
        let due = registry.due(3 * day, 3 * day - hour - hour / 10, day, 10);
        assert!(matches!(&due[..], [Announcement::Silent(_, InstanceState::Late)]), "{due:?}");
        assert_eq!(
            registry.due(3 * day, 2 * day, day, 10),
            [Announcement::Forgotten(app(), id("a"))]
        );
    }

    #[test]
    fn what_is_due_is_told_once_the_log_has_it() {
        let mut registry = Registry::default();
        apply(&mut registry, heard("a", 0).event("x", None, 0).unwrap());
        let (hour, day) = (3_600_000, 86_400_000);
        assert_eq!(registry.due(hour, 0, day, 10), []);
        let due = registry.due(3 * hour, 0, day, 10);
        let [Announcement::Silent(record, InstanceState::Down)] = &due[..] else {
            panic!("{due:?}")
        };
        let mut record = record.clone();
        record.pulse.enter(InstanceState::Down, 3 * hour);
        apply(&mut registry, record.event("instance.down", None, 3 * hour).unwrap());
        assert_eq!(registry.due(4 * hour, 0, day, 10), []);
        assert_eq!(registry.due(2 * day, 0, day, 10), [Announcement::Forgotten(app(), id("a"))]);
        record.key = Some(OwnKey { at: Timestamp(1), id: "k".into() });
        apply(&mut registry, record.event("x", None, 1).unwrap());
        assert_eq!(registry.due(2 * day, 0, day, 10), [], "somebody made it a key of its own");
    }

    #[test]
    fn who_had_not_heard_of_the_forgetting_brings_nobody_back() {
        let mut registry = Registry::default();
        let first = heard("a", 5);
        let forget = |registry: &mut Registry, now| {
            apply(registry, removal(&app(), &id("a"), now).unwrap());
        };
        apply(&mut registry, first.event("instance.up", None, 5).unwrap());
        let (mut late, mut keyed, mut beat) = (first.clone(), first.clone(), first);
        late.pulse.enter(InstanceState::Late, 90);
        keyed.key = Some(OwnKey { at: Timestamp(91), id: "k".into() });
        beat.hear(Sign::Heartbeat, 92);
        for stale in [late, keyed, beat] {
            forget(&mut registry, 89);
            assert_eq!(registry.due(93, 0, 1000, 10), []);
            apply(&mut registry, stale.event("x", None, 93).unwrap());
            assert_eq!(registry.len(), 0, "{stale:?}");
            assert_eq!(registry.due(93, 0, 1000, 10), [Announcement::Forgotten(app(), id("a"))]);
        }
        forget(&mut registry, 94);
        assert_eq!(registry.due(94, 0, 1000, 10), []);
        apply(&mut registry, heard("a", 95).event("instance.up", None, 95).unwrap());
        assert_eq!(registry.get(&app(), &id("a")).unwrap().first_seen, Timestamp(95));
        assert_eq!(registry.due(95, 0, 1000, 10), []);
    }

    #[test]
    fn a_record_written_from_old_knowledge_is_made_whole() {
        let mut registry = Registry::default();
        let stale = heard("a", 10);
        let mut registered = stale.clone();
        let said = crate::ingest::timetracker::Registration::default();
        registered.registration =
            Some(crate::instances::record::Registered { at: Timestamp(11), said });
        apply(&mut registry, registered.event("x", None, 11).unwrap());
        let mut beat = stale;
        beat.hear(Sign::Heartbeat, 12);
        apply(&mut registry, beat.event("x", None, 12).unwrap());
        let due = registry.due(12, 0, 1000, 10);
        let [Announcement::Whole(whole)] = &due[..] else { panic!("{due:?}") };
        assert_eq!((&whole.registration, whole.pulse.heartbeats), (&registered.registration, 2));
        apply(&mut registry, whole.event("instance.merged", None, 13).unwrap());
        assert_eq!(registry.due(13, 0, 1000, 10), []);
    }
}
