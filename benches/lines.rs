//! What random cache lines cost on this machine: the limit of every lookup.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;
use memmap2::{Advice, MmapMut};

use super::fill::Random;

const LINE_BYTES: usize = 64;
/// Lines that are asked for at a time.
const TOGETHER: usize = 64;
/// How long lines are read for the figure that is printed, and how many times between two looks at the clock.
const MEASURED: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 1_000;

/// Memory of cache lines that are asked for at random, 64 at a time, with nothing to wait for in between. It lies in huge
/// pages, as index and slab do.
struct Lines(MmapMut);

impl Lines {
    fn new(count: usize) -> Self {
        let mut memory = MmapMut::map_anon(count.max(TOGETHER) * LINE_BYTES).expect("memory");
        let _ = memory.advise(Advice::HugePage); // without, it is slower
        memory.fill(1);
        Self(memory)
    }

    fn first_byte(&self, number: u64) -> u64 {
        let (lines, _) = self.0.as_chunks::<LINE_BYTES>();
        let at = ((u128::from(number) * lines.len() as u128) >> 64) as usize;
        u64::from(lines[at][0])
    }

    /// Reads a line here and one of `others` for each of 64 numbers.
    fn sum(&self, others: &Self, random: &mut Random) -> u64 {
        let numbers: [u64; TOGETHER] = std::array::from_fn(|_| random.next());
        let words: u64 = numbers.iter().map(|number| others.first_byte(*number)).sum();
        words + numbers.iter().map(|number| self.first_byte(number.rotate_left(32))).sum::<u64>()
    }

    /// Lines a second, half of them of `others`.
    fn lines_per_s(&self, others: &Self, random: &mut Random) -> f64 {
        let (began, mut rounds) = (Instant::now(), 0_u32);
        while began.elapsed() < MEASURED {
            for _ in 0..ROUNDS {
                black_box(self.sum(others, random));
            }
            rounds += ROUNDS;
        }
        f64::from(rounds) * (2 * TOGETHER) as f64 / began.elapsed().as_secs_f64()
    }
}

/// Measures the limit of lookups among so many tokens: prints random lines a second, and adds the time of two for each of 64
/// tokens to the group.
pub(crate) fn limit(group: &mut BenchmarkGroup<'_, WallTime>, tokens: usize) {
    // As many lines as the records take, and a sixth of that as the index does.
    let (records, words) = (Lines::new(tokens), Lines::new(tokens / 6 + 1));
    let mut random = Random(5);
    let per_s = records.lines_per_s(&words, &mut random);
    println!("the machine's limit: {:.1} M random cache lines a second", per_s / 1e6);
    group.bench_function("the machine's limit: two random cache lines for each of 64", |bencher| {
        bencher.iter(|| records.sum(&words, &mut random));
    });
}
