//! The key space: 32 bytes a token, by position, in an anonymous mapping that can be saved to a file. (Mapping the
//! file itself would be `unsafe`, for another process could cut it short.)

use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use memmap2::MmapMut;

/// Tokens by position.
pub(crate) struct TokenFile {
    map: MmapMut,
}

impl TokenFile {
    /// Room for `tokens` tokens, in memory that the system may page out.
    pub(crate) fn anonymous(tokens: u32) -> anyhow::Result<Self> {
        let map = MmapMut::map_anon(tokens as usize * 32).context("memory for the tokens")?;
        Ok(Self { map })
    }

    /// Copies the tokens to a file, readable by its owner alone.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let save = || {
            // Secrets: a file that others can read is not written to, but replaced.
            let _ = std::fs::remove_file(path);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&self.map)
        };
        save().with_context(|| path.display().to_string())
    }

    /// The token at a position.
    pub(crate) fn at(&self, position: u32) -> &[u8; 32] {
        &self.map.as_chunks::<32>().0[position as usize]
    }

    /// Puts a token at a position.
    pub(crate) fn put(&mut self, position: u32, token: &[u8; 32]) {
        self.map.as_chunks_mut::<32>().0[position as usize] = *token;
    }
}
