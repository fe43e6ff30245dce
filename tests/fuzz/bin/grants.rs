//! libFuzzer's door to `jeton_fuzz::grants`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jeton_fuzz::grants::run(data));
