//! Claims: what a token allows.
