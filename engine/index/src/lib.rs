//! The lock-free token index and slab of Jeton.
