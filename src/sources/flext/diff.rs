//! FlextTopic a source should show and what the log has of it: the difference is what is published.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json, value::to_raw_value};

use super::{
    daemon::{DaemonAnswers, LISTED, MAX_ANSWER},
    proto::ExecutionUpdate,
    record::{self, Execution, fits, length},
    topics::{FlextTopic, is_same, topics},
};
use crate::{
    admission::OwnEvent,
    broker::{Broker, ReadError},
    duty::TermError,
    event::{MAX_ATTRIBUTE_BYTES, Record},
    sources::SourceConfig,
    telemetry::Telemetry,
    time::{Millis, parse_rfc3339, rfc3339},
    topic::{Topic, TopicError, TopicFilter, TopicPattern},
};

/// FlextTopic a source should show, and what the log has.
pub(super) struct Diff {
    name: Box<str>,
    topics: BTreeMap<FlextTopic, Topic>,
    event_bytes: usize,
    stats: Option<Value>,
    health: Option<Value>,
    executions: BTreeMap<String, Execution>,
    state: Option<Value>,
    /// As the log has it, by key where there is one.
    stored: HashMap<(FlextTopic, Option<String>), Value>,
    /// When the log got the state that it has.
    told: Millis,
    /// The topics that the log had no room for the last time.
    without_room: HashSet<Topic>,
}

/// Something that changed.
pub(super) struct Draft {
    what: FlextTopic,
    key: Option<String>,
    data: Value,
}

/// How often the state is published although nothing has changed. Only silence tells readers that the source has ended,
/// so they trust a state only for a while.
const REPEAT: Millis = 20_000;
/// Values of the log that are compared with the daemon's first answers.
const REMEMBERED: usize = 10 * LISTED;
/// The most bytes that the executions have together, as JSON: those shown, and those of the log.
const ROOM: usize = MAX_ANSWER;

/// Why what the log has cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiffError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<DiffError> for TermError {
    fn from(error: DiffError) -> Self {
        Self::failed(error)
    }
}

impl Diff {
    /// Begins with what the log has, so that a node which takes over repeats nothing.
    pub(super) async fn read(
        config: &SourceConfig,
        event_bytes: usize,
        broker: &Broker,
    ) -> Result<Self, DiffError> {
        let topics = topics(config)?;
        let patterns = topics.values().map(|topic| TopicPattern::parse(topic.as_str()));
        let filter = TopicFilter::new(patterns.collect::<Result<Vec<_>, _>>()?);
        let mut diff = Self {
            name: config.name.as_str().into(),
            topics,
            event_bytes,
            stats: None,
            health: None,
            executions: BTreeMap::new(),
            state: None,
            stored: HashMap::new(),
            told: 0,
            without_room: HashSet::new(),
        };
        let latest = broker.latest(filter).all().await?;
        // The newest are those that the daemon may still list.
        let mut room = ROOM;
        latest.records().rev().for_each(|record| diff.remember(record, &mut room));
        let state = diff.stored.get(&(FlextTopic::Source, Some(diff.name.to_string())));
        // Anybody who may publish on the topic can have written there.
        diff.state = state.filter(|state| state["since"].as_str().is_some_and(is_time)).cloned();
        Ok(diff)
    }

    /// FlextTopic somebody else published on these topics is passed over if it is of another shape.
    fn remember(&mut self, record: Record<'_>, room: &mut usize) {
        let found = self.topics.iter().find(|(_, topic)| topic.as_str() == record.topic());
        let Some((&what, _)) = found else { return };
        if what == FlextTopic::Executions {
            let left = room.checked_sub(record.data().len());
            let Some(left) = left.filter(|_| self.stored.len() < REMEMBERED) else { return };
            *room = left;
        }
        let key = record.key().and_then(|key| serde_json::from_slice::<String>(key).ok());
        let Ok(data) = serde_json::from_slice::<Value>(record.data()) else { return };
        if what == FlextTopic::Source && key.as_deref() == Some(&*self.name) {
            self.told = record.received();
        }
        self.stored.insert((what, key), data);
    }

    /// Takes in what the daemon answered; gives for people what was wrong with it.
    pub(super) fn take(&mut self, answers: DaemonAnswers, telemetry: &Telemetry) -> Option<String> {
        let mut troubles = Vec::new();
        let mut left_out = 0;
        let limit = self.event_bytes;
        match answers.stats {
            Ok(stats) => self.stats = Some(record::stats(&stats)),
            Err(trouble) => troubles.push(trouble),
        }
        match answers.health {
            Ok(health) => match record::health(&health) {
                health if fits(&health, limit) => self.health = Some(health),
                _ => left_out += 1,
            },
            Err(trouble) => troubles.push(trouble),
        }
        match answers.executions {
            Ok(listed) => {
                let before = std::mem::take(&mut self.executions);
                let mut room = ROOM;
                for listed in listed {
                    let known = before.get(&listed.id).cloned().or_else(|| {
                        let stored =
                            self.stored.get(&(FlextTopic::Executions, Some(listed.id.clone())))?;
                        serde_json::from_value(stored.clone()).ok()
                    });
                    let execution = Execution::new(listed, known.as_ref());
                    let has_id = (1..=MAX_ATTRIBUTE_BYTES).contains(&execution.id.len());
                    let left = room.checked_sub(length(&execution));
                    if let Some(left) = left.filter(|_| has_id && fits(&execution, limit)) {
                        room = left;
                        self.executions.insert(execution.id.clone(), execution);
                    } else {
                        left_out += 1;
                    }
                }
                // FlextTopic is not listed any more will not be compared again.
                let listed = &self.executions;
                self.stored.retain(|(what, key), _| {
                    *what != FlextTopic::Executions
                        || key.as_ref().is_some_and(|key| listed.contains_key(key))
                });
            }
            Err(trouble) => troubles.push(trouble),
        }
        if left_out > 0 {
            telemetry.source_left_out(&self.name, left_out);
            troubles.push(format!(
                "{left_out} of the daemon's answers were left out: larger than limits.event or, together, than 4 MiB, or without an id"
            ));
        }
        // One reason is enough, and whoever cannot be reached gives the same for all.
        troubles.into_iter().next()
    }

    /// Takes in what an execution said of itself.
    pub(super) fn update(&mut self, id: &str, update: ExecutionUpdate) {
        if let Some(execution) = self.executions.get_mut(id) {
            execution.update(update);
        }
    }

    /// The ids of the executions that are under way.
    pub(super) fn running(&self) -> Vec<&str> {
        let running = self.executions.values().filter(|execution| execution.is_running());
        running.map(|execution| &*execution.id).collect()
    }

    /// Shows how the source is; whether that is news. `since` moves when it fails or is well again.
    pub(super) fn tell(&mut self, trouble: Option<String>, now: Millis) -> bool {
        let before = self.state.as_ref();
        let since = before.filter(|before| before["ok"] == trouble.is_none());
        let since = since.map_or_else(|| json!(rfc3339(now)), |before| before["since"].clone());
        let state = json!({"ok": trouble.is_none(), "error": trouble, "since": since});
        let is_news = before != Some(&state);
        self.state = Some(state);
        is_news
    }

    /// FlextTopic differs from what the log has, and the state if that was told too long ago.
    pub(super) fn changed(&mut self, now: Millis, telemetry: &Telemetry) -> Vec<Draft> {
        let limit = self.event_bytes;
        for execution in self.executions.values_mut() {
            if execution.update.is_some() && !fits(execution, limit) {
                execution.update = None;
                telemetry.source_left_out(&self.name, 1);
            }
        }
        let one = |what, value: &Option<Value>| Some((what, None, value.clone()?));
        let executions = self.executions.iter();
        let executions = executions
            .map(|(id, execution)| (FlextTopic::Executions, Some(id.clone()), json!(execution)));
        let state = self.state.clone();
        let state = state.map(|state| (FlextTopic::Source, Some(self.name.to_string()), state));
        let is_due = now.abs_diff(self.told) >= REPEAT;
        let all = one(FlextTopic::Stats, &self.stats).into_iter();
        let all = all.chain(one(FlextTopic::Health, &self.health)).chain(executions).chain(state);
        all.filter_map(|(what, key, data)| {
            let slot = (what, key);
            let is_same = self.stored.get(&slot).is_some_and(|stored| is_same(what, stored, &data));
            let is_news = !is_same || (what == FlextTopic::Source && is_due);
            is_news.then_some(Draft { what, key: slot.1, data })
        })
        .collect()
    }

    /// The event that says so; None never happens, for what is JSON can be written.
    pub(super) fn event(&self, draft: &Draft, now: Millis) -> Option<OwnEvent> {
        let topic = self.topics.get(&draft.what)?;
        let data = to_raw_value(&draft.data).ok()?;
        let event = OwnEvent::new(topic, draft.what.kind(), now, data).with_source(&self.name);
        Some(match &draft.key {
            Some(key) => event.with_key(key),
            None => event,
        })
    }

    /// The log has these now, but for those on topics `without_room`; gives the topics of which that
    /// is news.
    pub(super) fn stored(
        &mut self,
        mut drafts: Vec<Draft>,
        now: Millis,
        without_room: HashSet<Topic>,
    ) -> Vec<Topic> {
        let topics = &self.topics;
        let has_room = |what| topics.get(&what).is_none_or(|topic| !without_room.contains(topic));
        drafts.retain(|draft| has_room(draft.what));
        if drafts.iter().any(|draft| draft.what == FlextTopic::Source) {
            self.told = now;
        }
        let drafts = drafts.into_iter().map(|draft| ((draft.what, draft.key), draft.data));
        self.stored.extend(drafts);
        let news = without_room.difference(&self.without_room).cloned().collect();
        self.without_room = without_room;
        news
    }
}

fn is_time(text: &str) -> bool {
    parse_rfc3339(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::flext::proto;

    fn diff() -> Diff {
        Diff {
            name: "flext".into(),
            topics: FlextTopic::ALL
                .map(|what| (what, Topic::parse(&format!("flext.{}", what.name())).unwrap()))
                .into(),
            event_bytes: 4096,
            stats: None,
            health: None,
            executions: BTreeMap::new(),
            state: None,
            stored: HashMap::new(),
            told: 0,
            without_room: HashSet::new(),
        }
    }

    fn answers(executions: Vec<proto::Execution>) -> DaemonAnswers {
        let stats = proto::SystemStats { active_pipelines: 3, ..Default::default() };
        DaemonAnswers {
            stats: Ok(stats),
            health: Ok(Default::default()),
            executions: Ok(executions),
        }
    }

    fn execution(id: &str, error: &str) -> proto::Execution {
        proto::Execution { id: id.into(), error_message: error.into(), ..Default::default() }
    }

    /// The topics' last words and keys of what changed, which is then in the log.
    fn published(diff: &mut Diff) -> Vec<String> {
        published_at(diff, 0)
    }

    fn published_at(diff: &mut Diff, now: Millis) -> Vec<String> {
        let drafts = diff.changed(now, &Telemetry::new());
        let names = drafts.iter().map(|draft| match &draft.key {
            Some(key) => format!("{} {key}", draft.what.name()),
            None => draft.what.name().to_owned(),
        });
        let names = names.collect();
        diff.stored(drafts, now, HashSet::new());
        names
    }

    #[test]
    fn only_what_changed_is_published() {
        let (mut diff, telemetry) = (diff(), Telemetry::new());
        assert_eq!(diff.take(answers(vec![execution("e1", "")]), &telemetry), None);
        assert_eq!(published(&mut diff), ["stats", "health", "executions e1"]);
        let mut again = answers(vec![execution("e1", ""), execution("e2", "")]);
        let looked = prost_types::Timestamp { seconds: 7, nanos: 0 };
        again.health.as_mut().unwrap().timestamp = Some(looked);
        diff.take(again, &telemetry);
        assert_eq!(published(&mut diff), ["executions e2"]);
        diff.update("e2", proto::ExecutionUpdate::default());
        diff.update("nobody", proto::ExecutionUpdate::default());
        assert_eq!(published(&mut diff), ["executions e2"]);
        assert_eq!(published(&mut diff), [""; 0]);
    }

    #[test]
    fn what_is_not_answered_keeps_its_last_value() {
        let (mut diff, telemetry) = (diff(), Telemetry::new());
        diff.take(answers(vec![execution("e1", "")]), &telemetry);
        published(&mut diff);
        let away = || "away".to_owned();
        let trouble =
            DaemonAnswers { stats: Err(away()), health: Err(away()), executions: Err(away()) };
        assert_eq!(diff.take(trouble, &telemetry).as_deref(), Some("away"));
        assert!(diff.tell(Some("away".into()), 1000));
        assert_eq!(published(&mut diff), ["source flext"]);
        assert!(!diff.tell(Some("away".into()), 2000), "it is said once");
        assert!(diff.tell(Some("far away".into()), 3000));
        assert_eq!(diff.state.as_ref().unwrap()["since"], rfc3339(1000));
        assert!(diff.tell(None, 4000));
        assert_eq!(diff.state.as_ref().unwrap()["since"], rfc3339(4000));
        assert_eq!(published(&mut diff), ["source flext"]);
    }

    #[test]
    fn executions_that_are_too_much_together_are_left_out() {
        let (mut diff, telemetry) = (diff(), Telemetry::new());
        diff.event_bytes = 256 << 10;
        let long = "x".repeat(200 << 10);
        let listed = (0..LISTED).map(|n| execution(&format!("e{n:02}"), &long)).collect();
        let trouble = diff.take(answers(listed), &telemetry).unwrap();
        assert!(trouble.starts_with("80 of the daemon's answers"), "{trouble}");
        assert_eq!(diff.executions.keys().next_back().unwrap(), "e19", "the newest are shown");
        // They have ended when the next are listed, which have as much room.
        let listed = (20..30).map(|n| execution(&format!("e{n}"), &long)).collect();
        assert_eq!(diff.take(answers(listed), &telemetry), None);
        assert_eq!(diff.executions.len(), 10);
    }

    #[test]
    fn how_the_source_is_is_told_again_though_nothing_has_changed() {
        let mut diff = diff();
        let at = 1_795_176_000_000;
        diff.tell(None, at);
        assert_eq!(published_at(&mut diff, at), ["source flext"]);
        let since = diff.state.clone();
        for (after, told) in
            [(1, 0), (REPEAT - 1, 0), (REPEAT, 1), (REPEAT + 1, 0), (2 * REPEAT, 1)]
        {
            assert!(!diff.tell(None, at + after), "it is no news");
            assert_eq!(published_at(&mut diff, at + after).len(), told, "{after}");
        }
        assert_eq!(diff.state, since);
        assert_eq!(published_at(&mut diff, at).len(), 1, "the clock was put back");
    }

    #[test]
    fn what_is_too_large_is_left_out_counted_and_told() {
        let (mut diff, telemetry) = (diff(), Telemetry::new());
        let long = "x".repeat(5000);
        let listed = vec![execution("e1", &long), execution("", ""), execution("e2", "")];
        let trouble = diff.take(answers(listed), &telemetry).unwrap();
        assert!(trouble.starts_with("2 of the daemon's answers"), "{trouble}");
        assert_eq!(published(&mut diff), ["stats", "health", "executions e2"]);
        diff.update("e2", proto::ExecutionUpdate { message: long, ..Default::default() });
        published(&mut diff);
        assert_eq!(diff.executions["e2"].update, None);
        let counted = telemetry.openmetrics().unwrap();
        assert!(
            counted.contains("pulsehub_source_left_out_total{source=\"flext\"} 2"),
            "{counted}"
        );
    }
}
