//! The event log's storage: trait, conformance suite, sled, memory and fault-injecting stores.
