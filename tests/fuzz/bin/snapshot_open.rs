//! libFuzzer's door to `jeton_fuzz::snapshot_open`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jeton_fuzz::snapshot_open::run(data));
