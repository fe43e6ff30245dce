//! Random bytes for ids, secrets and salts, from the system's generator.

/// Drawn from the system at a time: a call for each secret would cost more than issuing the token.
const POOL_BYTES: usize = 4_096;

/// Random bytes drawn in advance. What was handed out is overwritten.
pub(super) struct EntropyPool {
    bytes: Box<[u8; POOL_BYTES]>,
    used: usize,
}

impl Default for EntropyPool {
    fn default() -> Self {
        Self { bytes: Box::new([0; POOL_BYTES]), used: POOL_BYTES }
    }
}

impl EntropyPool {
    /// Fills `into` with random bytes.
    ///
    /// # Panics
    /// If the system's generator fails: without it no token can be issued.
    pub(super) fn fill(&mut self, into: &mut [u8]) {
        let mut wanted = into;
        while !wanted.is_empty() {
            if self.used == POOL_BYTES {
                getrandom::fill(&mut *self.bytes).expect("the system's random generator works");
                self.used = 0;
            }
            let rest = &mut self.bytes[self.used..];
            let count = wanted.len().min(rest.len());
            let (now, later) = wanted.split_at_mut(count);
            now.copy_from_slice(&rest[..count]);
            rest[..count].fill(0);
            self.used += count;
            wanted = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_handed_out_twice() {
        let mut pool = EntropyPool::default();
        let mut drawn = std::collections::HashSet::new();
        for _ in 0..1_000 {
            let mut secret = [0; 24];
            pool.fill(&mut secret);
            assert!(drawn.insert(secret));
        }
        assert!(pool.bytes[..pool.used].iter().all(|byte| *byte == 0));
    }
}
