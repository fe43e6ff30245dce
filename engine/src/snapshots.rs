//! Where the snapshots of a data directory lie, and how a start gets its state from one.
//!
//! Every file is written under another name first, synced, and then renamed: a name that counts stands for a whole file. Files
//! are readable by their owner alone, for names of people lie in them.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jeton_core::numbers::{LogId, Partition, Sequence};
use jeton_core::snapshot::{Load, Loading, Manifest, PartStore, Restored, SnapshotError, snapshots};
use jeton_core::state::StateConfig;

/// The folder of snapshots in a data directory.
pub const SNAPSHOTS_DIR: &str = "snapshots";

const UNFINISHED: &str = ".unfinished";
/// Threads that read and verify parts at a start; more than that memory does not feed.
const LOAD_THREADS_MAX: usize = 8;
/// What is read of a part before that is hashed: little enough to stay in a core's own cache, and many of the hash's chunks.
const PIECE_BYTES: usize = 256 << 10;

/// A snapshot by its event, with its manifest or why that cannot be used.
pub type FoundSnapshot = (Sequence, Result<Manifest, SnapshotError>);

/// The files of snapshots in one folder.
#[derive(Clone, Debug)]
pub struct SnapshotDir {
    path: PathBuf,
    /// Bytes of the disk that are left to the log.
    keep_free: u64,
}

impl SnapshotDir {
    /// The snapshots of a data directory. The folder need not be there yet.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { path: data.join(SNAPSHOTS_DIR), keep_free: 0 }
    }

    /// The same, of which nothing is written that would leave less than so many bytes free on the disk.
    #[must_use]
    pub fn keeping_free(self, bytes: u64) -> Self {
        Self { keep_free: bytes, ..self }
    }

    fn check_space(&self, bytes: usize) -> io::Result<()> {
        let stat = rustix::fs::statvfs(&self.path)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let needed = self.keep_free.saturating_add(bytes as u64);
        if free >= needed {
            return Ok(());
        }
        let words =
            format!("{free} bytes are free on the disk; with what is kept for the log it takes {needed}");
        Err(io::Error::new(io::ErrorKind::StorageFull, words))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder if it is missing, and removes what a writer that died has left unfinished.
    ///
    /// # Errors
    /// As the system says.
    pub fn prepare(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        match self.path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    /// The manifests of this log's snapshots, newest first, each with why it cannot be used if it cannot.
    ///
    /// # Errors
    /// As the system says.
    pub fn manifests(&self, log: (LogId, Partition)) -> io::Result<Vec<FoundSnapshot>> {
        let all = self.all_manifests()?.into_iter();
        Ok(all.map(|(at, manifest)| (at, manifest.and_then(|manifest| manifest.check_log(log)))).collect())
    }

    /// The same, of whatever log.
    ///
    /// # Errors
    /// As the system says.
    pub fn all_manifests(&self) -> io::Result<Vec<FoundSnapshot>> {
        let found = match snapshots(self) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            found => found?,
        };
        Ok(found.into_iter().map(|at| (at, Manifest::read(self, at))).collect())
    }

    /// The state of a snapshot, and its manifest.
    ///
    /// # Errors
    /// [`SnapshotError`]: it cannot be used.
    pub fn load(
        &self,
        manifest: Manifest,
        config: StateConfig,
    ) -> Result<(Restored, Manifest), SnapshotError> {
        let mut loading = Loading::new(manifest, self, config)?;
        let loads = Mutex::new(loading.loads());
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(LOAD_THREADS_MAX);
        let next = || loads.lock().ok()?.pop();
        let load_all = || {
            let mut all = std::iter::from_fn(next);
            all.try_for_each(|load: Load<'_>| load.run(self))
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(load_all)).collect();
            let mut result = load_all();
            for other in others {
                let failed = || Err(SnapshotError::Damaged("a thread that read it panicked".to_owned()));
                result = result.and(other.join().unwrap_or_else(|_| failed()));
            }
            result
        })?;
        drop(loads);
        loading.finish()
    }
}

impl PartStore for SnapshotDir {
    fn names(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        fs::metadata(self.path.join(name)).map(|found| found.len())
    }

    fn read(&self, name: &str, into: &mut [u8]) -> io::Result<()> {
        File::open(self.path.join(name))?.read_exact(into)
    }

    fn read_in_pieces(&self, name: &str, into: &mut [u8], arrived: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut file = File::open(self.path.join(name))?;
        into.chunks_mut(PIECE_BYTES).try_for_each(|piece| {
            file.read_exact(piece)?;
            arrived(piece);
            Ok(())
        })
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.check_space(bytes.len())?;
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&unfinished, self.path.join(name))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }
}
