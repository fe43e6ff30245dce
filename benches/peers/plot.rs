//! Ratios as a picture, for a light and a dark page.

use std::fmt::Write as _;

use crate::table::spread_of;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 46.0;
const BAR: f64 = 16.0;
const GAP: f64 = 3.0;
const BETWEEN: f64 = 18.0;
const LEGEND: f64 = 250.0;

const STYLE: &str = "<style>\
    text { font: 13px system-ui, sans-serif; fill: #1f2328 } .paper { fill: #ffffff } .soft { fill: #59636e }\
    .c0 { fill: #0969da } .c1 { fill: #bc4c00 } .c2 { fill: #8250df } .rule { stroke: #d1d9e0 } .spread { stroke: #1f2328 } .one { stroke: #1f2328 }\
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .paper { fill: #0d1117 } .soft { fill: #9198a1 }\
    .c0 { fill: #58a6ff } .c1 { fill: #f0883e } .c2 { fill: #bc8cff } .rule { stroke: #30363d } .spread { stroke: #e6edf3 }\
    .one { stroke: #e6edf3 } }</style>";

/// What is compared, in groups of bars.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    /// What each bar of a group says.
    pub(crate) legend: &'a [&'a str],
    /// Names of groups, and for each bar of one its ratios, alternation by alternation.
    pub(crate) groups: Vec<(String, Vec<Vec<f64>>)>,
}

impl Bars<'_> {
    /// Bars of the middle ratios, with lines from the least to the greatest.
    pub(crate) fn draw(&self) -> String {
        let bars = self.legend.len() as f64;
        let group = (BAR + GAP).mul_add(bars, BETWEEN);
        let height = group.mul_add(self.groups.len() as f64, TOP + 30.0);
        let all = self.groups.iter().flat_map(|(_, bars)| bars.iter().flatten());
        let most = all.copied().filter(|ratio| ratio.is_finite()).fold(1.0, f64::max) * 1.05;
        let across = |ratio: f64| LEFT + ratio.min(most) / most * (WIDTH - LEFT - RIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
             aria-label=\"{title}\">\n{STYLE}\n<rect class=\"paper\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n\
             <text x=\"10\" y=\"20\">{title} (line: least to greatest)</text>\n",
            title = self.title
        );
        for (colour, name) in self.legend.iter().enumerate() {
            let x = LEGEND.mul_add(colour as f64, 10.0);
            let _ = writeln!(
                svg,
                "<rect class=\"c{colour}\" x=\"{x}\" y=\"28\" width=\"12\" height=\"10\"/><text x=\"{}\" y=\"38\">{name}</text>",
                x + 18.0
            );
        }
        for (number, (name, bars)) in self.groups.iter().enumerate() {
            let top = group.mul_add(number as f64, TOP + 8.0);
            let middle = top + (group - BETWEEN) / 2.0 + 4.0;
            let _ = writeln!(svg, "<text class=\"soft\" x=\"10\" y=\"{middle:.1}\">{name}</text>");
            for (colour, ratios) in bars.iter().enumerate() {
                draw_bar(
                    &mut svg,
                    (BAR + GAP).mul_add(colour as f64, top),
                    colour,
                    spread_of(ratios),
                    across,
                );
            }
        }
        let (one, bottom) = (across(1.0), height - 22.0);
        let _ = writeln!(
            svg,
            "<line class=\"one\" stroke-dasharray=\"4 3\" x1=\"{one:.1}\" y1=\"{TOP}\" x2=\"{one:.1}\" y2=\"{bottom:.1}\"/>\
             <text x=\"{one:.1}\" y=\"{:.1}\" text-anchor=\"middle\">1 = level</text>\n</svg>",
            bottom + 16.0
        );
        svg
    }
}

fn draw_bar(
    svg: &mut String,
    y: f64,
    colour: usize,
    [middle, least, greatest]: [f64; 3],
    across: impl Fn(f64) -> f64,
) {
    let (end, line) = (across(middle), y + BAR / 2.0);
    let _ = writeln!(
        svg,
        "<rect class=\"c{colour}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>\
         <line class=\"spread\" x1=\"{:.1}\" y1=\"{line:.1}\" x2=\"{:.1}\" y2=\"{line:.1}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{middle:.2}</text>",
        end - LEFT,
        across(least),
        across(greatest),
        across(greatest) + 6.0,
        y + 13.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_has_its_bar_and_the_middle_is_told() {
        let group = |name: &str| (name.to_owned(), vec![vec![5.0, 1.0, 9.0], vec![0.5]]);
        let bars =
            Bars { title: "of this to that", legend: &["a", "b"], groups: vec![group("x"), group("y")] };
        let svg = bars.draw();
        assert_eq!(svg.matches("class=\"spread\"").count(), 4);
        for ratio in [">5.00<", ">0.50<"] {
            assert_eq!(svg.matches(ratio).count(), 2, "{ratio}");
        }
        assert!(!svg.contains("NaN"));
    }
}
