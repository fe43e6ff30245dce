//! Connection ids that say which shard they belong to: the first byte modulo the number of shards.
//!
//! A filter on the sockets hands each datagram to the shard that its id names, whatever address it comes from
//! (`socket/options.rs`).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

const CID_BYTES: usize = 8;

/// Makes the ids of one shard.
pub(super) struct ShardCids {
    shard: u8,
    shards: u8,
    /// A keyed hash over a counter: ids cannot be told to belong together.
    hasher: RandomState,
    counter: u64,
}

impl ShardCids {
    pub(super) fn new(shard: u8, shards: u8) -> Self {
        assert!(shard < shards, "a shard is one of the shards");
        Self { shard, shards, hasher: RandomState::new(), counter: 0 }
    }
}

impl ConnectionIdGenerator for ShardCids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.counter += 1;
        let mut cid = self.hasher.hash_one(self.counter).to_le_bytes();
        let below = u8::MAX - u8::MAX % self.shards;
        // Rounded down to a multiple of the shards, so that no shard gets past 255.
        let base = cid[0].min(below - 1) / self.shards * self.shards;
        cid[0] = base + self.shard;
        ConnectionId::new(&cid)
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_leads_back_to_its_shard() {
        for shards in [1, 2, 3, 7, 64, 128, 255] {
            for shard in [0, shards / 2, shards - 1] {
                let mut cids = ShardCids::new(shard, shards);
                for _ in 0..500 {
                    assert_eq!(cids.generate_cid()[0] % shards, shard);
                }
            }
        }
    }
}
