//! Tokens in a memory mapping, of a file or of memory alone. The one file of this crate with `unsafe`.
//!
//! Nobody gets a reference into a mapping: tokens are copied in and out, by whole words. So another process that writes to
//! the file meanwhile makes tokens wrong, which the checker tells, and nothing else; one that cuts it short has the system
//! end this one (SIGBUS). Both have to be the file's owner to do it, and to disregard the lock beside it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};

use crate::peer::TokenBytes;

/// Bytes of a token, and words of it.
pub(crate) const TOKEN_BYTES: usize = 32;
const WORDS: usize = TOKEN_BYTES / size_of::<u64>();

/// So many tokens in a row.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: MmapRaw,
    tokens: u32,
    is_of_file: bool,
}

impl Mapping {
    /// In memory, which the system may page out.
    ///
    /// # Errors
    /// There is no room for so many.
    pub(crate) fn anonymous(tokens: u32) -> io::Result<Self> {
        let map = MmapMut::map_anon(tokens as usize * TOKEN_BYTES)?;
        // Tokens are read at random: with small pages nearly each read has to look for its page first. Best effort.
        let _ = map.advise(Advice::HugePage);
        Ok(Self { map: MmapRaw::from(map), tokens, is_of_file: false })
    }

    /// In a file, which has that length and is open for reading and writing.
    ///
    /// # Errors
    /// It has another length, or what the system says.
    pub(crate) fn of_file(file: &File, tokens: u32) -> io::Result<Self> {
        let bytes = tokens as usize * TOKEN_BYTES;
        if file.metadata()?.len() != bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its length is not that of its tokens"));
        }
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        // Otherwise the first read of each page waits for the disk while latencies are measured. Best effort.
        let _ = map.advise(Advice::PopulateRead);
        Ok(Self { map, tokens, is_of_file: true })
    }

    /// The token at a position.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn at(&self, position: u32) -> TokenBytes {
        assert!(position < self.tokens, "the position is one of the key space's");
        let mut token = [0; TOKEN_BYTES];
        // SAFETY: the mapping lives as long as `self`, is readable and has `tokens` times 32 bytes, of which this is the
        // place of one: all in bounds, and aligned to 32, for a mapping begins with a page. No reference to it exists,
        // and within this process nobody writes: that takes `&mut self`.
        let words = unsafe {
            let place = self.map.as_ptr().add(position as usize * TOKEN_BYTES).cast::<u64>();
            std::array::from_fn::<u64, WORDS, _>(|at| place.add(at).read_volatile())
        };
        for (to, word) in token.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *to = word.to_ne_bytes();
        }
        token
    }

    /// Puts a token at a position.
    ///
    /// # Panics
    /// If there is no such position.
    pub(crate) fn put(&mut self, position: u32, token: &TokenBytes) {
        assert!(position < self.tokens, "the position is one of the key space's");
        // SAFETY: as in `at`; the mapping is writable, and `&mut self` says that nobody else in this process reads.
        unsafe {
            let place = self.map.as_mut_ptr().add(position as usize * TOKEN_BYTES).cast::<u64>();
            for (at, word) in token.as_chunks::<8>().0.iter().enumerate() {
                place.add(at).write_volatile(u64::from_ne_bytes(*word));
            }
        }
    }

    /// Brings what was put to the file, so that nothing of it is left to be written while a run is measured.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn flush(&self) -> io::Result<()> {
        if self.is_of_file { self.map.flush() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_was_put_from_memory_and_from_a_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * 32).unwrap();
        assert!(Mapping::of_file(&file, 4).is_err(), "no page lies beyond its end");
        let mut mapped = Mapping::of_file(&file, 3).unwrap();
        let token: TokenBytes = std::array::from_fn(|at| at as u8);
        for mapping in [&mut mapped, &mut Mapping::anonymous(3).unwrap()] {
            mapping.put(1, &token);
            assert_eq!([0, 1, 2].map(|at| mapping.at(at)), [[0; 32], token, [0; 32]]);
        }
        mapped.flush().unwrap();
        let mut bytes = [1; 96];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(
            (&bytes[..32], &bytes[32..64]),
            (&[0; 32][..], &token[..]),
            "it is the file that was written to"
        );
    }

    #[test]
    #[should_panic(expected = "the position is one of the key space's")]
    fn nothing_is_read_beyond_the_last_token() {
        let _ = Mapping::anonymous(2).unwrap().at(2);
    }
}
