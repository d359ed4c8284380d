//! The derived values and projections of a configuration, checked and put together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use http::StatusCode;

use super::{
    buckets::Buckets,
    collect::{CollectRule, KeepPolicy},
    config::{File, FreshnessConfig, Path, ProjectionConfig, ProjectionsConfig, SHIPPED},
    fault::ProjectionFault,
    shape::{Shape, ShapeReader},
    take::Take,
};
use crate::{
    select::Condition,
    series::{
        DeriveRules, Name,
        derive::{self, DeriveRule, Op},
    },
    time::Span,
    topic::{Topic, TopicFilter, TopicPattern},
};

/// Derived values and projections that make sense together.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) derives: Vec<Derive>,
    pub(super) projections: Vec<Projection>,
    /// What is kept of newest events for all of them.
    pub(super) collect_rules: Vec<CollectRule>,
    pub(super) max_hz: f64,
}

/// A derived value.
#[derive(Debug, Clone)]
pub(super) struct Derive {
    pub(super) name: Name,
    /// Whose its series is: none of another's that has the same name.
    pub(super) topic: TopicPattern,
    pub(super) op: Op,
    pub(super) window: Option<Span>,
    /// For [`Op::Present`]: what counts it.
    pub(super) collect_rule: Option<usize>,
    rule: Option<DeriveRule>,
}

/// A projection.
#[derive(Debug, Clone)]
pub struct Projection {
    /// Where it is published; who may subscribe there may read it.
    pub topic: Topic,
    /// Where it is answered to GET.
    pub path: Option<Path>,
    /// Where a WebSocket gets it.
    pub socket: Option<Path>,
    pub(super) shape: Shape,
    pub(super) freshness: Option<Watch>,
}

/// What a projection is made of.
#[derive(Default)]
pub(super) struct ShownParts<'a> {
    /// The numbers of derived values.
    pub(super) derives: BTreeSet<usize>,
    pub(super) charts: Vec<&'a Buckets>,
    /// The numbers of what is collected.
    pub(super) collected: BTreeSet<usize>,
}

/// What is watched to know whether values are still good.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// The newest of the values.
    pub(super) values: usize,
    /// Those who fetch them, if anybody tells of it.
    pub(super) source: Option<Source>,
    /// How long whatever was said counts.
    pub(super) silent_after: Span,
    /// What GET answers with while they are not.
    pub(super) status: Option<StatusCode>,
    /// The values' topics, for people.
    pub(super) name: String,
}

/// Those who fetch values.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The newest word of each.
    pub(super) words: usize,
    /// The topics of their words, for people.
    pub(super) name: String,
}

/// Those who fetch values, at most.
const SOURCES: usize = 16;

impl Plan {
    /// What `settings`, the files that come with the hub, and the configuration's own say together.
    pub fn new(
        settings: &ProjectionsConfig,
        derives: &[derive::DeriveConfig],
        projections: &[ProjectionConfig],
    ) -> Result<Self, ProjectionFault> {
        if !(0.01..=60.0).contains(&settings.max_hz) {
            return Err(ProjectionFault::new("projections.max_hz", "must be from 0.01 to 60"));
        }
        let mut making = Making::default();
        for name in &settings.shipped {
            let file = shipped(name)?;
            let path = format!("config/{name}.toml");
            making.add(&path, &format!("{path}: "), &file.derive, &file.projection)?;
        }
        making.add("this configuration", "", derives, projections)?;
        making.check_circles()?;
        let Making { derives, projections, collect_rules, .. } = making;
        Ok(Self { derives, projections, collect_rules, max_hz: settings.max_hz })
    }

    /// What the series are fed with.
    pub fn rules(&self) -> DeriveRules {
        self.derives.iter().filter_map(|derive| derive.rule.clone()).collect()
    }

    /// The projections, whose numbers count from 0.
    pub fn projections(&self) -> &[Projection] {
        &self.projections
    }
}

impl Projection {
    /// The members by which requests may ask for some rows of its lists.
    pub fn filters(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.shape.visit(&mut |node| {
            if let Shape::List { filters, .. } = node {
                names.extend(filters.iter().map(String::as_str));
            }
        });
        names
    }

    /// What it is made of.
    pub(super) fn shows(&self) -> ShownParts<'_> {
        let mut parts = ShownParts::default();
        self.shape.visit(&mut |node| match node {
            Shape::Number(number) => parts.derives.extend([number.derive()]),
            Shape::Words(words) => parts.derives.extend(words.derives()),
            Shape::Buckets(buckets) => parts.charts.push(buckets),
            Shape::Newest(number) | Shape::List { number, .. } => {
                parts.collected.extend([*number]);
            }
            _ => {}
        });
        parts
    }
}

fn shipped(name: &str) -> Result<File, ProjectionFault> {
    let key = "projections.shipped";
    let found = SHIPPED.iter().find(|file| file.name == name).ok_or_else(|| {
        let names: Vec<_> = SHIPPED.iter().map(|file| file.name).collect();
        ProjectionFault::new(
            key,
            format!("{name:?} does not come with the hub; {} do", names.join(", ")),
        )
    })?;
    toml::from_str(found.text).map_err(|error| {
        ProjectionFault::new(key, format!("config/{name}.toml: {}", error.message()))
    })
}

/// A plan in the making: whose everything is, for messages.
#[derive(Default)]
struct Making {
    derives: Vec<Derive>,
    projections: Vec<Projection>,
    collect_rules: Vec<CollectRule>,
    derive_numbers: HashMap<String, (usize, String)>,
    paths: BTreeMap<Path, String>,
    /// With the key each stands at.
    topics: HashMap<Topic, (String, String)>,
    /// Whatever reads events: the key it stands at, and which.
    readers: Vec<(String, TopicFilter)>,
}

impl Making {
    fn add(
        &mut self,
        file: &str,
        above: &str,
        derives: &[derive::DeriveConfig],
        projections: &[ProjectionConfig],
    ) -> Result<(), ProjectionFault> {
        for (index, config) in derives.iter().enumerate() {
            self.add_derive(file, &format!("{above}derive[{index}]"), config)?;
        }
        for (index, config) in projections.iter().enumerate() {
            self.add_projection(file, &format!("{above}projection[{index}]"), config)?;
        }
        Ok(())
    }

    fn add_derive(
        &mut self,
        file: &str,
        key: &str,
        config: &derive::DeriveConfig,
    ) -> Result<(), ProjectionFault> {
        if let Some((name, message)) = config.nonsense() {
            return Err(ProjectionFault::new(&format!("{key}.{name}"), message));
        }
        let name_key = format!("{key}.name");
        let name = Name::new(&config.name).ok().filter(|name| name.as_str() == config.name);
        let name = name.ok_or_else(|| {
            let message = "a name has 1 to 255 bytes of A-Z a-z 0-9 _ : - and .";
            ProjectionFault::new(&name_key, message)
        })?;
        let entry = (self.derives.len(), file.to_owned());
        if let Some((_, owner)) = self.derive_numbers.insert(config.name.clone(), entry) {
            let message = format!("{:?} is already a derived value of {owner}", config.name);
            return Err(ProjectionFault::new(&name_key, message));
        }
        let filter = TopicFilter::new([config.topic.clone()]);
        self.readers.push((format!("{key}.topic"), filter.clone()));
        let collect_rule = (config.op == Op::Present).then(|| {
            let condition = config.condition.clone();
            let keep = KeepPolicy::Present;
            self.collect(CollectRule {
                filter,
                condition,
                keep,
                sort_by: None,
                take: Take::default(),
            })
        });
        self.derives.push(Derive {
            name,
            topic: config.topic.clone(),
            op: config.op,
            window: config.window,
            collect_rule,
            rule: config.rule(),
        });
        Ok(())
    }

    fn add_projection(
        &mut self,
        file: &str,
        key: &str,
        config: &ProjectionConfig,
    ) -> Result<(), ProjectionFault> {
        let ProjectionConfig { topic, path, socket, freshness, shape } = config;
        if topic.is_reserved() {
            let message = "topics that begin with hub belong to the hub: take another";
            return Err(ProjectionFault::new(&format!("{key}.topic"), message));
        }
        let owner = format!("the projection {topic} of {file}");
        let topic_key = format!("{key}.topic");
        let entry = (topic_key.clone(), owner.clone());
        if let Some((_, owner)) = self.topics.insert(topic.clone(), entry) {
            let message = format!("{owner} is published there already: {ADVICE}");
            return Err(ProjectionFault::new(&topic_key, message));
        }
        for (name, path) in [("path", path), ("socket", socket)] {
            let Some(path) = path else { continue };
            if let Some(owner) = self.paths.insert(path.clone(), owner.clone()) {
                let message = format!("{} is a path of {owner}: {ADVICE}", path.as_str());
                return Err(ProjectionFault::new(&format!("{key}.{name}"), message));
            }
        }
        let before = self.collect_rules.len();
        let numbers = &self.derive_numbers;
        let mut reading = ShapeReader {
            derive: &|name| numbers.get(name).map(|(number, _)| *number),
            has_freshness: freshness.is_some(),
            collect_rules: &mut self.collect_rules,
        };
        let shape = reading.shape(&format!("{key}.shape"), shape)?;
        for rule in &self.collect_rules[before..] {
            self.readers.push((format!("{key}.shape"), rule.filter.clone()));
        }
        let freshness =
            freshness.as_ref().map(|freshness| self.watch(key, freshness)).transpose()?;
        let (path, socket) = (path.clone(), socket.clone());
        let topic = topic.clone();
        self.projections.push(Projection { topic, path, socket, shape, freshness });
        Ok(())
    }

    fn watch(&mut self, key: &str, freshness: &FreshnessConfig) -> Result<Watch, ProjectionFault> {
        let FreshnessConfig { of, source, silent_after, status } = freshness;
        let failure = |status: &u16| {
            let found = StatusCode::from_u16(*status).ok().filter(StatusCode::is_server_error);
            found.ok_or_else(|| {
                let message =
                    "must be a status of a server's failure, from 500 to 599, such as 503";
                ProjectionFault::new(&format!("{key}.freshness.status"), message)
            })
        };
        let status = status.as_ref().map(failure).transpose()?;
        for topics in [Some(of), source.as_ref()].into_iter().flatten() {
            self.readers.push((format!("{key}.freshness"), topics.0.clone()));
        }
        let mut collect = |filter: &TopicFilter, keep| {
            let (condition, take) = (Condition::default(), Take::default());
            let filter = filter.clone();
            self.collect(CollectRule { filter, condition, keep, sort_by: None, take })
        };
        let values = collect(&of.0, KeepPolicy::Newest);
        let source = source.as_ref().map(|topics| Source {
            words: collect(&topics.0, KeepPolicy::PerKey(SOURCES)),
            name: names(&topics.0),
        });
        let (silent_after, name) = (*silent_after, names(&of.0));
        Ok(Watch { values, source, silent_after, status, name })
    }

    /// The number of what is collected, with which others may have to do as well.
    fn collect(&mut self, rule: CollectRule) -> usize {
        self.collect_rules.push(rule);
        self.collect_rules.len() - 1
    }

    /// Refuses what would be fed by what it makes, which would never come to rest.
    fn check_circles(&self) -> Result<(), ProjectionFault> {
        for (key, filter) in &self.readers {
            let mut topics = self.topics.iter();
            let made = topics.find(|(topic, _)| filter.matches(topic.as_str()));
            let Some((topic, (topic_key, owner))) = made else { continue };
            // At the key that can be changed: not at one of a file that comes with the hub.
            return Err(if key.starts_with("config/") {
                ProjectionFault::new(
                    topic_key,
                    format!("{topic} is read by `{key}`: take another topic"),
                )
            } else {
                let message = format!(
                    "reads {topic}, where {owner} is published, and would feed on what is made of \
                     it: name the topics of its events more closely"
                );
                ProjectionFault::new(key, message)
            });
        }
        Ok(())
    }
}

/// The topics, for people.
fn names(topics: &TopicFilter) -> String {
    let names: Vec<_> = topics.patterns().iter().map(|pattern| pattern.as_str()).collect();
    names.join(", ")
}

/// What to do about two projections in one place.
const ADVICE: &str = "take another, or take the file that comes with the hub out of \
                      projections.shipped";
