//! What projections are made of, at one moment.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;

use super::{
    ProjectionsInner,
    buckets::{Buckets, Hours, Steps},
    collect::Kept,
    plan::{Derive, Projection, Watch},
    shape::Inputs,
    style::plain,
};
use crate::{
    series::{Agg, Identity, Labels, QueryError, QuerySpec, derive::Op},
    time::{Millis, Span, rfc3339},
};

/// What projections are made of, at one moment.
pub(super) struct ProjectionSnapshot<'a> {
    inner: &'a ProjectionsInner,
    now: Millis,
    /// The derived values that are known, by number.
    values: HashMap<usize, f64>,
    charts: Vec<Chart<'a>>,
}

/// A chart as it is at one moment.
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
    samples: Option<f64>,
    steps: Steps,
    column: DrawnColumn,
}

/// What the series answered for each step.
#[derive(Clone)]
struct DrawnColumn {
    values: Vec<Option<f64>>,
    /// From when on samples are kept: what was before that nobody knows any more.
    since: Millis,
}

impl<'a> ProjectionSnapshot<'a> {
    /// Now, of which nothing is known yet.
    pub(super) fn new(inner: &'a ProjectionsInner) -> Self {
        let now = inner.clock.now();
        Self { inner, now, values: HashMap::new(), charts: Vec::new() }
    }

    /// Learns what `projection` needs. `hours` is how far charts go back, if not as configured.
    pub(super) async fn learn(
        &mut self,
        projection: &'a Projection,
        hours: Option<Hours>,
    ) -> Result<(), QueryError> {
        let (derives, charts) = projection.shows();
        for number in derives {
            if !self.values.contains_key(&number)
                && let Some(derive) = self.inner.plan.derives.get(number)
                && let Some(value) = self.value(derive).await?
            {
                self.values.insert(number, value);
            }
        }
        for chart in charts {
            if let Some(chart) = self.chart(chart, hours.unwrap_or(chart.hours)).await? {
                self.charts.push(chart);
            }
        }
        Ok(())
    }

    /// The projection as it is, with `clock` where it shows the time.
    pub(super) fn render(&self, projection: &Projection, clock: &str) -> Value {
        let error = projection.freshness.as_ref().and_then(|watch| self.trouble(watch));
        projection.shape.render(&Inputs {
            value: &|number| self.values.get(&number).copied(),
            collected: &|number| self.inner.collector.value(number),
            rows: &|buckets| self.drawn(buckets).map_or(Value::Null, |chart| chart.rows.clone()),
            error: error.as_deref(),
            clock,
        })
    }

    /// The projection as it is while nothing has ever come, without the time.
    pub(super) fn blank(&self, projection: &Projection) -> Value {
        let plan = &self.inner.plan;
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
            error: error.as_deref(),
            clock: "",
        });
        projection.shape.stop_clock(&mut blank);
        blank
    }

    /// The time, to the second.
    pub(super) fn clock(&self) -> String {
        let text = rfc3339(self.now);
        text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
    }

    async fn value(&self, derive: &Derive) -> Result<Option<f64>, QueryError> {
        if let Some(number) = derive.collect_rule {
            return Ok(self.inner.collector.present(number).map(|count| count as f64));
        }
        let found = self.ask(derive, derive.agg(), derive.window).await?;
        Ok(derive.figure(found, derive.window))
    }

    fn drawn(&self, buckets: &Buckets) -> Option<&Chart<'a>> {
        self.charts.iter().find(|chart| chart.buckets == buckets)
    }

    /// A chart; as it was drawn before where neither a sample nor a step was added.
    async fn chart(
        &self,
        buckets: &'a Buckets,
        hours: Hours,
    ) -> Result<Option<Chart<'a>>, QueryError> {
        let Some(derive) = self.inner.plan.derives.get(buckets.derive) else { return Ok(None) };
        let steps = hours.steps(self.now);
        // Before the rows are: what comes meanwhile has them drawn again.
        let samples = self.ask(derive, Agg::Count, None).await?;
        let drawn = self.inner.drawn.lock().get(&(buckets.derive, hours)).cloned();
        let (before, column) = match drawn {
            Some(drawn) if drawn.samples == samples && drawn.steps == steps => (true, drawn.column),
            _ => (false, self.column(derive, steps).await?),
        };
        // Only those that everybody is shown: requests may ask for many others.
        if !before && hours == buckets.hours {
            let drawn = Drawn { samples, steps, column: column.clone() };
            self.inner.drawn.lock().insert((buckets.derive, hours), drawn);
        }
        let rows = derive.draw(buckets, hours, steps, &column);
        Ok(Some(Chart { buckets, rows, since: column.since }))
    }

    async fn ask(
        &self,
        derive: &Derive,
        agg: Agg,
        window: Option<Span>,
    ) -> Result<Option<f64>, QueryError> {
        let (name, labels) = (&derive.name, Labels::default());
        let is_ours = |series: &Identity| derive.has(series);
        self.inner.series.window(name, &labels, agg, window, self.now, &is_ours).await
    }

    /// One figure for each step.
    async fn column(&self, derive: &Derive, steps: Steps) -> Result<DrawnColumn, QueryError> {
        let spec = QuerySpec {
            name: derive.name.clone(),
            labels: Labels::default(),
            from: steps.from,
            to: steps.from + steps.count as Millis * steps.step,
            step: Some(Span(Duration::from_millis(steps.step))),
            agg: Some(derive.agg()),
        };
        let is_ours = |series: &Identity| derive.has(series);
        let columns = self.inner.series.query(&spec, self.now, &is_ours).await?;
        let mut figures = vec![None; steps.count];
        let since = columns.since * 1000;
        let values = columns.values.into_iter().flatten();
        for (at, value) in columns.times.iter().zip(values) {
            let index = (at * 1000).checked_sub(steps.from).map(|after| after / steps.step);
            let figure = index.and_then(|index| figures.get_mut(usize::try_from(index).ok()?));
            if let Some(figure) = figure {
                *figure = value;
            }
        }
        Ok(DrawnColumn { values: figures, since })
    }

    /// Why the values are not to be trusted; None while they are. Whatever was said counts for a
    /// while: whoever has ended, or was taken out of the settings, does not take it back.
    fn trouble(&self, watch: &Watch) -> Option<String> {
        let collected = &self.inner.collector;
        let is_past = |at: Millis| self.now.saturating_sub(at) > watch.silent_after.millis();
        let newest = |kept: &Kept| kept.received().next().map(|(at, _)| at);
        let values = collected.with(watch.values, |_, kept| newest(kept)).flatten();
        let (told, error) = match &watch.source {
            Some(source) => collected.with(source.words, |_, kept| told(kept, is_past)),
            None => None,
        }
        .unwrap_or_default();
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
    /// Whether that is its series: there is one, which has no labels.
    fn has(&self, series: &Identity) -> bool {
        *series.topic == *self.topic.as_str()
            && series.name == self.name
            && series.labels.is_empty()
    }

    /// What is asked of its series.
    fn agg(&self) -> Agg {
        match self.op {
            Op::Count => Agg::Count,
            Op::Sum | Op::Rate | Op::Present => Agg::Sum,
            Op::Avg | Op::Ratio => Agg::Avg,
            Op::Last => Agg::Last,
            Op::Min => Agg::Min,
            Op::Max => Agg::Max,
        }
    }

    /// The rows of a chart, out of what its series answered for each step.
    fn draw(&self, chart: &Buckets, hours: Hours, steps: Steps, column: &DrawnColumn) -> Value {
        let step = Span(Duration::from_millis(steps.step));
        let row = |(index, value): (usize, &Option<f64>)| {
            let is_kept = steps.start(index) >= column.since;
            let figure = if is_kept { self.figure(*value, Some(step)) } else { None };
            figure.map_or(Value::Null, plain)
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
