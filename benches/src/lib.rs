//! Benchmarks of Jeton: `cargo bench -p jeton-benches`. Figures and how to read them: docs/BENCHMARKS.md.
