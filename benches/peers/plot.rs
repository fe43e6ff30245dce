//! The ratios as a picture, for a light and a dark page.

use std::fmt::Write as _;

use crate::Measured;
use crate::rig::Figures;
use crate::shapes::SHAPES;
use crate::table::ratio;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 46.0;
const BAR: f64 = 16.0;
const GROUP: f64 = 75.0;

const STYLE: &str = "<style>\
    text { font: 13px system-ui, sans-serif; fill: #1f2328 } .paper { fill: #ffffff } .soft { fill: #59636e }\
    .c0 { fill: #0969da } .c1 { fill: #bc4c00 } .c2 { fill: #8250df } .rule { stroke: #d1d9e0 } .spread { stroke: #1f2328 } .one { stroke: #1f2328 }\
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .paper { fill: #0d1117 } .soft { fill: #9198a1 }\
    .c0 { fill: #58a6ff } .c1 { fill: #f0883e } .c2 { fill: #bc8cff } .rule { stroke: #30363d } .spread { stroke: #e6edf3 }\
    .one { stroke: #e6edf3 } }</style>";

/// Bars of the middle ratios, with lines from the least to the greatest.
pub(crate) fn draw(measured: &Measured) -> String {
    let per_cpu: fn(&Figures) -> f64 = |figures| figures.tokens_per_cpu_s;
    let ratios: Vec<[[f64; 3]; 3]> = measured
        .iter()
        .map(|row| [(2, 0), (2, 1), (3, 1)].map(|(of, to)| ratio(&row[of], &row[to], per_cpu)))
        .collect();
    let most = ratios.iter().flatten().map(|[_, _, most]| *most).fold(1.0, f64::max) * 1.05;
    let height = TOP + GROUP * SHAPES.len() as f64 + 30.0;
    let across = |ratio: f64| LEFT + ratio / most * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Jeton's tokens per server-CPU-second as a multiple of Redis's\">\n{STYLE}\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
         <text x=\"10\" y=\"20\">Tokens validated per server-CPU-second: Jeton as a multiple of Redis (line: least to \
         greatest)</text>\n\
         <rect class=\"c0\" x=\"10\" y=\"28\" width=\"12\" height=\"10\"/><text x=\"28\" y=\"38\">of Redis plaintext</text>\n\
         <rect class=\"c1\" x=\"170\" y=\"28\" width=\"12\" height=\"10\"/><text x=\"188\" y=\"38\">of Redis TLS</text>\n\
         <rect class=\"c2\" x=\"300\" y=\"28\" width=\"12\" height=\"10\"/>\
         <text x=\"318\" y=\"38\">of Redis TLS, with datagrams of 1,452</text>\n"
    );
    for (number, (shape, bars)) in SHAPES.iter().zip(&ratios).enumerate() {
        let top = TOP + GROUP * number as f64 + 8.0;
        let _ = writeln!(svg, "<text class=\"soft\" x=\"10\" y=\"{:.1}\">{}</text>", top + 22.0, shape.name);
        for (colour, [middle, least, greatest]) in bars.iter().enumerate() {
            let y = top + (BAR + 3.0) * colour as f64;
            let (end, line) = (across(*middle), y + BAR / 2.0);
            let _ = writeln!(
                svg,
                "<rect class=\"c{colour}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>\
                 <line class=\"spread\" x1=\"{:.1}\" y1=\"{line:.1}\" x2=\"{:.1}\" y2=\"{line:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{middle:.1}</text>",
                end - LEFT,
                across(*least),
                across(*greatest),
                across(*greatest) + 6.0,
                y + 13.0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_has_its_bar() {
        let figures = |per_cpu| Figures {
            tokens_per_s: 1.0,
            tokens_per_cpu_s: per_cpu,
            p50_us: 1,
            p99_us: 2,
            generator_cpu_s: 1.0,
        };
        let row = [2.0, 1.0, 10.0, 20.0].map(|per_cpu| vec![figures(per_cpu)]).to_vec();
        let svg = draw(&vec![row; SHAPES.len()]);
        assert_eq!(svg.matches("class=\"spread\"").count(), 3 * SHAPES.len());
        for ratio in [">5.0<", ">10.0<", ">20.0<"] {
            assert_eq!(svg.matches(ratio).count(), SHAPES.len(), "{ratio}");
        }
        assert!(!svg.contains("NaN"));
    }
}
