//! End-to-end, crash and command-line tests of Jeton.
