//! The shim's trace, read: a list of what happened to the files below a directory. Its format is in `tests/shim/trace.c`.

use std::fs;
use std::io;
use std::path::Path;

/// How a sync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncResult {
    /// All that was written before it is safe.
    Done,
    /// It failed, and what was pending will never be written: the system takes it for clean.
    FailedAndLost,
    /// It failed although all is safe.
    FailedButDone,
}

/// One thing that happened. Paths are relative to the watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'t> {
    /// A file or directory was opened, made or emptied.
    Open {
        /// Names this open from here on.
        handle: u32,
        /// Its path then.
        path: &'t str,
        /// It was made by it.
        is_created: bool,
        /// What was in it was cut off.
        is_cut: bool,
    },
    /// Bytes were written.
    Write {
        /// By this open.
        handle: u32,
        /// From this offset on.
        at: u64,
        /// These.
        bytes: &'t [u8],
    },
    /// A file was cut or extended.
    Length {
        /// By this open.
        handle: u32,
        /// To this length.
        length: u64,
    },
    /// A file or directory was synced.
    Sync {
        /// By this open.
        handle: u32,
        /// By `fdatasync`.
        is_data_only: bool,
        /// With this result.
        result: SyncResult,
    },
    /// The system dropped its clean pages of a file: the next read is the disk's.
    Forget {
        /// By this open.
        handle: u32,
    },
    /// A directory was made.
    Mkdir(&'t str),
    /// A directory was removed.
    Rmdir(&'t str),
    /// A name was removed.
    Unlink(&'t str),
    /// A name was changed.
    Rename(&'t str, &'t str),
    /// Said by the process itself, or `fault` by the shim.
    Mark(&'t str),
}

/// A trace as it lies in a file.
#[derive(Clone, Debug)]
pub struct Trace(Vec<u8>);

impl Trace {
    /// A trace of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Keeps it in a file.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        fs::write(to, &self.0)
    }

    /// What it says. A last record that was cut by the process's end is left out: the call it would tell of did not end.
    ///
    /// # Panics
    /// If it is no trace.
    #[must_use]
    pub fn events(&self) -> Vec<Event<'_>> {
        self.records().map(|record| event(record).expect("a record of the shim")).collect()
    }

    /// This, and then what another process did on the same directory.
    #[must_use]
    pub fn followed_by(mut self, next: &Self) -> Self {
        let whole = self.records().map(|record| 4 + record.len()).sum();
        self.0.truncate(whole);
        self.0.extend_from_slice(&next.0);
        self
    }

    /// Whole ones.
    fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk::<4>()?;
            let (record, next) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = next;
            Some(record)
        })
    }
}

fn event(record: &[u8]) -> Option<Event<'_>> {
    let (op, rest) = record.split_first()?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let numbered = |bytes: &[u8]| Some(u64::from_le_bytes(*bytes.first_chunk::<8>()?));
    match op {
        b'm' => Some(Event::Mkdir(text(rest)?)),
        b'r' => Some(Event::Rmdir(text(rest)?)),
        b'u' => Some(Event::Unlink(text(rest)?)),
        b'k' => Some(Event::Mark(text(rest)?)),
        b'n' => {
            let (from, to) = text(rest)?.split_once('\0')?;
            Some(Event::Rename(from, to))
        }
        _ => {
            let (handle, rest) = rest.split_first_chunk::<4>()?;
            let handle = u32::from_le_bytes(*handle);
            match (op, rest) {
                (b'o', [created, cut, _, path @ ..]) => Some(Event::Open {
                    handle,
                    path: text(path)?,
                    is_created: *created == 1,
                    is_cut: *cut == 1,
                }),
                (b'w', _) => Some(Event::Write { handle, at: numbered(rest)?, bytes: &rest[8..] }),
                (b't', _) => Some(Event::Length { handle, length: numbered(rest)? }),
                (b's', [is_data_only, result]) => {
                    let result = match result {
                        0 => SyncResult::Done,
                        1 => SyncResult::FailedAndLost,
                        2 => SyncResult::FailedButDone,
                        _ => return None,
                    };
                    Some(Event::Sync { handle, is_data_only: *is_data_only == 1, result })
                }
                (b'f', []) => Some(Event::Forget { handle }),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(op: u8, payload: &[u8]) -> Vec<u8> {
        let mut record = (payload.len() as u32 + 1).to_le_bytes().to_vec();
        record.push(op);
        record.extend_from_slice(payload);
        record
    }

    #[test]
    fn records_are_read_in_order_and_one_that_was_cut_is_left_out() {
        let mut bytes = record(b'o', b"\x01\0\0\0\x01\0\0data/LOCK");
        bytes.extend(record(b'w', b"\x01\0\0\0\x07\0\0\0\0\0\0\0abc"));
        bytes.extend(record(b's', b"\x01\0\0\0\x01\x01"));
        bytes.extend(record(b'n', b"a\0b"));
        bytes.extend(record(b'k', b"ack-3"));
        let whole = bytes.len();
        bytes.extend(&record(b'm', b"never")[..6]);
        let expected = [
            Event::Open { handle: 1, path: "data/LOCK", is_created: true, is_cut: false },
            Event::Write { handle: 1, at: 7, bytes: b"abc" },
            Event::Sync { handle: 1, is_data_only: true, result: SyncResult::FailedAndLost },
            Event::Rename("a", "b"),
            Event::Mark("ack-3"),
        ];
        assert_eq!(Trace::new(bytes.clone()).events(), expected);
        assert_eq!(Trace::new(bytes[..whole].to_vec()).events(), expected);
        let both = Trace::new(bytes).followed_by(&Trace::new(record(b'k', b"ack-4")));
        assert_eq!(both.events(), [&expected[..], &[Event::Mark("ack-4")]].concat());
    }
}
