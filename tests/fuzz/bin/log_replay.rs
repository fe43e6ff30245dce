//! libFuzzer's door to `jeton_fuzz::log_replay`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| jeton_fuzz::log_replay::run(data));
