//! libFuzzer's door to `jeton_fuzz::wire_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jeton_fuzz::wire_request::run(data));
