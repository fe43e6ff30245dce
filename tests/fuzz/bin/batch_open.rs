//! libFuzzer's door to `jeton_fuzz::batch_open`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jeton_fuzz::batch_open::run(data));
