//! Plots as SVG, made to stand in a page: colours are the page's, so that they follow light, dark and paper.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 42.0;

/// One line: its name, the number of its colour, and its points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: usize,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How values become heights.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// From one to ten as far as from ten to a hundred.
    Log,
}

/// Axes and what is drawn on them.
pub(crate) struct Plot {
    pub(crate) x_name: &'static str,
    pub(crate) scale: Scale,
    /// How a value is written beside the axis.
    pub(crate) label: fn(f64) -> String,
    pub(crate) lines: Vec<Line>,
    /// Labels of the x axis, if they are not its numbers.
    pub(crate) x_ticks: Option<Vec<(f64, String)>>,
    /// A heat map below the lines: for each step of x its cells, each from and to a value, with a weight up to 1.
    pub(crate) cells: Vec<Cell>,
    /// Dashed lines across: goals.
    pub(crate) goals: Vec<(f64, String)>,
}

/// A part of a heat map.
pub(crate) struct Cell {
    pub(crate) x: (f64, f64),
    pub(crate) y: (f64, f64),
    pub(crate) weight: f64,
}

/// The bounds of what is drawn, and where it is.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    scale: Scale,
}

impl Frame {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let part = |value: f64, (from, to): (f64, f64)| ((value - from) / (to - from)).clamp(0.0, 1.0);
        let height = match self.scale {
            Scale::Linear => part(y, self.y),
            Scale::Log => part(y.max(self.y.0).log10(), (self.y.0.log10(), self.y.1.log10())),
        };
        let across = part(x, self.x);
        (LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - height * (HEIGHT - TOP - BOTTOM))
    }
}

/// Steps of 1, 2 or 5 times a power of ten, about so many of them.
fn nice_step(range: f64, steps: f64) -> f64 {
    let rough = (range / steps).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    factor * power
}

fn linear_ticks((from, to): (f64, f64), steps: f64) -> Vec<f64> {
    let step = nice_step(to - from, steps);
    let first = (from / step).ceil() as i64;
    (first..)
        .map(|number| number as f64 * step)
        .take_while(|tick| *tick <= to * (1.0 + 1e-9))
        .take(50)
        .collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Plot {
    pub(crate) fn new(x_name: &'static str, scale: Scale, label: fn(f64) -> String) -> Self {
        Self { x_name, scale, label, lines: Vec::new(), x_ticks: None, cells: Vec::new(), goals: Vec::new() }
    }

    pub(crate) fn line(mut self, name: &str, colour: usize, points: Vec<(f64, f64)>) -> Self {
        self.lines.push(Line { name: name.to_owned(), colour, points });
        self
    }

    fn frame(&self) -> Frame {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let corners = || self.cells.iter().flat_map(|cell| [(cell.x.0, cell.y.0), (cell.x.1, cell.y.1)]);
        let all = || points().chain(corners()).filter(|(x, y)| x.is_finite() && y.is_finite());
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
        };
        let x = bounds(&mut all().map(|(x, _)| x));
        let goals = self.goals.iter().map(|(value, _)| *value);
        let y = bounds(&mut all().map(|(_, y)| y).chain(goals));
        let x = if x.0.is_finite() { (x.0.min(0.0), x.1.max(x.0 + 1e-6)) } else { (0.0, 1.0) };
        let y = match self.scale {
            Scale::Linear => (0.0, if y.1 > 0.0 { y.1 * 1.1 } else { 1.0 }),
            Scale::Log if y.0.is_finite() => {
                let low = 10_f64.powf(y.0.max(1.0).log10().floor());
                (low, 10_f64.powf(y.1.max(low * 10.0).log10().ceil()))
            }
            Scale::Log => (1.0, 10.0),
        };
        Frame { x, y, scale: self.scale }
    }

    /// The plot as an SVG element.
    pub(crate) fn svg(&self, title: &str) -> String {
        let frame = self.frame();
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escaped(title)
        );
        self.draw_cells(&frame, &mut svg);
        self.draw_axes(&frame, &mut svg);
        self.draw_goals(&frame, &mut svg);
        for line in &self.lines {
            let points = line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
            let points: Vec<String> = points
                .map(|(x, y)| {
                    let (x, y) = frame.at(*x, *y);
                    format!("{x:.1},{y:.1}")
                })
                .collect();
            let _ = writeln!(
                svg,
                "<polyline class=\"line c{}\" points=\"{}\"><title>{}</title></polyline>",
                line.colour,
                points.join(" "),
                escaped(&line.name)
            );
        }
        self.draw_names(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_cells(&self, frame: &Frame, svg: &mut String) {
        for cell in &self.cells {
            let (left, bottom) = frame.at(cell.x.0, cell.y.0);
            let (right, top) = frame.at(cell.x.1, cell.y.1);
            let (width, height) = (right - left + 0.3, bottom - top + 0.3);
            let _ = writeln!(
                svg,
                "<rect class=\"heat\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                 fill-opacity=\"{:.2}\"/>",
                cell.weight.clamp(0.0, 1.0)
            );
        }
    }

    fn draw_axes(&self, frame: &Frame, svg: &mut String) {
        let ticks = match self.scale {
            Scale::Linear => linear_ticks(frame.y, 5.0),
            Scale::Log => {
                let decades = frame.y.0.log10().round() as i32..=frame.y.1.log10().round() as i32;
                decades.map(|decade| 10_f64.powi(decade)).collect()
            }
        };
        for tick in ticks {
            let (x, y) = frame.at(frame.x.0, tick);
            let _ = writeln!(
                svg,
                "<line class=\"rule\" x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                x - 6.0,
                y + 4.0,
                escaped(&(self.label)(tick))
            );
        }
        let ticks = self.x_ticks.clone().unwrap_or_else(|| {
            linear_ticks(frame.x, 8.0).into_iter().map(|tick| (tick, plain(tick))).collect()
        });
        for (tick, label) in ticks.iter().filter(|(tick, _)| (frame.x.0..=frame.x.1).contains(tick)) {
            let (x, y) = frame.at(*tick, frame.y.0);
            let _ = writeln!(
                svg,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                y + 16.0,
                escaped(label)
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 6.0,
            escaped(self.x_name)
        );
    }

    fn draw_goals(&self, frame: &Frame, svg: &mut String) {
        for (value, name) in &self.goals {
            let (x, y) = frame.at(frame.x.0, *value);
            let _ = writeln!(
                svg,
                "<line class=\"goal\" x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                WIDTH - RIGHT,
                y - 4.0,
                escaped(name)
            );
        }
    }

    /// What is what, in a row above.
    fn draw_names(&self, svg: &mut String) {
        let mut x = LEFT;
        for line in &self.lines {
            let _ = writeln!(
                svg,
                "<line class=\"line c{}\" x1=\"{x:.1}\" y1=\"12\" x2=\"{:.1}\" y2=\"12\"/>\
                 <text class=\"name\" x=\"{:.1}\" y=\"16\">{}</text>",
                line.colour,
                x + 18.0,
                x + 24.0,
                escaped(&line.name)
            );
            x += 24.0 + 7.5 * line.name.chars().count() as f64 + 18.0;
        }
    }
}

/// A number without needless zeros.
pub(crate) fn plain(value: f64) -> String {
    if value.abs() >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value.abs() >= 1e4 {
        format!("{}k", value / 1e3)
    } else {
        format!("{}", (value * 1e6).round() / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_bounds() {
        assert_eq!(linear_ticks((0.0, 10.0), 5.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(linear_ticks((0.0, 0.7), 5.0).len(), 4);
        assert_eq!([0.5, 20_000.0, 3e6].map(plain), ["0.5", "20k", "3M"]);
    }

    #[test]
    fn a_plot_is_sound_whatever_it_is_given() {
        for points in
            [vec![], vec![(0.0, 0.0)], vec![(1.0, f64::NAN), (2.0, 5.0)], vec![(0.0, 1e9), (1e6, 1.0)]]
        {
            for scale in [Scale::Linear, Scale::Log] {
                let mut plot = Plot::new("s", scale, plain).line("a <b> & \"c\"", 0, points.clone());
                plot.goals.push((20.0, "a goal".to_owned()));
                let svg = plot.svg("t");
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(svg.contains("a &lt;b&gt; &amp; &quot;c&quot;"));
                assert!(svg.contains("class=\"goal\"") && svg.contains(">a goal<"));
                assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
            }
        }
    }

    #[test]
    fn values_are_where_they_belong() {
        let frame = Frame { x: (0.0, 10.0), y: (1.0, 1_000.0), scale: Scale::Log };
        assert_eq!(frame.at(0.0, 1.0), (LEFT, HEIGHT - BOTTOM));
        assert_eq!(frame.at(10.0, 1_000.0), (WIDTH - RIGHT, TOP));
        let frame = Frame { scale: Scale::Linear, y: (0.0, 4.0), ..frame };
        assert_eq!(frame.at(5.0, 2.0), ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0));
    }
}
