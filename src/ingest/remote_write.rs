//! Prometheus remote write 1.0 → events of type `samples`, one for each topic and target
//! (<https://prometheus.io/docs/specs/prw/remote_write_spec/>).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
};

use super::{
    Defaults,
    protobuf::{self, ProtobufError, ProtobufField, ProtobufFields},
    samples::{SampleMetadata, SamplePayload, SampleRow, SampleSet},
    topic_template::{PUBLISHER, TopicTemplate},
};
use crate::{
    admission::BatchLimits,
    event::{Event, MAX_ATTRIBUTE_BYTES},
    protocol::Losses,
    telemetry::DroppedPart,
    time::{Millis, rfc3339},
    topic::Topic,
};

/// How samples become events.
#[derive(Debug, Clone)]
pub struct RemoteWriteRules<'a> {
    /// Where they go: the names in it are those of labels.
    pub topic: &'a TopicTemplate,
    /// What an event may hold.
    pub limits: &'a BatchLimits,
    /// The times that are taken.
    pub times: RangeInclusive<Millis>,
    /// Bytes of all events together, about: a series' labels stand once in a request, and in its event with each sample.
    pub most: usize,
}

/// What a request holds.
#[derive(Debug, Default)]
pub struct RemoteWrite {
    /// In the order in which their topics come first.
    pub topics: Vec<TopicSamples>,
    /// What becomes no event. The rest is stored nevertheless.
    pub losses: Losses,
}

/// The events on one topic.
#[derive(Debug)]
pub struct TopicSamples {
    /// The topic.
    pub topic: Topic,
    /// In the order of the request.
    pub events: Vec<Event>,
    /// How many samples are in them.
    pub samples: usize,
}

/// Why nothing of a request is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteWriteError {
    /// It is no `WriteRequest`.
    #[error("the body is no prometheus.WriteRequest: {0}")]
    Unreadable(#[from] ProtobufError),
    /// Its samples repeat labels too often.
    #[error("its samples take more than {0} bytes as events: send fewer in a request")]
    TooMuch(usize),
}

/// Reads a request, a series at a time.
pub fn read(
    body: &[u8],
    rules: &RemoteWriteRules<'_>,
    defaults: &Defaults<'_>,
) -> Result<RemoteWrite, RemoteWriteError> {
    let mut samples = RequestSamples {
        rules,
        defaults,
        sets: Vec::new(),
        places: HashMap::new(),
        metadata: BTreeMap::new(),
        losses: Losses::default(),
        bytes: 0,
    };
    for field in ProtobufFields::of(body) {
        let field = field?;
        match field.0 {
            1 => samples.series(protobuf::bytes(field)?)?,
            3 => samples.metadata(protobuf::bytes(field)?)?,
            _ => {} // as Protocol Buffers want it
        }
    }
    Ok(samples.finish())
}

/// More than series ever have; so many are held while one is read.
const MOST_LABELS: usize = 256;

/// What was read so far.
struct RequestSamples<'a> {
    rules: &'a RemoteWriteRules<'a>,
    defaults: &'a Defaults<'a>,
    /// Of each topic and target.
    sets: Vec<TargetSamples<'a>>,
    /// Where those of a topic and a target are.
    places: HashMap<(Topic, Option<Box<str>>), usize>,
    metadata: BTreeMap<&'a str, SampleMetadata<'a>>,
    losses: Losses,
    bytes: usize,
}

struct TargetSamples<'a> {
    topic: Topic,
    /// The event's key.
    target: Option<Box<str>>,
    set: SampleSet<'a>,
}

/// The labels of a series, in order.
type LabelList<'a> = Vec<(&'a str, &'a str)>;

impl<'a> RequestSamples<'a> {
    fn series(&mut self, message: &'a [u8]) -> Result<(), RemoteWriteError> {
        let found = match series_labels(message)? {
            Ok(labels) => self.place_of(labels),
            Err(reason) => Err(reason),
        };
        for field in ProtobufFields::of(message) {
            let field = field?;
            match (field.0, &found) {
                (2, Ok((place, name, labels))) => {
                    let (time, value) = sample(protobuf::bytes(field)?)?;
                    self.row(*place, name, labels, time, value)?;
                }
                (4, Ok((_, name, labels))) => self.losses.note(DroppedPart::Sample, || {
                    format!("{}: native histograms are not taken", shown(name, labels))
                }),
                (2 | 4, Err(reason)) => self.losses.note(DroppedPart::Sample, || reason.clone()),
                _ => {} // exemplars, and what will come
            }
        }
        Ok(())
    }

    /// Where the samples of a series go, its name, and its labels without it.
    fn place_of(
        &mut self,
        mut labels: LabelList<'a>,
    ) -> Result<(usize, &'a str, LabelList<'a>), String> {
        let name = labels.iter().position(|(name, _)| *name == "__name__");
        let Some((_, name)) = name.map(|at| labels.remove(at)) else {
            return Err(format!("{}: a series needs a name", shown("", &labels)));
        };
        let value = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|it| it.1);
        let topic = self.rules.topic.render(|name| match name {
            PUBLISHER => Some(self.defaults.source),
            label => value(label),
        });
        let topic = topic.map_err(|error| format!("{}: {error}", shown(name, &labels)))?;
        let target = target(value("job"), value("instance"));
        let next = self.sets.len();
        let place = *self.places.entry((topic.clone(), target.clone())).or_insert(next);
        if place == next {
            self.sets.push(TargetSamples { topic, target, set: SampleSet::default() });
        }
        Ok((place, name, labels))
    }

    fn row(
        &mut self,
        place: usize,
        name: &'a str,
        labels: &LabelList<'a>,
        time: i64,
        value: f64,
    ) -> Result<(), RemoteWriteError> {
        let taken = Millis::try_from(time).ok().filter(|time| self.rules.times.contains(time));
        let Some(time) = taken else {
            self.losses.note(DroppedPart::Sample, || {
                let times = &self.rules.times;
                let (from, to) = (rfc3339(*times.start()), rfc3339(*times.end()));
                let series = shown(name, labels);
                format!("{series}: the time of a sample, {time} ms, is not between {from} and {to}")
            });
            return Ok(());
        };
        let text: usize = labels.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
        self.bytes += name.len() + text + 32;
        if self.bytes > self.rules.most {
            return Err(RemoteWriteError::TooMuch(self.rules.most));
        }
        let row = SampleRow { name, labels: labels.clone(), value, time: Some(time) };
        self.sets[place].set.rows.push(row);
        Ok(())
    }

    /// `MetricMetadata`.
    fn metadata(&mut self, message: &'a [u8]) -> Result<(), RemoteWriteError> {
        let (mut name, mut said) = ("", SampleMetadata::default());
        for field in ProtobufFields::of(message) {
            let field = field?;
            match field.0 {
                1 => said.kind = kind(protobuf::integer(field)?),
                2 => name = protobuf::text(field)?,
                4 => said.help = protobuf::text(field)?,
                5 => said.unit = protobuf::text(field)?,
                _ => {}
            }
        }
        self.metadata.insert(name, said);
        Ok(())
    }

    fn finish(mut self) -> RemoteWrite {
        self.place_metadata();
        let mut write = RemoteWrite { topics: Vec::new(), losses: self.losses };
        let mut places = HashMap::new();
        for TargetSamples { topic, target, mut set } in self.sets {
            if set.rows.is_empty() && set.metadata.is_empty() {
                continue;
            }
            share(&mut set);
            let event = EventMaker { topic, target, defaults: self.defaults };
            let made = set.payloads(self.rules.limits.event.saturating_sub(event.around()));
            for place in &made.too_large {
                write.losses.note(DroppedPart::Sample, || {
                    let row = &set.rows[*place];
                    format!("{}: it is larger than an event may be", shown(row.name, &row.labels))
                });
            }
            let samples = set.rows.len() - made.too_large.len();
            let events = made.payloads.into_iter().map(|payload| event.make(payload));
            let place = *places.entry(event.topic.clone()).or_insert_with(|| {
                let topic = event.topic.clone();
                write.topics.push(TopicSamples { topic, events: Vec::new(), samples: 0 });
                write.topics.len() - 1
            });
            let known = &mut write.topics[place];
            known.events.extend(events);
            known.samples += samples;
        }
        write
    }

    /// Prometheus sends them without labels: where labels make the topic, nobody can tell whose they are.
    fn place_metadata(&mut self) {
        let publisher = self.defaults.source;
        if self.metadata.is_empty() || self.rules.topic.names().any(|name| name != PUBLISHER) {
            return;
        }
        let value = |name: &str| (name == PUBLISHER).then_some(publisher);
        let Ok(topic) = self.rules.topic.render(value) else { return }; // its samples told why
        let metadata = std::mem::take(&mut self.metadata);
        let set = SampleSet { metadata, ..SampleSet::default() };
        self.sets.push(TargetSamples { topic, target: None, set });
    }
}

/// `TimeSeries.labels`, in order of their names; or why there is no such series.
fn series_labels(message: &[u8]) -> Result<Result<LabelList<'_>, String>, ProtobufError> {
    let mut labels = Vec::new();
    for field in ProtobufFields::of(message) {
        let field = field?;
        if field.0 != 1 {
            continue;
        }
        let (name, value) = label(field)?;
        if labels.len() == MOST_LABELS {
            let beginning = shown("", &labels);
            return Ok(Err(format!("{beginning}: it has more than {MOST_LABELS} labels")));
        }
        // An empty label is none (https://prometheus.io/docs/concepts/data_model/).
        if !value.is_empty() {
            labels.push((name, value));
        }
    }
    labels.sort_unstable();
    if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Ok(Err(format!(
            "{}: the label {} stands there twice",
            shown("", &labels),
            pair[0].0
        )));
    }
    if let Some((name, _)) = labels.iter().find(|(name, _)| matches!(*name, "" | "__topic__")) {
        return Ok(Err(format!("{}: no label may be called {name:?}", shown("", &labels))));
    }
    Ok(Ok(labels))
}

fn label(field: ProtobufField<'_>) -> Result<(&str, &str), ProtobufError> {
    let (mut name, mut value) = ("", "");
    for field in ProtobufFields::of(protobuf::bytes(field)?) {
        let field = field?;
        match field.0 {
            1 => name = protobuf::text(field)?,
            2 => value = protobuf::text(field)?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// `Sample`: its time in milliseconds, and its value.
fn sample(message: &[u8]) -> Result<(i64, f64), ProtobufError> {
    let (mut time, mut value) = (0, 0.0);
    for field in ProtobufFields::of(message) {
        let field = field?;
        match field.0 {
            1 => value = protobuf::double(field)?,
            2 => time = protobuf::integer(field)?,
            _ => {}
        }
    }
    Ok((time, value))
}

/// `MetricMetadata.MetricType`.
fn kind(number: i64) -> &'static str {
    match number {
        1 => "counter",
        2 => "gauge",
        3 => "histogram",
        4 => "gaugehistogram",
        5 => "summary",
        6 => "info",
        7 => "stateset",
        _ => "",
    }
}

/// What names the target: one job may ask at several addresses, and one address may be asked by several jobs.
fn target(job: Option<&str>, instance: Option<&str>) -> Option<Box<str>> {
    let names = job.into_iter().chain(instance);
    let mut target = names.collect::<Vec<_>>().join("/");
    while target.len() > MAX_ATTRIBUTE_BYTES {
        target.pop();
    }
    (!target.is_empty()).then(|| target.into())
}

/// Takes what all rows have out of them.
fn share(set: &mut SampleSet<'_>) {
    let Some(first) = set.rows.first() else { return };
    let time = first.time;
    let mut shared: HashSet<_> = first.labels.iter().copied().collect();
    for row in &set.rows[1..] {
        if shared.is_empty() {
            break;
        }
        let own: HashSet<_> = row.labels.iter().copied().collect();
        shared.retain(|label| own.contains(label));
    }
    set.time = time;
    set.labels = first.labels.iter().copied().filter(|label| shared.contains(label)).collect();
    for row in &mut set.rows {
        row.labels.retain(|label| !shared.contains(label));
        row.time = row.time.filter(|_| row.time != time);
    }
}

/// Makes events of one topic and target.
struct EventMaker<'a> {
    topic: Topic,
    target: Option<Box<str>>,
    defaults: &'a Defaults<'a>,
}

const KIND: &str = "samples";

impl EventMaker<'_> {
    /// The bytes of an event beside its payload, at most: an id has 36.
    fn around(&self) -> usize {
        let target = self.target.as_deref().map_or(0, str::len);
        let now = rfc3339(self.defaults.now).len();
        self.topic.as_str().len() + target + self.defaults.source.len() + KIND.len() + now + 40
    }

    fn make(&self, SamplePayload { data, id }: SamplePayload) -> Event {
        Event {
            topic: self.topic.clone(),
            id_is_ours: id.is_none(),
            id: id.unwrap_or_else(self.defaults.new_id),
            publisher: self.defaults.publisher.clone(),
            source: self.defaults.source.into(),
            kind: Some(KIND.into()),
            time: rfc3339(self.defaults.now).into(),
            key: self.target.clone(),
            data,
        }
    }
}

/// As PromQL writes it.
fn shown(name: &str, labels: &LabelList<'_>) -> String {
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

#[cfg(test)]
pub(crate) mod tests;
