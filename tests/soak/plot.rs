//! Draws a run: memory, descriptors, latencies, and what grows by design, over time.
//!
//! The file carries its colours for a light and a dark page: a style sheet exchanges those of paper and ink where the page
//! prefers dark; the lines are of a middle tone that both let read.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::Sample;

const WIDTH: u32 = 1_080;
const PANEL_HEIGHT: u32 = 230;
const PANELS: usize = 4;
/// Room for the names of the lines, right of a panel's axes.
const NAMES_WIDTH: u32 = 240;

const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const RULE: RGBColor = RGBColor(0xd1, 0xd9, 0xe0);
const BLUE: RGBColor = RGBColor(0x2f, 0x81, 0xf7);
const ORANGE: RGBColor = RGBColor(0xdb, 0x6d, 0x28);
const GREEN: RGBColor = RGBColor(0x2e, 0xa0, 0x43);
const GREY: RGBColor = RGBColor(0x8b, 0x94, 0x9e);

/// Paper, ink and rule of a dark page. Presentation attributes give way to any style sheet (SVG 2, section 6.6).
const DARK: &str = "<style>@media (prefers-color-scheme: dark) {\
    [fill=\"#FFFFFF\"] { fill: #0d1117 } \
    [fill=\"#1F2328\"] { fill: #e6edf3 } \
    [stroke=\"#1F2328\"] { stroke: #e6edf3 } \
    [stroke=\"#D1D9E0\"] { stroke: #30363d } }</style>";

const MIB: f64 = 1_048_576.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failed = Box<dyn std::error::Error>;

/// One line: its name, its colour, its values.
struct Line<'a> {
    name: &'a str,
    colour: RGBColor,
    value: Box<dyn Fn(&Sample) -> f64 + 'a>,
}

fn line<'a>(name: &'a str, colour: RGBColor, value: impl Fn(&Sample) -> f64 + 'a) -> Line<'a> {
    Line { name, colour, value: Box::new(value) }
}

/// Draws `samples`, of which there are two at least, to an SVG file.
pub(super) fn draw(path: &Path, samples: &[Sample]) -> Result<(), String> {
    let mut text = String::new();
    draw_into(&mut text, samples).map_err(|error| format!("the plot: {error}"))?;
    let (head, body) = text.split_once('>').ok_or("the plot: no SVG")?;
    std::fs::write(path, format!("{head}>\n{DARK}{body}"))
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn draw_into(text: &mut String, samples: &[Sample]) -> Result<(), Failed> {
    let size = (WIDTH, PANEL_HEIGHT * PANELS as u32);
    let area = SVGBackend::with_string(text, size).into_drawing_area();
    area.fill(&PAPER)?;
    let panels = area.split_evenly((PANELS, 1));
    let [memory, open, latency, growth] = &panels[..] else {
        return Err("as many panels as asked for".into());
    };
    plain(
        memory,
        "memory of the server, MiB",
        samples,
        &[
            line("resident", BLUE, |sample| sample.rss as f64 / MIB),
            line("by the server's own accounting", ORANGE, |sample| sample.accounted as f64 / MIB),
            line("the rest, which must not grow", GREEN, |sample| sample.unaccounted() / MIB),
        ],
    )?;
    plain(
        open,
        "open at the server; its processor time in % of a core",
        samples,
        &[
            line("descriptors", BLUE, |sample| sample.descriptors as f64),
            line("threads", ORANGE, |sample| sample.threads as f64),
            line("connections", GREEN, |sample| sample.connections as f64),
            line("processor time", GREY, |sample| sample.cpu_percent),
        ],
    )?;
    logarithmic(
        latency,
        "latency from the intended start, µs (logarithmic)",
        samples,
        &[
            line("write p99", GREY, |sample| sample.latency[1].p99_us as f64),
            line("write p50", GREEN, |sample| sample.latency[1].p50_us as f64),
            line("validate p99", ORANGE, |sample| sample.latency[0].p99_us as f64),
            line("validate p50", BLUE, |sample| sample.latency[0].p50_us as f64),
        ],
    )?;
    plain(
        growth,
        "following the tokens, and growing by design",
        samples,
        &[
            line("tokens in the index, thousands", BLUE, |sample| sample.tokens as f64 / 1_000.0),
            line("batches written, MiB", ORANGE, |sample| sample.log_written as f64 / MIB),
            line("files of the log, MiB", GREEN, |sample| sample.log_files as f64 / MIB),
        ],
    )?;
    area.present()?;
    Ok(())
}

fn minutes(sample: &Sample) -> f64 {
    sample.at_s / 60.0
}

fn highest(samples: &[Sample], lines: &[Line<'_>]) -> f64 {
    let values = lines.iter().flat_map(|line| samples.iter().map(|sample| (line.value)(sample)));
    values.fold(1.0, f64::max)
}

fn plain(area: &Area<'_>, title: &str, samples: &[Sample], lines: &[Line<'_>]) -> Result<(), Failed> {
    let range = 0.0..highest(samples, lines) * 1.1;
    panel(area, title, samples, lines, range)
}

fn logarithmic(area: &Area<'_>, title: &str, samples: &[Sample], lines: &[Line<'_>]) -> Result<(), Failed> {
    let range = (10.0..highest(samples, lines) * 2.0).log_scale();
    panel(area, title, samples, lines, range)
}

fn panel<Y>(
    area: &Area<'_>,
    title: &str,
    samples: &[Sample],
    lines: &[Line<'_>],
    range: impl AsRangedCoord<CoordDescType = Y, Value = f64>,
) -> Result<(), Failed>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let end = samples.last().map_or(1.0, minutes);
    let (axes, names) = area.split_horizontally(WIDTH - NAMES_WIDTH);
    let mut chart = ChartBuilder::on(&axes)
        .caption(title, ("sans-serif", 15).into_font().color(&INK))
        .margin(8)
        .margin_right(20)
        .x_label_area_size(34)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, range)?;
    let label = ("sans-serif", 12).into_font().color(&INK);
    chart
        .configure_mesh()
        .x_desc("minutes")
        .x_labels(13)
        .x_label_formatter(&|minutes| {
            format!("{minutes:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
        })
        .y_labels(6)
        .y_label_formatter(&|value| {
            format!("{value:.1}").trim_end_matches('0').trim_end_matches('.').to_owned()
        })
        .light_line_style(TRANSPARENT)
        .bold_line_style(RULE)
        .axis_style(INK)
        .label_style(label.clone())
        .axis_desc_style(label.clone())
        .draw()?;
    for (line, y) in lines.iter().zip((50..).step_by(20)) {
        let points = samples.iter().map(|sample| (minutes(sample), (line.value)(sample)));
        let style = line.colour.stroke_width(2);
        chart.draw_series(LineSeries::new(points, style))?;
        names.draw(&PathElement::new([(0, y + 6), (20, y + 6)], style))?;
        names.draw(&Text::new(line.name, (28, y), label.clone()))?;
    }
    Ok(())
}
