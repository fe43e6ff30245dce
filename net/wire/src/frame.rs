//! Frames: a 16-byte header and a payload.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | length of the payload, u32 |
//! | 4 | 1 | opcode; the high bit marks responses |
//! | 5 | 3 | zeros |
//! | 8 | 8 | request id, chosen by the client, returned with the answer |

use crate::error::WireError;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 16;
/// Where a header has its opcode.
pub(crate) const OPCODE_AT: usize = 4;
/// The largest request, header included.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// The largest response, header included.
pub const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// A frame, its payload still in the buffer it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub opcode: u8,
    /// Which request it belongs to.
    pub request: u64,
    /// What is in it.
    pub payload: &'a [u8],
}

/// The first frame in `bytes` and how many bytes it takes; `None` if it is not all there yet.
///
/// # Errors
/// [`WireError::TooLarge`] as soon as the length is there, [`WireError::Invalid`] if the zeros are not.
pub fn split(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [l0, l1, l2, l3, opcode, z0, z1, z2, request @ ..] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length as usize > frame_bytes_max - HEADER_BYTES {
        return Err(WireError::TooLarge(length));
    }
    if [z0, z1, z2] != [0; 3] {
        return Err(WireError::Invalid("a header's zeros"));
    }
    let Some(payload) = rest.get(..length as usize) else { return Ok(None) };
    Ok(Some((Frame { opcode, request: u64::from_le_bytes(request), payload }, HEADER_BYTES + payload.len())))
}

/// Appends a frame whose payload `put` writes.
pub fn append(into: &mut Vec<u8>, opcode: u8, request: u64, put: impl FnOnce(&mut Vec<u8>)) {
    let start = into.len();
    let mut header = [0; HEADER_BYTES];
    header[OPCODE_AT] = opcode;
    header[8..].copy_from_slice(&request.to_le_bytes());
    into.extend_from_slice(&header);
    put(into);
    let length = u32::try_from(into.len() - start - HEADER_BYTES).expect("frames are far below 4 GiB");
    into[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
