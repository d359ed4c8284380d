//! What a projection is made of, as of one offset of the log.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde_json::Value;
use tokio::time::timeout;

use super::{
    ProjectionError, ProjectionsInner,
    asked::{Asked, RowLimit},
    buckets::{Buckets, Hours, Steps},
    collect::Kept,
    collector::CollectedView,
    plan::{Derive, Projection, ShownParts, Watch},
    shape::Inputs,
};
use crate::{
    series::{Aggregate, FigureQuestion, FigureSpan, Figures, derive::Op},
    time::{Millis, Span, rfc3339},
};

/// What a projection is made of, as of one offset of the log.
pub(super) struct ProjectionSnapshot<'a> {
    inner: &'a ProjectionsInner,
    projection: &'a Projection,
    asked: Asked,
    now: Millis,
    /// The derived values that are known, by number.
    values: HashMap<usize, f64>,
    charts: Vec<Chart<'a>>,
    /// What it shows of newest events, by number.
    collected: HashMap<usize, Value>,
    /// Why the values are not to be trusted.
    trouble: Option<String>,
}

/// How long two that follow the log may take to come to one offset.
const MEET: Duration = Duration::from_secs(2);

/// What was read of a collection.
struct CollectedParts {
    present: Vec<(usize, f64)>,
    collected: HashMap<usize, Value>,
    trouble: Option<String>,
}

/// A chart as it is as of one offset.
struct Chart<'a> {
    buckets: &'a Buckets,
    rows: Value,
    /// From when on samples are kept.
    since: Millis,
}

/// The figures of a chart, and when they hold.
#[derive(Clone)]
pub(super) struct Drawn {
    /// How many samples there had been.
    samples: f64,
    steps: Steps,
    column: DrawnColumn,
}

/// What the series answered for each step.
#[derive(Clone)]
struct DrawnColumn {
    values: Vec<Option<f64>>,
    /// From when on samples are kept; older data has been discarded.
    since: Millis,
}

impl<'a> ProjectionSnapshot<'a> {
    /// `projection` now. Nothing in it is of another offset than what stands beside it.
    pub(super) async fn take(
        inner: &'a ProjectionsInner,
        projection: &'a Projection,
        asked: Asked,
    ) -> Result<Self, ProjectionError> {
        let mut snapshot = Self {
            inner,
            projection,
            asked,
            now: inner.clock.now(),
            values: HashMap::new(),
            charts: Vec::new(),
            collected: HashMap::new(),
            trouble: None,
        };
        let parts = projection.shows();
        timeout(MEET, snapshot.learn(&parts)).await.map_err(|_| ProjectionError::Behind)??;
        Ok(snapshot)
    }

    async fn learn(&mut self, parts: &ShownParts<'a>) -> Result<(), ProjectionError> {
        let collector = &self.inner.collector;
        let plan = &self.inner.plan;
        let derives =
            parts.derives.iter().filter_map(|number| Some((*number, plan.derives.get(*number)?)));
        let (present, derived): (Vec<_>, Vec<_>) =
            derives.partition(|(_, derive)| derive.collect_rule.is_some());
        let charts = parts.charts.iter().filter_map(|chart| {
            let hours = self.asked.hours.unwrap_or(chart.hours);
            Some((*chart, hours, plan.derives.get(chart.derive)?))
        });
        let charts: Vec<_> = charts.collect();
        if derived.is_empty() && charts.is_empty() {
            let all =
                collector.read(None, |collection| self.collected_of(parts, &present, collection));
            self.keep(all);
            return Ok(());
        }
        let is_collected = !present.is_empty()
            || !parts.collected.is_empty()
            || self.projection.freshness.is_some();
        loop {
            if is_collected {
                // Somebody may have read what was collected of more than the series have.
                self.inner.series.progress().reaches(collector.applied()).await;
            }
            let before: Vec<_> = charts
                .iter()
                .map(|(chart, hours, _)| {
                    let steps = hours.steps(self.now);
                    let drawn = self.inner.drawn.lock().get(&(chart.derive, *hours)).cloned();
                    (steps, drawn.filter(|drawn| drawn.steps == steps))
                })
                .collect();
            let values = derived.iter().map(|(_, derive)| {
                derive.question(match derive.window {
                    Some(window) => FigureSpan::Window(window),
                    None => FigureSpan::Ever,
                })
            });
            let columns = charts.iter().zip(&before).map(|((_, _, derive), (steps, drawn))| {
                derive.question(FigureSpan::Steps {
                    from: steps.from,
                    step: steps.step,
                    count: steps.count,
                    unless_samples: drawn.as_ref().map(|drawn| drawn.samples),
                })
            });
            let questions: Vec<_> = values.chain(columns).collect();
            let (offset, answers) = self.inner.series.figures(&questions, self.now).await;
            let answers = answers?;
            if is_collected {
                collector.progress().reaches(offset).await;
                let at = Some(offset);
                let all =
                    collector.read(at, |collection| self.collected_of(parts, &present, collection));
                if all.is_none() {
                    continue;
                }
                self.keep(all);
            }
            let mut answers = answers.into_iter();
            for ((number, derive), figures) in derived.iter().zip(answers.by_ref()) {
                let found = figures.values.first().copied().flatten();
                let figure = derive.figure(found, derive.window);
                self.values.extend(figure.map(|figure| (*number, figure)));
            }
            let columns = answers.zip(charts).zip(before);
            for ((figures, (buckets, hours, derive)), (steps, drawn)) in columns {
                self.draw(buckets, hours, derive, steps, drawn, figures);
            }
            return Ok(());
        }
    }

    /// What of the collection it shows.
    fn collected_of(
        &self,
        parts: &ShownParts<'_>,
        present: &[(usize, &Derive)],
        collection: &CollectedView<'_>,
    ) -> CollectedParts {
        let count = |(number, derive): &(usize, &Derive)| {
            Some((*number, collection.present(derive.collect_rule?)? as f64))
        };
        let value = |number: &usize| (*number, collection.value(*number));
        let freshness = self.projection.freshness.as_ref();
        CollectedParts {
            present: present.iter().filter_map(count).collect(),
            collected: parts.collected.iter().map(value).collect(),
            trouble: freshness.and_then(|watch| self.trouble_of(watch, collection)),
        }
    }

    fn keep(&mut self, collected_parts: Option<CollectedParts>) {
        let Some(CollectedParts { present, collected, trouble }) = collected_parts else { return };
        self.values.extend(present);
        self.collected = collected;
        self.trouble = trouble;
    }

    /// A chart; as it was drawn before where neither a sample nor a step was added.
    fn draw(
        &mut self,
        buckets: &'a Buckets,
        hours: Hours,
        derive: &Derive,
        steps: Steps,
        drawn: Option<Drawn>,
        figures: Figures,
    ) {
        let Figures { values, since, samples } = figures;
        let drawn = match drawn.filter(|drawn| drawn.samples == samples) {
            Some(drawn) => drawn,
            None => Drawn { samples, steps, column: DrawnColumn { values, since } },
        };
        let rows = derive.draw(buckets, hours, steps, &drawn.column);
        self.charts.push(Chart { buckets, rows, since: drawn.column.since });
        // Only those that everybody is shown: requests may ask for many others.
        if hours == buckets.hours {
            self.inner.drawn.lock().insert((buckets.derive, hours), drawn);
        }
    }

    /// Why the values are not to be trusted; None while they are.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The projection as it is.
    pub(super) fn render(&self) -> Value {
        self.projection.shape.render(&Inputs {
            value: &|number| self.values.get(&number).copied(),
            collected: &|number| self.collected.get(&number).cloned().unwrap_or_default(),
            rows: &|buckets| self.drawn(buckets).map_or(Value::Null, |chart| chart.rows.clone()),
            limit: self.asked.rows.map(RowLimit::rows),
            filters: &self.asked.filters,
            error: self.trouble(),
            clock: &self.clock(),
        })
    }

    /// The projection as it is while nothing has ever come, without the time.
    pub(super) fn blank(&self) -> Value {
        let (projection, plan) = (self.projection, &self.inner.plan);
        let figure = |number: usize| {
            let derive = plan.derives.get(number)?;
            derive.figure(None, derive.window)
        };
        let error = projection.freshness.as_ref().map(Watch::nothing);
        let mut blank = projection.shape.render(&Inputs {
            value: &figure,
            collected: &|number| {
                let rule = plan.collect_rules.get(number);
                rule.map_or(Value::Null, |rule| rule.value(&Kept::default()))
            },
            rows: &|buckets| {
                let steps = buckets.hours.steps(self.now);
                let since = self.drawn(buckets).map_or(0, |chart| chart.since);
                let nothing = DrawnColumn { values: vec![None; steps.count], since };
                let derive = plan.derives.get(buckets.derive);
                derive.map_or(Value::Null, |derive| {
                    derive.draw(buckets, buckets.hours, steps, &nothing)
                })
            },
            limit: None,
            filters: &BTreeMap::new(),
            error: error.as_deref(),
            clock: "",
        });
        projection.shape.stop_clock(&mut blank);
        blank
    }

    /// The time, to the second.
    fn clock(&self) -> String {
        let text = rfc3339(self.now);
        text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
    }

    fn drawn(&self, buckets: &Buckets) -> Option<&Chart<'a>> {
        self.charts.iter().find(|chart| chart.buckets == buckets)
    }

    /// Why the values are not to be trusted; None while they are. Whatever was said counts for a
    /// while: whoever has ended, or was taken out of the settings, does not take it back.
    fn trouble_of(&self, watch: &Watch, collection: &CollectedView<'_>) -> Option<String> {
        let is_past = |at: Millis| self.now.saturating_sub(at) > watch.silent_after.millis();
        let newest = |kept: &Kept| kept.received().next().map(|(at, _)| at);
        let values = collection.kept(watch.values).and_then(newest);
        let words = watch.source.as_ref().and_then(|source| collection.kept(source.words));
        let (told, error) = words.map(|kept| told(kept, is_past)).unwrap_or_default();
        if error.is_some() {
            return error;
        }
        let Some(values) = values else { return Some(watch.nothing()) };
        // Whoever fetches the values says that they are still so.
        let (since, silent) = match (told, &watch.source) {
            (Some(told), Some(source)) if told > values => (told, &source.name),
            _ => (values, &watch.name),
        };
        is_past(since).then(|| format!("nothing has come on {silent} since {}", rfc3339(since)))
    }
}

/// When it was last said that the values are well, and why they are not.
fn told(kept: &Kept, is_past: impl Fn(Millis) -> bool) -> (Option<Millis>, Option<String>) {
    let well = kept.received().find(|(_, word)| word["ok"] == true);
    let bad = kept.received().find(|(at, word)| word["ok"] == false && !is_past(*at));
    let error = bad.map(|(_, word)| {
        let error = word["error"].as_str().filter(|error| !error.is_empty());
        error.unwrap_or("the source does not answer").to_owned()
    });
    (well.map(|(at, _)| at), error)
}

impl Watch {
    fn nothing(&self) -> String {
        format!("nothing has come on {} yet", self.name)
    }
}

impl Derive {
    /// Asks its series, which has its topic and no labels.
    fn question(&self, span: FigureSpan) -> FigureQuestion<'_> {
        FigureQuestion { topic: self.topic.as_str(), name: &self.name, agg: self.agg(), span }
    }

    /// What is asked of its series.
    fn agg(&self) -> Aggregate {
        match self.op {
            Op::Count => Aggregate::Count,
            Op::Sum | Op::Rate | Op::Present => Aggregate::Sum,
            Op::Avg | Op::Ratio => Aggregate::Avg,
            Op::Last => Aggregate::Last,
            Op::Min => Aggregate::Min,
            Op::Max => Aggregate::Max,
        }
    }

    /// The rows of a chart, out of what its series answered for each step.
    fn draw(&self, chart: &Buckets, hours: Hours, steps: Steps, column: &DrawnColumn) -> Value {
        let step = Span(Duration::from_millis(steps.step));
        let row = |(index, value): (usize, &Option<f64>)| {
            let is_kept = steps.start(index) >= column.since;
            let figure = if is_kept { self.figure(*value, Some(step)) } else { None };
            figure.map_or(Value::Null, |figure| chart.style.render(figure))
        };
        let values: Vec<Value> = column.values.iter().enumerate().map(row).collect();
        chart.rows(hours, steps, &values)
    }

    /// The value, out of what its series answered for `window`. Nothing counts as 0, and has no mean.
    fn figure(&self, found: Option<f64>, window: Option<Span>) -> Option<f64> {
        match self.op {
            Op::Count | Op::Sum | Op::Present => found.or(Some(0.0)),
            Op::Rate => {
                let seconds = window?.0.as_secs_f64();
                Some(found.unwrap_or_default() / seconds)
            }
            Op::Ratio => found.map(|share| share * 100.0),
            Op::Avg | Op::Last | Op::Min | Op::Max => found,
        }
    }
}
