//! Figures of several series as of one offset: what is shown side by side must belong together.

use super::{
    QueryError, Series,
    figure::Stretch,
    query::{Aggregate, Grid, QuerySpec},
    read::{Copied, ever_figure},
    resolution::Keep,
    sample::{Labels, Name},
    table::Table,
};
use crate::{
    position::Offset,
    time::{Millis, Span},
};

/// What is asked of one series, which has no labels.
#[derive(Debug, Clone)]
pub struct FigureQuestion<'a> {
    /// The topic of the series.
    pub topic: &'a str,
    /// Its name.
    pub name: &'a Name,
    /// What is made of its samples.
    pub agg: Aggregate,
    /// Which of them.
    pub span: FigureSpan,
}

/// Of which time a figure is.
#[derive(Debug, Clone, Copy)]
pub enum FigureSpan {
    /// Since the series began.
    Ever,
    /// The last so much.
    Window(Span),
    /// So many steps of time, a figure for each.
    Steps {
        /// When the first begins.
        from: Millis,
        /// How long each is.
        step: Millis,
        /// How many there are.
        count: usize,
        /// Nothing is read if the series has as many samples as this.
        unless_samples: Option<f64>,
    },
}

/// What a series has to say.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// One figure, or one for each step; none if nothing was read.
    pub values: Vec<Option<f64>>,
    /// Before this no samples are kept.
    pub since: Millis,
    /// How many samples it has had since it began.
    pub samples: f64,
}

/// What was copied of a series, for one question.
enum CopiedFigures {
    Known(Figures),
    /// To be completed from the store.
    Part {
        copied: Copied,
        grid: Grid,
        figures: Figures,
    },
}

impl Series {
    /// The answers to all questions as of one offset, and that offset: all samples of events up to it are in, and none
    /// of later ones. Only a chunk that memory has not may have taken in a late sample since.
    pub async fn figures(
        &self,
        questions: &[FigureQuestion<'_>],
        now: Millis,
    ) -> (Offset, Result<Vec<Figures>, QueryError>) {
        let (offset, copied) = {
            let table = self.table();
            let keep = *table.keep();
            let copy = |question: &FigureQuestion<'_>| question.copy(&table, &keep, now);
            (table.applied, questions.iter().map(copy).collect::<Vec<_>>())
        };
        let mut answers = Vec::with_capacity(copied.len());
        for (question, copied) in questions.iter().zip(copied) {
            match self.complete_figures(question, copied, now).await {
                Ok(figures) => answers.push(figures),
                Err(error) => return (offset, Err(error)),
            }
        }
        (offset, Ok(answers))
    }

    async fn complete_figures(
        &self,
        question: &FigureQuestion<'_>,
        copied: CopiedFigures,
        now: Millis,
    ) -> Result<Figures, QueryError> {
        let (copied, grid, mut figures) = match copied {
            CopiedFigures::Known(figures) => return Ok(figures),
            CopiedFigures::Part { copied, grid, figures } => (copied, grid, figures),
        };
        let agg = question.agg;
        let row = self.complete(copied, agg, grid).await?;
        let seconds = |at| match question.span {
            FigureSpan::Window(window) => window.0.as_secs_f64().max(1.0),
            _ => grid.seconds(at, now),
        };
        // Of a stretch that begins before samples are kept nobody knows all.
        let is_known = |at: usize| match question.span {
            FigureSpan::Steps { .. } => grid.start(at) >= figures.since,
            _ => true,
        };
        let figure = |(at, mut part): (usize, Stretch)| {
            if is_known(at) { part.figure(row.identity.kind, agg, seconds(at)) } else { None }
        };
        let found: Vec<_> = row.stretches.into_iter().enumerate().map(figure).collect();
        figures.values = match question.span {
            FigureSpan::Steps { from, step, count, .. } => {
                let mut values = vec![None; count];
                for (at, value) in found.into_iter().enumerate() {
                    let index = grid.start(at).checked_sub(from).map(|after| after / step.max(1));
                    let index = index.and_then(|index| usize::try_from(index).ok());
                    if let Some(place) = index.and_then(|index| values.get_mut(index)) {
                        *place = value;
                    }
                }
                values
            }
            _ => found,
        };
        Ok(figures)
    }
}

impl FigureQuestion<'_> {
    fn copy(&self, table: &Table, keep: &Keep, now: Millis) -> CopiedFigures {
        let labels = Labels::default();
        let mut found = table.find(self.name, &labels).map(|(_, timeseries)| timeseries);
        let timeseries = found.find(|timeseries| {
            let identity = &*timeseries.identity;
            *identity.topic == *self.topic && identity.labels.is_empty()
        });
        let grid = self.grid(keep, now);
        let since = grid.map_or(0, |grid| grid.since(keep, now));
        let Some(timeseries) = timeseries else {
            let count = match self.span {
                FigureSpan::Steps { count, .. } => count,
                _ => 1,
            };
            return CopiedFigures::Known(Figures {
                values: vec![None; count],
                since,
                samples: 0.0,
            });
        };
        let samples = timeseries.ever.count;
        let mut figures = Figures { values: Vec::new(), since, samples };
        match (self.span, grid) {
            (FigureSpan::Steps { unless_samples, .. }, _) if unless_samples == Some(samples) => {
                CopiedFigures::Known(figures)
            }
            (_, Some(grid)) => {
                CopiedFigures::Part { copied: Copied::of(timeseries, grid), grid, figures }
            }
            (_, None) => {
                figures.values =
                    vec![ever_figure(timeseries.identity.kind, self.agg, timeseries.ever)];
                CopiedFigures::Known(figures)
            }
        }
    }

    /// None for what has been ever since.
    fn grid(&self, keep: &Keep, now: Millis) -> Option<Grid> {
        match self.span {
            FigureSpan::Ever => None,
            FigureSpan::Window(window) => Some(Grid::window(window, keep, now)),
            FigureSpan::Steps { from, step, count, .. } => {
                let spec = QuerySpec {
                    name: self.name.clone(),
                    labels: Labels::default(),
                    from,
                    to: from + count as Millis * step,
                    step: Some(Span(std::time::Duration::from_millis(step))),
                    agg: Some(self.agg),
                };
                Some(Grid::new(&spec, keep, now))
            }
        }
    }
}
