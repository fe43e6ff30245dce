//! The jeton/1 wire format and the pure per-connection session.
