//! What a log is to hold: commits whose sizes and bytes follow from a seed, so that a reader knows them too.

use std::ops::Range;

use jeton_log_store::{LogStore, Position, StoredBatch};

use crate::sim::rng::Rng;

/// The largest batch that the store takes is a little larger.
const BATCH_BYTES_MAX: u64 = 6_900;

/// What a read brings at a time.
const PAGE_BYTES: usize = 1 << 20;

/// What a commit is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As they come: most are small, some have a batch as large as there are, and one in forty is as large as half a segment
    /// of sled's own.
    Mixed,
    /// Some 25 KB in four batches: several pages of a file that no later commit writes to.
    Large,
    /// A single batch as large as there are: the store commits it in another way than several.
    OneBatch,
    /// A single batch of a few events, in a page that the next commit writes to as well.
    Small,
}

impl Size {
    /// How many batches, and the bytes of each.
    fn draw(self, rng: &mut Rng) -> (u64, Range<u64>) {
        match self {
            Self::Mixed => match rng.below(40) {
                0 => (rng.within(20..45), 0..BATCH_BYTES_MAX),
                1..=8 => (rng.within(1..4), 0..BATCH_BYTES_MAX),
                _ => (rng.within(1..3), 0..1_000),
            },
            Self::Large => (4, 6_000..BATCH_BYTES_MAX),
            Self::OneBatch => (1, 6_000..BATCH_BYTES_MAX),
            Self::Small => (1, 0..400),
        }
    }
}

/// Commits in order, each of one or more batches.
#[derive(Clone, Debug)]
pub struct History {
    commits: Vec<Vec<StoredBatch>>,
}

impl History {
    /// Commits of these sizes.
    #[must_use]
    pub fn new(seed: u64, sizes: impl Iterator<Item = Size>) -> Self {
        let mut rng = Rng::new(seed);
        let mut end = Position::START;
        let commit = |size: Size| {
            let (batches, bytes) = size.draw(&mut rng);
            (0..batches).map(|_| batch(&mut rng, &mut end, bytes.clone())).collect()
        };
        Self { commits: sizes.map(commit).collect() }
    }

    /// A commit, from 0 on.
    #[must_use]
    pub fn commit(&self, number: usize) -> &[StoredBatch] {
        &self.commits[number]
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.commits.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    /// Where the log ends after so many commits.
    #[must_use]
    pub fn end(&self, commits: usize) -> Position {
        let last = commits.checked_sub(1).and_then(|last| self.commits[last].last());
        last.map_or(Position::START, |batch| Position { sequence: batch.last, chain: batch.chain })
    }

    /// How many commits a log holds that ends there; `None` if no commit does.
    #[must_use]
    pub fn commits_until(&self, head: Position) -> Option<usize> {
        let found = self.commits.partition_point(|commit| commit[0].first <= head.sequence);
        (self.end(found) == head).then_some(found)
    }

    /// Reads a store from its first event to its head: it must hold exactly these batches, and end where a commit does.
    ///
    /// # Errors
    /// What it holds instead.
    pub fn compare(&self, store: &mut dyn LogStore) -> Result<(), String> {
        let head = store.head();
        if self.commits_until(head).is_none() {
            return Err(format!("the log ends at {}, where no commit does", head.sequence));
        }
        let first = store.first();
        let mut expected = self.batches_from(first).take_while(|batch| batch.last <= head.sequence);
        let mut next = first;
        while next <= head.sequence {
            let page = store.read_from(next, PAGE_BYTES).map_err(|error| error.to_string())?;
            for batch in &page {
                if expected.next() != Some(batch) {
                    return Err(format!(
                        "the batch that begins with {} is not what was appended",
                        batch.first
                    ));
                }
            }
            next = page.last().ok_or_else(|| format!("nothing is read from {next} on"))?.last + 1;
        }
        Ok(())
    }

    /// Every batch from the one that begins with `first` on.
    pub fn batches_from(&self, first: u64) -> impl Iterator<Item = &StoredBatch> {
        self.commits.iter().flatten().skip_while(move |batch| batch.first < first)
    }
}

fn batch(rng: &mut Rng, end: &mut Position, bytes: Range<u64>) -> StoredBatch {
    let (first, count) = (end.sequence + 1, rng.within(1..5));
    let mut bytes = vec![0; rng.within(bytes) as usize];
    rng.fill(&mut bytes);
    let chain = *blake3::Hasher::new().update(&end.chain).update(&bytes).finalize().as_bytes();
    *end = Position { sequence: first + count - 1, chain };
    StoredBatch { first, last: end.sequence, chain, bytes }
}
