//! Requests, as a server reads them: the decoder is total, allocates in proportion, and takes one spelling only.

use jeton_core::check::Check;
use jeton_wire::frame::{Frame, REQUEST_BYTES_MAX, split};
use jeton_wire::request::{ChecksBuffer, Request, TOKENS_MAX, ValidateRequest, encode_validate};

use crate::allocation::bounded;
use crate::wire::{each_frame, framed};

/// What a request may take in memory beside a multiple of its own length.
const SMALL_BYTES: usize = 4 * 1024;

/// Reads the bytes as a stream of frames, and as an opcode and a payload.
pub fn run(data: &[u8]) {
    each_frame(data, REQUEST_BYTES_MAX, |frame| check(&frame));
    if let Some((opcode, payload)) = data.split_first()
        && payload.len() <= REQUEST_BYTES_MAX - 16
    {
        each_frame(&framed(*opcode, 7, payload), REQUEST_BYTES_MAX, |frame| check(&frame));
    }
}

fn check(frame: &Frame<'_>) {
    let decoded = bounded(SMALL_BYTES + 16 * frame.payload.len(), || Request::decode(frame));
    let Ok(request) = decoded else { return };
    let received = framed(frame.opcode, frame.request, frame.payload);
    if let Request::Validate(validate) = &request {
        check_validate(validate, frame.request, &received);
        return;
    }
    let mut written = Vec::new();
    request.encode(frame.request, &mut written);
    assert_eq!(written, received, "a request has one spelling: {request:?}");
}

fn check_validate(validate: &ValidateRequest<'_>, id: u64, received: &[u8]) {
    assert!((1..=TOKENS_MAX).contains(&validate.tokens.len()), "a validate asks about some tokens");
    let written = |checks: &[Check<'_>], indexes: Option<&[u16]>| {
        let mut bytes = Vec::new();
        let (tokens, least) = (validate.tokens, validate.min_sequence);
        encode_validate(id, tokens, checks, indexes, least, validate.with_subjects, &mut bytes);
        bytes
    };
    let mut each = ChecksBuffer::new();
    validate.checks_of_each(&mut each);
    let Some(check) = validate.check_for_all() else {
        // Tokens may share a check, and the table may hold some that no token names: here each token has its own.
        assert_eq!(each.len(), validate.tokens.len(), "each token names a check");
        let indexes: Vec<u16> = (0..each.len() as u16).collect();
        let again = written(&each, Some(&indexes));
        let (frame, _) = split(&again, usize::MAX).expect("it was just written").expect("and whole");
        let Ok(Request::Validate(read)) = Request::decode(&frame) else { panic!("a validate reads back") };
        assert_eq!((read.tokens, read.min_sequence), (validate.tokens, validate.min_sequence));
        let mut each_read = ChecksBuffer::new();
        read.checks_of_each(&mut each_read);
        assert_eq!(format!("{each_read:?}"), format!("{each:?}"), "each token keeps its check");
        return;
    };
    assert!(each.is_empty(), "one check for all is not one for each");
    let asks_nothing = check.access.is_none()
        && check.audience.is_none()
        && check.scopes.is_none()
        && check.binding.is_none();
    let is_same = written(&[check], None) == received;
    assert!(is_same || (asks_nothing && written(&[], None) == received), "one check has one spelling");
}
