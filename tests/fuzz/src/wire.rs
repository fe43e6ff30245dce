//! What the targets of both directions of the wire have in common: frames.

use jeton_wire::frame::{Frame, HEADER_BYTES, append, split};

/// Cuts tried of one frame, at most: with more bytes than that, only some positions.
const CUTS_MAX: usize = 128;

/// A frame of this opcode and payload, as on the wire.
pub(crate) fn framed(opcode: u8, request: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, opcode, request, |into| into.extend_from_slice(payload));
    bytes
}

/// Cuts a stream into frames and hands on each; checks that a frame is the same wherever its bytes are cut, and that
/// a stream that is refused is refused from its header on.
pub(crate) fn each_frame(mut stream: &[u8], frame_bytes_max: usize, mut take: impl FnMut(Frame<'_>)) {
    loop {
        match split(stream, frame_bytes_max) {
            Ok(Some((frame, length))) => {
                assert_eq!(length, HEADER_BYTES + frame.payload.len(), "a frame is a header and a payload");
                assert!(length <= frame_bytes_max, "no frame is larger than allowed");
                assert_eq!(
                    framed(frame.opcode, frame.request, frame.payload),
                    stream[..length],
                    "a frame is written as it was read"
                );
                let step = length.div_ceil(CUTS_MAX).max(1);
                for cut in (0..length).step_by(step).chain([length - 1]) {
                    assert_eq!(split(&stream[..cut], frame_bytes_max), Ok(None), "cut at {cut} of {length}");
                }
                assert_eq!(
                    split(&stream[..length], frame_bytes_max),
                    Ok(Some((frame, length))),
                    "what follows does not matter"
                );
                take(frame);
                stream = &stream[length..];
            }
            Ok(None) => return,
            Err(error) => {
                for cut in 0..HEADER_BYTES.min(stream.len()) {
                    assert_eq!(split(&stream[..cut], frame_bytes_max), Ok(None), "cut at {cut}");
                }
                assert_eq!(
                    split(&stream[..HEADER_BYTES], frame_bytes_max),
                    Err(error),
                    "the header is enough"
                );
                return;
            }
        }
    }
}
