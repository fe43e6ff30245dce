//! Jeton's QUIC server: sans-IO driver, glommio shards, caller identity.
