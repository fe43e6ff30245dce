//! A disk as a trace left it: what is safe, and what is pending until it is synced.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::trace::{Event, SyncResult};

/// What the system writes back as one.
const PAGE_BYTES: usize = 4096;

/// A file or a directory, whatever it is called.
pub(super) type NodeId = usize;

/// A change of a file that is not safe yet.
#[derive(Clone, Debug)]
pub(super) enum Change<'t> {
    Write { at: usize, bytes: Cow<'t, [u8]> },
    Length(usize),
}

/// A file's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct File<'t> {
    /// What a read gives.
    pub(super) now: Vec<u8>,
    /// What the disk is sure to hold.
    pub(super) safe: Vec<u8>,
    /// What was done to it since, in order.
    pub(super) pending: Vec<Change<'t>>,
    /// Pages that a failed sync lost: reads give them, the disk does not hold them, no sync will write them.
    lost: BTreeSet<usize>,
}

/// A change of one name, or of two at once, that is not safe yet.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) removes: Option<(NodeId, String)>,
    pub(super) adds: Option<(NodeId, String, NodeId)>,
}

/// The names in a directory.
pub(super) type Names = BTreeMap<String, NodeId>;

#[derive(Clone, Debug)]
pub(super) enum Node<'t> {
    File(File<'t>),
    Directory { now: Names, safe: Names },
}

/// Everything below one directory, which itself is safe.
#[derive(Clone, Debug)]
pub struct Disk<'t> {
    pub(super) nodes: Vec<Node<'t>>,
    /// In the order in which they were done.
    pub(super) name_changes: Vec<NameChange>,
    handles: HashMap<u32, NodeId>,
}

/// The watched directory.
pub(super) const ROOT: NodeId = 0;

impl Change<'_> {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes: written } => put(bytes, *at, written),
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

/// Writes `written` at `at`; what lies between the end and there reads as zeros.
pub(super) fn put(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    let end = at + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(written);
}

/// Gives a name to a node, or takes it away.
pub(super) fn set_name(names: &mut Names, name: &str, node: Option<NodeId>) {
    match node {
        Some(node) => names.insert(name.to_owned(), node),
        None => names.remove(name),
    };
}

impl NameChange {
    /// What it does, one name after another: in this directory, this name is gone or names a node.
    pub(super) fn steps(&self) -> impl Iterator<Item = (NodeId, &str, Option<NodeId>)> {
        let removes = self.removes.iter().map(|(directory, name)| (*directory, name.as_str(), None));
        let adds = self.adds.iter().map(|(directory, name, node)| (*directory, name.as_str(), Some(*node)));
        removes.chain(adds)
    }

    fn is_of(&self, directory: NodeId) -> bool {
        self.steps().any(|(changed, ..)| changed == directory)
    }
}

impl<'t> File<'t> {
    fn write(&mut self, at: usize, bytes: &'t [u8]) {
        put(&mut self.now, at, bytes);
        let pages = at / PAGE_BYTES..(at + bytes.len()).div_ceil(PAGE_BYTES);
        let has_lost = self.lost.range(pages.clone()).next().is_some();
        self.lost.retain(|page| !pages.contains(page));
        let change = if has_lost {
            // A page is written back as a whole, and so with what an earlier sync had lost of it.
            let (start, end) = (pages.start * PAGE_BYTES, (pages.end * PAGE_BYTES).min(self.now.len()));
            Change::Write { at: start, bytes: Cow::Owned(self.now[start..end].to_vec()) }
        } else {
            Change::Write { at, bytes: Cow::Borrowed(bytes) }
        };
        self.pending.push(change);
    }

    fn set_length(&mut self, length: usize) {
        self.now.resize(length, 0);
        self.lost.retain(|page| page * PAGE_BYTES < length);
        self.pending.push(Change::Length(length));
    }

    fn sync(&mut self, result: SyncResult) {
        if result == SyncResult::FailedAndLost {
            for change in self.pending.drain(..) {
                if let Change::Write { at, bytes } = change {
                    self.lost.extend(at / PAGE_BYTES..(at + bytes.len()).div_ceil(PAGE_BYTES));
                }
            }
            return;
        }
        for change in self.pending.drain(..) {
            change.apply(&mut self.safe);
        }
        self.safe.resize(self.now.len(), 0);
    }

    fn forget(&mut self) {
        for page in std::mem::take(&mut self.lost) {
            let start = page * PAGE_BYTES;
            let end = (start + PAGE_BYTES).min(self.now.len());
            for at in start..end {
                self.now[at] = self.safe.get(at).copied().unwrap_or(0);
            }
        }
    }
}

impl Default for Disk<'_> {
    fn default() -> Self {
        let root = Node::Directory { now: Names::new(), safe: Names::new() };
        Self { nodes: vec![root], name_changes: Vec::new(), handles: HashMap::new() }
    }
}

impl<'t> Disk<'t> {
    /// Does what happened.
    ///
    /// # Panics
    /// If that cannot have happened on this disk: a call that changes files was not seen.
    pub fn apply(&mut self, event: &Event<'t>) {
        match *event {
            Event::Open { handle, path, is_created, is_cut } => {
                let node =
                    if is_created { self.create(path, Node::File(File::default())) } else { self.find(path) };
                self.handles.insert(handle, node.expect("an open file was made before"));
                if is_cut {
                    self.file(handle).set_length(0);
                }
            }
            Event::Write { handle, at, bytes } => self.file(handle).write(at as usize, bytes),
            Event::Length { handle, length } => self.file(handle).set_length(length as usize),
            Event::Sync { handle, result, .. } => self.sync(handle, result),
            Event::Forget { handle } => self.file(handle).forget(),
            Event::Mkdir(path) => {
                self.create(path, Node::Directory { now: Names::new(), safe: Names::new() });
            }
            Event::Rmdir(path) | Event::Unlink(path) => {
                let removes = Some(self.place(path));
                self.change(NameChange { removes, adds: None });
            }
            Event::Rename(from, to) => {
                let node = self.find(from).expect("what is renamed is there");
                let (directory, name) = self.place(to);
                let removes = Some(self.place(from));
                self.change(NameChange { removes, adds: Some((directory, name, node)) });
            }
            Event::Mark(_) => {}
        }
    }

    /// The path's directory and its last name.
    fn place(&self, path: &str) -> (NodeId, String) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.find(directory).expect("a directory was made before its entries"), name.to_owned())
    }

    fn find(&self, path: &str) -> Option<NodeId> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(ROOT, |node, name| match &self.nodes[node] {
            Node::Directory { now, .. } => now.get(name).copied(),
            Node::File(_) => None,
        })
    }

    fn create(&mut self, path: &str, node: Node<'t>) -> Option<NodeId> {
        let (directory, name) = self.place(path);
        self.nodes.push(node);
        let id = self.nodes.len() - 1;
        self.change(NameChange { removes: None, adds: Some((directory, name, id)) });
        Some(id)
    }

    fn change(&mut self, change: NameChange) {
        for (directory, name, node) in change.steps() {
            set_name(self.directory(directory).0, name, node);
        }
        self.name_changes.push(change);
    }

    /// A directory's names, now and safe.
    fn directory(&mut self, node: NodeId) -> (&mut Names, &mut Names) {
        match &mut self.nodes[node] {
            Node::Directory { now, safe } => (now, safe),
            Node::File(_) => panic!("names are changed in directories only"),
        }
    }

    fn file(&mut self, handle: u32) -> &mut File<'t> {
        let node = self.handles[&handle];
        match &mut self.nodes[node] {
            Node::File(file) => file,
            Node::Directory { .. } => panic!("only files are written"),
        }
    }

    fn sync(&mut self, handle: u32, result: SyncResult) {
        let node = self.handles[&handle];
        match &mut self.nodes[node] {
            Node::File(file) => file.sync(result),
            // Names that a failed sync did not make safe stay pending: they are in the file system's journal.
            Node::Directory { .. } if result == SyncResult::FailedAndLost => {}
            Node::Directory { .. } => {
                let changes = std::mem::take(&mut self.name_changes);
                let (safe, pending): (Vec<_>, _) = changes.into_iter().partition(|change| change.is_of(node));
                self.name_changes = pending;
                for (directory, name, node) in safe.iter().flat_map(NameChange::steps) {
                    set_name(self.directory(directory).1, name, node);
                }
            }
        }
    }

    /// What a path reads as now, if it is a file.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        match &self.nodes[self.find(path)?] {
            Node::File(file) => Some(&file.now),
            Node::Directory { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk on which `data/file` was made by handle 2, its directory opened as 1, and the one above as 0.
    fn disk() -> Disk<'static> {
        let mut disk = Disk::default();
        let open = |handle, path, is_created| Event::Open { handle, path, is_created, is_cut: false };
        let events =
            [open(0, "", false), Event::Mkdir("data"), open(1, "data", false), open(2, "data/file", true)];
        events.iter().for_each(|event| disk.apply(event));
        disk
    }

    fn sync(disk: &mut Disk<'_>, handle: u32, result: SyncResult) {
        disk.apply(&Event::Sync { handle, is_data_only: false, result });
    }

    fn safe<'d>(disk: &'d Disk<'_>, path: &str) -> Option<&'d [u8]> {
        path.split('/')
            .try_fold(ROOT, |node, name| match &disk.nodes[node] {
                Node::Directory { safe, .. } => safe.get(name).copied(),
                Node::File(_) => None,
            })
            .and_then(|node| match &disk.nodes[node] {
                Node::File(file) => Some(file.safe.as_slice()),
                Node::Directory { .. } => None,
            })
    }

    #[test]
    fn bytes_are_safe_once_their_file_was_synced_and_a_name_once_its_directory_was() {
        let mut disk = disk();
        disk.apply(&Event::Write { handle: 2, at: 0, bytes: b"abc" });
        sync(&mut disk, 2, SyncResult::Done);
        assert_eq!((safe(&disk, "data/file"), disk.read("data/file")), (None, Some(&b"abc"[..])));
        sync(&mut disk, 1, SyncResult::Done);
        assert_eq!(safe(&disk, "data/file"), None, "its directory has no safe name yet");
        sync(&mut disk, 0, SyncResult::Done);
        assert_eq!(safe(&disk, "data/file"), Some(&b"abc"[..]));
        disk.apply(&Event::Rename("data/file", "data/other"));
        assert_eq!(safe(&disk, "data/other"), None);
        sync(&mut disk, 1, SyncResult::Done);
        assert_eq!((safe(&disk, "data/file"), safe(&disk, "data/other")), (None, Some(&b"abc"[..])));
    }

    #[test]
    fn pages_that_a_failed_sync_lost_read_well_until_they_are_forgotten_and_are_safe_only_once_written_anew()
    {
        let mut disk = disk();
        sync(&mut disk, 1, SyncResult::Done);
        sync(&mut disk, 0, SyncResult::Done);
        disk.apply(&Event::Write { handle: 2, at: 0, bytes: &[1; 8192] });
        sync(&mut disk, 2, SyncResult::FailedAndLost);
        disk.apply(&Event::Write { handle: 2, at: 100, bytes: &[2] });
        sync(&mut disk, 2, SyncResult::Done);
        let (first, second) = safe(&disk, "data/file").unwrap().split_at(PAGE_BYTES);
        assert!(first[..100] == [1; 100] && first[100] == 2, "a page is written as a whole");
        assert_eq!(second, [0; 4096], "and the other never");
        assert_eq!(disk.read("data/file").unwrap()[PAGE_BYTES..], [1; 4096]);
        disk.apply(&Event::Forget { handle: 2 });
        assert_eq!(disk.read("data/file").unwrap()[PAGE_BYTES..], [0; 4096]);
    }
}
