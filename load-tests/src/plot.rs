//! A figure against the number of subscribers, both on logarithmic scales, as SVG.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;

use crate::{
    outcome::Outcome,
    result::{Measure, medians},
    server::Kind,
};

/// Draws a line for each server.
pub(crate) fn draw(outcome: &Outcome, measure: Measure, path: &Path) -> Result<()> {
    let medians = medians(&outcome.rows);
    let mut lines: Vec<(Kind, Vec<(f64, f64)>)> = Vec::new();
    for kind in Kind::ALL {
        let mine = medians.iter().filter(|((_, other), _)| *other == kind);
        let points = mine.filter_map(|(((count, _), _), by)| {
            Some((*count as f64, *by.get(&measure)?)).filter(|(_, value)| *value > 0.0)
        });
        lines.push((kind, points.collect()));
    }
    lines.retain(|(_, points)| !points.is_empty());
    if lines.is_empty() {
        return Ok(()); // the table tells why nothing was measured
    }
    // plotters' errors borrow their backend.
    drawn(&lines, measure, path).map_err(|error| anyhow!("{error}")).context("cannot draw")
}

fn drawn(
    lines: &[(Kind, Vec<(f64, f64)>)],
    measure: Measure,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let bounds = |values: &dyn Fn(&(f64, f64)) -> f64| {
        let (least, most) = points()
            .map(values)
            .fold((f64::MAX, f64::MIN), |(least, most), v| (least.min(v), most.max(v)));
        least / 1.3..most * 1.3
    };
    let root = SVGBackend::new(path, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .caption(format!("{} against subscribers", measure.name()), ("sans-serif", 20))
        .build_cartesian_2d(bounds(&|p| p.0).log_scale(), bounds(&|p| p.1).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("subscribers")
        .y_desc(measure.name())
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y}"))
        .light_line_style(BLACK.mix(0.06))
        .draw()?;
    for (kind, points) in lines {
        let color = match kind {
            Kind::Floor => RGBColor(110, 110, 110),
            Kind::Hub => RGBColor(0, 110, 200),
            Kind::Cluster => RGBColor(120, 80, 180),
            Kind::Nchan => RGBColor(0, 140, 90),
            Kind::Nats => RGBColor(205, 95, 0),
        };
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(4);
        chart
            .draw_series(line)?
            .label(kind.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}
