//! The Jeton token engine: composition, sequencer thread, recovery and the command line.
