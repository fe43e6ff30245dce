//! Every store against the one suite.

use jeton_log_store::conformance::{Fixture, run};
use jeton_log_store::{FaultScript, FaultStore, LogStore, MemoryStore, Options, SledStore};

struct Memory(MemoryStore);

impl Fixture for Memory {
    fn open(&mut self) -> Box<dyn LogStore> {
        Box::new(self.0.clone())
    }
}

struct Faultless(MemoryStore);

impl Fixture for Faultless {
    fn open(&mut self) -> Box<dyn LogStore> {
        Box::new(FaultStore::new(self.0.clone(), FaultScript::default()))
    }
}

struct Sled {
    dir: tempfile::TempDir,
    segment_bytes: u64,
}

impl Fixture for Sled {
    fn open(&mut self) -> Box<dyn LogStore> {
        let options = Options {
            segment_bytes: self.segment_bytes,
            space_reserve: 0,
            space_hard: 0,
            ..Options::default()
        };
        Box::new(SledStore::open(self.dir.path(), options, [5; 16]).expect("the log opens"))
    }
}

#[test]
fn the_memory_store_conforms() {
    run(|| Memory(MemoryStore::new([5; 16])));
}

#[test]
fn a_fault_store_without_faults_conforms() {
    run(|| Faultless(MemoryStore::new([5; 16])));
}

#[test]
fn the_sled_store_conforms() {
    run(|| Sled { dir: tempfile::tempdir().expect("a directory"), segment_bytes: 256 << 20 });
}

#[test]
fn the_sled_store_conforms_with_a_segment_for_each_commit() {
    run(|| Sled { dir: tempfile::tempdir().expect("a directory"), segment_bytes: 1 });
}
