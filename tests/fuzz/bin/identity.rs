//! libFuzzer's door to `jeton_fuzz::identity`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jeton_fuzz::identity::run(data));
