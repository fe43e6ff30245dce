//! What is stored of a token: a keyed hash of all of it.
//!
//! `blake3::keyed_hash` over exactly 64 bytes: id, secret and fixed domain bytes. One block, so that 16 tokens at a
//! time go through SIMD ([`digest_batch`]), a ninth of the time that one by one takes. The key is public: against 128
//! random bits a secret key would protect nothing, and its loss would kill every token.

use std::hint::black_box;
use std::sync::LazyLock;

use blake3::IncrementCounter;
use blake3::platform::Platform;

use super::{Secret, TokenId};

/// How many messages go through SIMD at a time; a smaller group is filled up to a power of two.
pub const DIGEST_BATCH: usize = 16;

/// Fills a message up to one block; part of the format.
const DOMAIN: &[u8; 32] = b"jeton token digest, version one.";
const KEY_CONTEXT: &str = "jeton 2026-11-24 token digest v1";
const BLOCK_BYTES: usize = 64;

// The flag bits of the blake3 compression function (BLAKE3 paper, table 3).
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

static KEY: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key(KEY_CONTEXT, &[]));
static KEY_WORDS: LazyLock<[u32; 8]> =
    LazyLock::new(|| std::array::from_fn(|at| u32::from_le_bytes(KEY.as_chunks::<4>().0[at])));
static PLATFORM: LazyLock<Platform> = LazyLock::new(Platform::detect);

/// The digest of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

/// The digest of one token.
#[must_use]
pub fn digest(id: &TokenId, secret: &Secret) -> Digest {
    let mut message = [0; BLOCK_BYTES];
    message[..16].copy_from_slice(&id.0);
    message[16..32].copy_from_slice(&secret.0);
    message[32..].copy_from_slice(DOMAIN);
    Digest(*blake3::keyed_hash(&KEY, &message).as_bytes())
}

/// Hashes up to [`DIGEST_BATCH`] tokens at a time, in room of its own that is made once: to fill that in anew takes a fifth as long
/// as the hash.
pub struct Digester {
    messages: [[u8; BLOCK_BYTES]; DIGEST_BATCH],
    digests: [[u8; 32]; DIGEST_BATCH],
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester") // what it holds are tokens
    }
}

impl Default for Digester {
    fn default() -> Self {
        Self::new()
    }
}

impl Digester {
    /// Room for one batch.
    #[must_use]
    pub const fn new() -> Self {
        let mut message = [0; BLOCK_BYTES];
        let (_, rest) = message.split_at_mut(BLOCK_BYTES - DOMAIN.len());
        rest.copy_from_slice(DOMAIN);
        Self { messages: [message; DIGEST_BATCH], digests: [[0; 32]; DIGEST_BATCH] }
    }

    /// The digests of these tokens (16 bytes id, 16 bytes secret), in order; what is behind them means nothing.
    ///
    /// # Panics
    /// If there are more than [`DIGEST_BATCH`].
    #[inline]
    pub fn digest(&mut self, tokens: &[[u8; 32]]) -> &[[u8; 32]; DIGEST_BATCH] {
        for (message, token) in self.messages[..tokens.len()].iter_mut().zip(tokens) {
            message[..32].copy_from_slice(token);
        }
        // As many messages as one round of SIMD takes: a group of 15 would take twice as long as one of 16. What is left over
        // from the group before is hashed for nothing.
        let count = tokens.len().next_power_of_two().min(DIGEST_BATCH);
        let inputs: [&[u8; BLOCK_BYTES]; DIGEST_BATCH] = std::array::from_fn(|at| &self.messages[at]);
        PLATFORM.hash_many(
            &inputs[..count],
            &KEY_WORDS,
            0,
            IncrementCounter::No,
            KEYED_HASH,
            CHUNK_START,
            CHUNK_END | ROOT,
            self.digests[..count].as_flattened_mut(),
        );
        &self.digests
    }
}

/// The digests of many tokens (16 bytes id, 16 bytes secret), in order.
///
/// # Panics
/// If `digests` is shorter than `tokens`.
pub fn digest_batch(tokens: &[[u8; 32]], digests: &mut [[u8; 32]]) {
    assert!(digests.len() >= tokens.len(), "there is room for every digest");
    let mut digester = Digester::new();
    for (tokens, digests) in tokens.chunks(DIGEST_BATCH).zip(digests.chunks_mut(DIGEST_BATCH)) {
        let made = digester.digest(tokens);
        digests.iter_mut().zip(made).for_each(|(digest, made)| *digest = *made);
    }
}

/// Whether a digest has these words, little-endian, in a time that does not depend on where they differ.
///
/// Word by word, as a record holds them: put together to be compared sixteen bytes at a time they would have to be on their
/// way to memory first, which takes as long as the rest of a lookup.
#[inline]
#[must_use]
pub fn has_digest_words(digest: &[u8; 32], words: [u64; 4]) -> bool {
    let pairs = digest.as_chunks::<8>().0.iter().zip(words);
    // black_box, as far as it goes: no word is to be left off once another differs, nor two taken together.
    pairs.fold(0, |differs, (bytes, word)| differs | black_box(u64::from_le_bytes(*bytes) ^ word)) == 0
}

/// Whether two digests are equal, in a time that does not depend on where they differ.
#[must_use]
pub fn digests_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    // blake3's own comparison is constant in time, and forty times as fast as one byte by byte.
    blake3::Hash::from_bytes(*one) == blake3::Hash::from_bytes(*other)
}
