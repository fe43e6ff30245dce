//! Standard output, which may be a pipe that nobody reads any more, or a full disk.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;

/// Prints a line.
pub(crate) fn tell(words: Arguments<'_>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{words}").and_then(|()| out.flush()).context("standard output cannot be written")
}

/// Whether all that went wrong is that the reader of standard output has seen enough, as `head` does.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
        && error.to_string().starts_with("standard output")
}
