//! What random cache lines cost on this machine: the limit of every lookup.

use memmap2::{Advice, MmapMut};

use super::fill::Random;

const LINE_BYTES: usize = 64;
/// Lines that are asked for at a time.
const TOGETHER: usize = 64;

/// Memory of cache lines that are asked for at random, 64 at a time, with nothing to wait for in between. It lies in huge
/// pages, as index and slab do.
pub(crate) struct Lines(MmapMut);

impl Lines {
    pub(crate) fn new(count: usize) -> Self {
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
    pub(crate) fn sum(&self, others: &Self, random: &mut Random) -> u64 {
        let numbers: [u64; TOGETHER] = std::array::from_fn(|_| random.next());
        let words: u64 = numbers.iter().map(|number| others.first_byte(*number)).sum();
        words + numbers.iter().map(|number| self.first_byte(number.rotate_left(32))).sum::<u64>()
    }
}
