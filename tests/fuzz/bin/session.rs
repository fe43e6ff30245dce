//! libFuzzer's door to `jeton_fuzz::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jeton_fuzz::session::run(data));
