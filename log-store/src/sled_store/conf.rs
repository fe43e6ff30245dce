//! sled's `conf` file: 62 bytes, the same in every segment we make. sled does not open a database if one of them is
//! another, so one that is damaged is replaced by what it must have been.
//!
//! Nothing is guessed: one that matches its own checksum is left alone whatever it says, and whether the segment behind
//! a replaced one is whole is for the batches' hashes and the chain to say, as with any other.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::segment::sync_dir;

/// What sled 0.34 writes with the settings of `open_sled`, its CRC-32 at the end; a test compares.
const CONF: &[u8; 62] = b"segment_size: 524288\nuse_compression: false\nversion: 0.34\n\x76\x19\x51\xc1";

/// Puts a damaged or missing `conf` of the segment in `path` right; what was there is kept as `conf.damaged`. Returns
/// whether there was anything to do.
pub(super) fn mend(path: &Path) -> io::Result<bool> {
    let conf = path.join("conf");
    let is_empty = fs::metadata(path.join("db")).map_or(true, |db| db.len() == 0);
    // In a segment without anything in it sled writes it, or is about to after a crash.
    if is_empty {
        return Ok(false);
    }
    match fs::read(&conf) {
        Ok(bytes) if is_whole(&bytes) => return Ok(false),
        Ok(bytes) => keep(&path.join("conf.damaged"), &bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let next = path.join("conf.next");
    let mut file = File::create(&next)?;
    file.write_all(CONF)?;
    file.sync_all()?;
    // If we die before this, the next opening does it again.
    fs::rename(next, conf)?;
    sync_dir(path)?;
    Ok(true)
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<4>().is_some_and(|(text, checksum)| {
        !text.is_empty() && crc32fast::hash(text) == u32::from_le_bytes(*checksum)
    })
}

/// The first that was found is the one that tells what happened.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.exists() { Ok(()) } else { fs::write(path, bytes) }
}
