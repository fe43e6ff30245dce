//! The part of docs/BENCHMARKS.md that is written here.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};

use crate::Measured;
use crate::plot::Bars;
use crate::rig::Figures;
use crate::shapes::{PEERS, SHAPES};

/// The marks of the part that is written here.
pub(crate) const MARKS: [&str; 2] = ["<!-- peers: begin -->", "<!-- peers: end -->"];

/// Whether a document has the place to write to.
pub(crate) fn check(document: &str, [begin, end]: [&str; 2]) -> anyhow::Result<()> {
    let found = (document.matches(begin).count(), document.matches(end).count());
    ensure!(found == (1, 1), "the document needs one {begin} and one {end}");
    Ok(())
}

/// The document with another text between these marks.
pub(crate) fn replace(document: &str, [begin, end]: [&str; 2], text: &str) -> anyhow::Result<String> {
    check(document, [begin, end])?;
    let (before, rest) = document.split_once(begin).context("a begin")?;
    let (_, after) = rest.split_once(end).context("an end behind it")?;
    Ok(format!("{before}{begin}\n{}\n{end}{after}", text.trim()))
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Their median, the least and the greatest.
pub(crate) fn spread_of(values: &[f64]) -> [f64; 3] {
    let values = || values.iter().copied();
    [median(values()), values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max)]
}

/// The ratios of two peers, alternation by alternation.
pub(crate) fn ratios<T>(of: &[T], to: &[T], value: fn(&T) -> f64) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| value(of) / value(to)).collect()
}

/// Who is compared with whom: numbers of peers.
const RATIOS: [(usize, usize); 3] = [(2, 0), (2, 1), (3, 1)];

fn per_cpu(figures: &Figures) -> f64 {
    figures.tokens_per_cpu_s
}

/// The ratios as a picture.
pub(crate) fn draw(measured: &Measured) -> String {
    let groups = SHAPES.iter().zip(measured).map(|(shape, row)| {
        let bars = RATIOS.map(|(of, to)| ratios(&row[of], &row[to], per_cpu));
        (shape.name.to_owned(), bars.to_vec())
    });
    Bars {
        title: "Tokens validated per server-CPU-second: Jeton as a multiple of Redis",
        legend: &["of Redis plaintext", "of Redis TLS", "of Redis TLS, with datagrams of 1,452"],
        groups: groups.collect(),
    }
    .draw()
}

pub(crate) fn in_thousands(value: f64) -> String {
    match value / 1e3 {
        thousands if thousands >= 1e3 => format!("{:.2} M", thousands / 1e3),
        thousands if thousands < 10.0 => format!("{thousands:.1} k"),
        thousands => format!("{thousands:.0} k"),
    }
}

/// The table and what has to be said about it.
pub(crate) fn write(measured: &Measured, machine: &str, redis: &str, command: &str) -> String {
    let alternations = measured[0][0].len();
    let mut text = format!(
        "Jeton and Redis {redis} by turns, each pinned to the same core, the generator to another; {alternations} \
         alternations; every reply checked by `jeton-load`. Machine: {machine}.\n\nCommand: `{command}`. It installs Redis \
         if it is missing, and writes this section and the plot.\n\n![ratios by shape](peers.svg)\n\n\
         Tokens validated per server-CPU-second: median (least to greatest). Ratios are of the same alternation.\n\n\
         | connections x in flight x batch |",
    );
    let names: String = PEERS.iter().map(|peer| format!(" {} |", peer.name())).collect();
    let _ = writeln!(
        text,
        "{names} Jeton : plaintext | Jeton : TLS | 1,452 : TLS |\n|{}",
        "---|".repeat(PEERS.len() + 4)
    );
    for (shape, row) in SHAPES.iter().zip(measured) {
        let _ = write!(text, "| {} |", shape.name);
        for figures in row {
            let values: Vec<f64> = figures.iter().map(per_cpu).collect();
            let cells = spread_of(&values).map(in_thousands);
            let _ = write!(text, " {} ({} to {}) |", cells[0], cells[1], cells[2]);
        }
        for (of, to) in RATIOS {
            let [middle, least, most] = spread_of(&ratios(&row[of], &row[to], per_cpu));
            let _ = write!(text, " {middle:.2} ({least:.2} to {most:.2}) |");
        }
        text.push('\n');
    }
    text.push_str(
        "\nTokens a second, and p50 / p99 of a request in a closed loop, medians. Ratios are of p50, of the same alternation:\n\n",
    );
    let _ = writeln!(
        text,
        "| connections x in flight x batch |{names} Jeton : plaintext | Jeton : TLS |\n|{}",
        "---|".repeat(PEERS.len() + 3)
    );
    for (shape, row) in SHAPES.iter().zip(measured) {
        let _ = write!(text, "| {} |", shape.name);
        for figures in row {
            let of = |value: fn(&Figures) -> f64| median(figures.iter().map(value));
            let _ = write!(
                text,
                " {}/s, {:.0} / {:.0} us |",
                in_thousands(of(|figures| figures.tokens_per_s)),
                of(|figures| figures.p50_us as f64),
                of(|figures| figures.p99_us as f64)
            );
        }
        for (of, to) in [RATIOS[0], RATIOS[1]] {
            let [middle, least, most] =
                spread_of(&ratios(&row[of], &row[to], |figures| figures.p50_us as f64));
            let _ = write!(text, " {middle:.2} ({least:.2} to {most:.2}) |");
        }
        text.push('\n');
    }
    let busiest = measured.iter().flatten().flatten().map(|figures| figures.generator_cpu_s);
    let _ = writeln!(
        text,
        "\nRedis keeps nothing on disk here (`--save '' --appendonly no`), has one thread for IO, and over TLS checks the same \
         certificates as Jeton, of both sides, with the same cipher suite (TLS_AES_128_GCM_SHA256). A validate is a `GET` \
         for each token and a comparison of its secret by the generator; Jeton also checks expiry, revocation and tenant. All \
         servers run all the time; those that wait take next to nothing. TCP has segments of up to 64 KiB on loopback, QUIC \
         datagrams as large as the path takes, here 8,900 bytes; over a network without jumbo frames it finds 1,452, as in the \
         column with `large_datagrams = false`. The generator took up to {:.1} s of CPU \
         time in a measurement: where that is all there was, the rate is its own, and the figure per server-CPU-second is \
         the one to compare.\n\nNot measured here: several cores, \
         networks other than loopback, Redis with `io-threads` above one, memory beyond what fits into a cache of this size.",
        busiest.fold(0.0, f64::max)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(tokens_per_cpu_s: f64) -> Figures {
        Figures { tokens_per_s: 1e6, tokens_per_cpu_s, p50_us: 10, p99_us: 20, generator_cpu_s: 5.0 }
    }

    #[test]
    fn small_figures_are_told_with_a_decimal() {
        let told = [5_310.0, 9_990.0, 45_300.0, 999_400.0, 1_230_000.0].map(in_thousands);
        assert_eq!(told, ["5.3 k", "10.0 k", "45 k", "999 k", "1.23 M"]);
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let [begin, end] = MARKS;
        let document = format!("before\n{begin}\nold\n{end}\nafter\n");
        let replaced = replace(&document, MARKS, "new\n").unwrap();
        assert_eq!(replaced, format!("before\n{begin}\nnew\n{end}\nafter\n"));
        assert_eq!(replace(&replaced, MARKS, "new").unwrap(), replaced);
        assert!(replace("no marks", MARKS, "new").is_err());
    }

    #[test]
    fn ratios_are_of_the_same_alternation() {
        let (of, to) = ([10.0, 40.0, 30.0].map(figures), [10.0, 20.0, 10.0].map(figures));
        assert_eq!(spread_of(&ratios(&of, &to, per_cpu)), [2.0, 1.0, 3.0]);
        let measured = vec![vec![of.to_vec(), to.to_vec(), of.to_vec(), of.to_vec()]; SHAPES.len()];
        let text = write(&measured, "a machine", "7", "a command");
        assert!(text.contains("| 1.00 (1.00 to 1.00) | 2.00 (1.00 to 3.00) |"), "{text}");
        assert_eq!(text.matches("\n| deep").count(), 2);
        assert_eq!(draw(&measured).matches("class=\"spread\"").count(), RATIOS.len() * SHAPES.len());
    }
}
