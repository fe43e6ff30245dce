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
}

/// What lookups among so many tokens cannot be faster than.
pub(crate) struct Limit {
    records: Lines,
    words: Lines,
    random: Random,
}

impl Limit {
    /// As many lines as the records of so many tokens take, and a sixth of that as the index does.
    pub(crate) fn of(tokens: usize) -> Self {
        Self { records: Lines::new(tokens), words: Lines::new(tokens / 6 + 1), random: Random(5) }
    }

    /// Two lines for each of 64 tokens, one among the words and one among the records.
    pub(crate) fn ask(&mut self) {
        black_box(self.records.sum(&self.words, &mut self.random));
    }

    /// Prints random lines a second, and adds the time of [`Self::ask`] to the group.
    pub(crate) fn bench(&mut self, group: &mut BenchmarkGroup<'_, WallTime>) {
        let (began, mut rounds) = (Instant::now(), 0_u32);
        while began.elapsed() < MEASURED {
            (0..ROUNDS).for_each(|_| self.ask());
            rounds += ROUNDS;
        }
        let per_s = f64::from(rounds) * (2 * TOGETHER) as f64 / began.elapsed().as_secs_f64();
        println!("the machine's limit: {:.1} M random cache lines a second", per_s / 1e6);
        group.bench_function("the machine's limit: two random cache lines for each of 64", |bencher| {
            bencher.iter(|| self.ask());
        });
    }
}
