//! Where things lie in a sled 0.34 file: segments of 512 KiB, each a header of 20 bytes and messages behind it.
//!
//! A message is a checksum of 4 bytes, its kind in one byte, and three numbers of variable length (payload bytes, number
//! of the segment, page), then the payload. Only what is needed to aim at headers is read here.

use std::ops::Range;

const SEGMENT_BYTES: usize = 512 * 1024;
const SEGMENT_HEADER_BYTES: usize = 20;
const MESSAGE_KINDS: Range<u8> = 1..12;
/// Behind this no message begins in a segment.
const MESSAGE_HEADER_BYTES_MAX: usize = 32;

/// The headers of a file, in order.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Of its segments.
    pub(super) segments: Vec<Range<usize>>,
    /// Of its messages.
    pub(super) messages: Vec<Range<usize>>,
    /// Where each message ends.
    pub(super) ends: Vec<usize>,
}

/// A number as sled writes it (after SQLite 4), and how many bytes it takes.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let at = |index: usize| bytes.get(index).copied().map(u64::from);
    Some(match first {
        0..=240 => (u64::from(first), 1),
        241..=248 => (240 + 256 * (u64::from(first) - 241) + at(1)?, 2),
        249 => (2288 + 256 * at(1)? + at(2)?, 3),
        250.. => {
            let length = usize::from(first) - 247;
            let mut value = [0; 8];
            value[..length].copy_from_slice(bytes.get(1..=length)?);
            (u64::from_le_bytes(value), length + 1)
        }
    })
}

/// The message that begins at `at`: its header's length and its payload's.
fn message(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let kind = *bytes.get(at + 4)?;
    if !MESSAGE_KINDS.contains(&kind) {
        return None;
    }
    let mut next = at + 5;
    let (payload, length) = number(bytes.get(next..)?)?;
    next += length;
    for _ in 0..2 {
        next += number(bytes.get(next..)?)?.1;
    }
    Some((next - at, usize::try_from(payload).ok()?))
}

impl Layout {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut layout = Self::default();
        for start in (0..bytes.len()).step_by(SEGMENT_BYTES) {
            let end = bytes.len().min(start + SEGMENT_BYTES);
            let mut at = (start + SEGMENT_HEADER_BYTES).min(end);
            layout.segments.push(start..at);
            while at + MESSAGE_HEADER_BYTES_MAX <= start + SEGMENT_BYTES {
                let Some((header, payload)) = message(&bytes[..end], at) else { break };
                if at + header + payload > end {
                    break;
                }
                layout.messages.push(at..at + header);
                at += header + payload;
                layout.ends.push(at);
            }
        }
        layout
    }
}
