//! Benchmarks of Jeton.
