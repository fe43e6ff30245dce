//! The folder of snapshots: what was put there is whole once its name is durable, and a crash leaves what chance does of the
//! names that were not.

use std::collections::BTreeMap;
use std::io;

use jeton_core::snapshot::PartStore;

use super::disk::tear;
use super::rng::Rng;

/// A name given or taken that is not durable yet.
#[derive(Debug)]
enum Change {
    Put(String, Vec<u8>),
    Remove(String),
}

/// The folder.
#[derive(Debug, Default)]
pub(super) struct Parts {
    durable: BTreeMap<String, Vec<u8>>,
    changes: Vec<Change>,
}

impl Parts {
    fn file(&self, name: &str) -> io::Result<&Vec<u8>> {
        let mut file = self.durable.get(name);
        for change in &self.changes {
            match change {
                Change::Put(of, bytes) if of == name => file = Some(bytes),
                Change::Remove(of) if of == name => file = None,
                Change::Put(..) | Change::Remove(_) => {}
            }
        }
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn carry_out(&mut self, change: Change) {
        match change {
            Change::Put(name, bytes) => drop(self.durable.insert(name, bytes)),
            Change::Remove(name) => drop(self.durable.remove(&name)),
        }
    }

    /// The power is cut: of the names that were not durable, some are there all the same, in no order; and some of those
    /// files are not whole, as on a disk that lies. Returns whether one is not.
    pub(super) fn crash(&mut self, rng: &mut Rng, torn: &mut Rng) -> bool {
        let mut has_torn = false;
        for mut change in std::mem::take(&mut self.changes) {
            let is_torn = match &mut change {
                Change::Put(_, bytes) if torn.one_in(3) => tear(bytes, torn),
                _ => false,
            };
            if rng.one_in(2) {
                has_torn |= is_torn;
                self.carry_out(change);
            }
        }
        has_torn
    }

    /// Flips a bit of some file; returns whether there was one.
    pub(super) fn rot(&mut self, rng: &mut Rng) -> bool {
        let Some(which) = (self.durable.len() as u64).checked_sub(1) else { return false };
        let which = rng.below(which + 1) as usize;
        let bytes = self.durable.values_mut().nth(which).expect("there are that many");
        if bytes.is_empty() {
            return false;
        }
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
        true
    }
}

impl PartStore for Parts {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = self.durable.keys().cloned().collect();
        for change in &self.changes {
            match change {
                Change::Put(name, _) if !names.contains(name) => names.push(name.clone()),
                Change::Remove(name) => names.retain(|other| other != name),
                Change::Put(..) => {}
            }
        }
        Ok(names)
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.file(name)?.len() as u64)
    }

    fn read(&self, name: &str, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.file(name)?.get(..into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.changes.push(Change::Put(name.to_owned(), bytes.to_vec()));
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        for change in std::mem::take(&mut self.changes) {
            self.carry_out(change);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?;
        self.changes.push(Change::Remove(name.to_owned()));
        Ok(())
    }
}
