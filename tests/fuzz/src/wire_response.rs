//! Responses, as a client reads them from a server that may lie: the decoder is total and allocates in proportion.
//!
//! A response may have more than one spelling (answers with a column of subjects that are all 0, details of rejections
//! that have none); what is written after reading is canonical.

use jeton_wire::frame::{Frame, RESPONSE_BYTES_MAX, split};
use jeton_wire::response::Response;

use crate::allocation::bounded;
use crate::wire::{each_frame, framed};

/// What a response may take in memory beside a multiple of its own length.
const SMALL_BYTES: usize = 4 * 1024;

/// Reads the bytes as a stream of frames, and as an opcode and a payload.
pub fn run(data: &[u8]) {
    each_frame(data, RESPONSE_BYTES_MAX, |frame| check(&frame));
    if let Some((opcode, payload)) = data.split_first()
        && payload.len() <= RESPONSE_BYTES_MAX - 16
    {
        each_frame(&framed(*opcode, 7, payload), RESPONSE_BYTES_MAX, |frame| check(&frame));
    }
}

fn check(frame: &Frame<'_>) {
    // An empty batch or a client without rights takes 2 to 10 bytes on the wire and a vector or two in memory, and a
    // vector that grows is there twice for a moment.
    let decoded = bounded(SMALL_BYTES + 64 * frame.payload.len(), || Response::decode(frame));
    let Ok(response) = decoded else { return };
    let written = encoded(&response, frame.request);
    assert!(written.len() <= 16 + frame.payload.len(), "the canonical spelling is the shortest");
    let (reread, length) = split(&written, usize::MAX).expect("it was just written").expect("and whole");
    assert_eq!((reread.request, length), (frame.request, written.len()));
    let read_again = Response::decode(&reread).expect("what is written reads back");
    assert_eq!(format!("{read_again:?}"), format!("{response:?}"), "and is the same");
    assert_eq!(encoded(&read_again, frame.request), written, "the canonical spelling is one");
}

fn encoded(response: &Response, request: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    response.encode(request, &mut bytes);
    bytes
}
