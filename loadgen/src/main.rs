//! The `jeton-load` command.
fn main() {}
