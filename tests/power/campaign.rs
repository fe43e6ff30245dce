//! Every sync point of one seed's life, in every variant.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};

use super::check::{Bounds, Checked, check_directory, judge};
use super::disk::Disk;
use super::history::History;
use super::image::{Image, Variant};
use super::script::Script;
use super::shim::{Fault, place, record_in};
use super::trace::{Event, Trace};
use crate::sim::rng::Rng;

/// Images that wait to be opened: each is some megabytes.
const WAITING_MAX: usize = 4;
/// Threads that open images.
const OPENERS: usize = 2;
/// Writes of sled's file before a process is killed; those of an opening are among them.
const WRITES_BEFORE_DEATH: std::ops::Range<u64> = 1..40;
const SIGKILL: i32 = 9;
/// Broken promises that are told of.
const TOLD_MAX: usize = 20;

/// A store that does less than ours: a test of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// `fdatasync` of sled's file does nothing: as if its own `flush` were enough.
    NoDataSync,
    /// Directories are never synced.
    NoDirectorySync,
    /// The anchor is never synced.
    NoAnchorSync,
    /// A start syncs nothing of sled's file: as if what it reads were always on the disk. Commits do.
    NoSyncAtStart,
}

/// What one seed's life is put through.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Of the life, the history and the images.
    pub seed: u64,
    /// Commits in it.
    pub commits: usize,
    /// How often the process that lives it is killed behind a write of sled's file, and another one goes on: what the first left
    /// in the system's memory is then read, and built upon, before the power goes.
    pub deaths: usize,
    /// What is left out of the trace.
    pub lie: Option<Lie>,
    /// Only this sync point.
    pub point: Option<usize>,
    /// Where images that break a promise are kept, to be looked at.
    pub keep: Option<PathBuf>,
}

/// What it came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Sync points.
    pub points: usize,
    /// Images built.
    pub images: usize,
    /// Different ones, each opened once.
    pub distinct: usize,
    /// Images that were refused and can be repaired without loss, by what was said.
    pub refused: BTreeMap<String, usize>,
    /// Processes that were killed in it.
    pub deaths: usize,
    /// Images that kept a commit that was not acknowledged.
    pub kept_unacknowledged: usize,
    /// Broken promises: where, and which.
    pub broken: Vec<String>,
    /// How many there were.
    pub broken_count: usize,
}

struct Case {
    point: usize,
    variant: Variant,
    digest: [u8; 32],
    bounds: Bounds,
}

type Work = ([u8; 32], Image<'static>);

impl Campaign {
    /// Records a life in a process of its own and tries every crash of it. `driver` is the `power` binary.
    ///
    /// # Panics
    /// If the life itself goes wrong: nothing fails in it.
    #[must_use]
    pub fn run(&self, driver: &Path) -> Report {
        let (seed, commits) = (self.seed.to_string(), self.commits.to_string());
        let live = |root: &Path, fault: Option<&Fault<'_>>| {
            let mut command = Command::new(driver);
            command.args(["drive", "--seed", &seed, "--commits", &commits]);
            record_in(root, command, fault)
        };
        let (root, mut rng) = (place(), Rng::new(self.seed ^ 0xdead));
        let (mut trace, mut deaths) = (Trace::new(Vec::new()), 0);
        for _ in 0..self.deaths {
            let number = u32::try_from(rng.within(WRITES_BEFORE_DEATH)).expect("a few");
            let (call, path) = ("write", "data/log/*/db");
            let death = Fault { after: "", call, path, number, error: "EIO", is_kept: true, is_crash: true };
            let lived = live(root.path(), Some(&death));
            assert!(lived.status.success() || lived.status.signal() == Some(SIGKILL), "{}", lived.words);
            deaths += usize::from(!lived.status.success());
            trace = trace.followed_by(&lived.trace);
        }
        let lived = live(root.path(), None);
        assert!(lived.status.success(), "the life of seed {}: {}", self.seed, lived.words);
        trace = trace.followed_by(&lived.trace);
        if let Some(keep) = &self.keep {
            fs::create_dir_all(keep).and_then(|()| trace.write(&keep.join("trace"))).expect("kept");
        }
        Report { deaths, ..self.try_all(&trace) }
    }

    fn try_all(&self, trace: &Trace) -> Report {
        let script = Script::life(self.seed, self.commits);
        let history = script.history();
        let (send, receive) = sync_channel::<Work>(WAITING_MAX);
        let receive = Mutex::new(receive);
        let checked: Mutex<HashMap<[u8; 32], Checked>> = Mutex::default();
        let (points, cases) = std::thread::scope(|scope| {
            for _ in 0..OPENERS {
                scope.spawn(|| self.open_images(&receive, &checked, &history, script.segment_bytes()));
            }
            let built = self.build(trace, &mut |work| send.send(work).expect("the openers wait for it"));
            drop(send);
            built
        });
        let checked = checked.into_inner().expect("no opener panics");
        self.judged(points, &cases, &checked)
    }

    /// Builds the images of every point, and passes on the different ones.
    fn build(&self, trace: &Trace, send: &mut dyn FnMut(Work)) -> (usize, Vec<Case>) {
        let events = trace.events();
        let truth = self.without_what_it_lies_about(&events);
        let (mut disk, mut bounds, mut point) = (Disk::default(), Bounds::default(), 0);
        let mut cases: Vec<Case> = Vec::new();
        let mut known = std::collections::HashSet::new();
        let mut try_here = |disk: &Disk<'_>, bounds: &Bounds, point: usize| {
            for (number, variant) in Variant::ALL.into_iter().enumerate() {
                let mut rng = Rng::new(self.seed ^ ((point * Variant::ALL.len() + number) as u64) << 20);
                let image = Image::of(disk, variant, &mut rng);
                let digest = image.digest();
                cases.push(Case { point, variant, digest, bounds: *bounds });
                if known.insert(digest) {
                    send((digest, image.into_owned()));
                }
            }
        };
        for event in &truth {
            // Before a sync the most is pending, and all that was acknowledged since the last one must be there.
            if matches!(event, Event::Sync { .. }) {
                if self.point.is_none_or(|only| only == point) {
                    try_here(&disk, &bounds, point);
                }
                point += 1;
            }
            disk.apply(event);
            bounds.note(event);
        }
        if self.point.is_none_or(|only| only == point) {
            try_here(&disk, &bounds, point);
        }
        (point + 1, cases)
    }

    fn without_what_it_lies_about<'t>(&self, events: &[Event<'t>]) -> Vec<Event<'t>> {
        let mut paths: HashMap<u32, &str> = HashMap::new();
        let mut truth = Vec::new();
        for event in events {
            if let Event::Open { handle, path, .. } = event {
                paths.insert(*handle, *path);
            }
            let is_left_out = match event {
                Event::Sync { handle, is_data_only, .. } => self.leaves_out(paths[handle], *is_data_only),
                _ => false,
            };
            truth.extend((!is_left_out).then_some(*event));
        }
        truth
    }

    fn leaves_out(&self, path: &str, is_data_only: bool) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default();
        match self.lie {
            None => false,
            Some(Lie::NoDataSync) => is_data_only && name == "db",
            Some(Lie::NoSyncAtStart) => !is_data_only && name == "db",
            Some(Lie::NoAnchorSync) => name == "anchor",
            Some(Lie::NoDirectorySync) => {
                name.is_empty() || name == "data" || name == "log" || name.len() == 20
            }
        }
    }

    fn judged(&self, points: usize, cases: &[Case], checked: &HashMap<[u8; 32], Checked>) -> Report {
        let mut report = Report { points, images: cases.len(), distinct: checked.len(), ..Report::default() };
        for case in cases {
            let found = &checked[&case.digest];
            if let Checked::Refused { message, .. } = found {
                *report.refused.entry(general(message)).or_default() += 1;
            }
            if matches!(found, Checked::Whole { commits, .. } if *commits > case.bounds.acknowledged) {
                report.kept_unacknowledged += 1;
            }
            if let Err(words) = judge(found, &case.bounds) {
                report.broken_count += 1;
                if report.broken.len() < TOLD_MAX {
                    report.broken.push(format!("{}, {:?}: {words}", self.again(case.point), case.variant));
                }
            }
        }
        report
    }

    /// The line that tries one point again.
    fn again(&self, point: usize) -> String {
        let lie = self.lie.map_or(String::new(), |lie| format!(" --lie {lie:?}"));
        let Self { seed, commits, deaths, .. } = self;
        format!(
            "cargo run -p jeton-tests --bin power -- --seed {seed} --commits {commits} --deaths {deaths} --point {point}{lie}"
        )
    }

    fn open_images(
        &self,
        work: &Mutex<Receiver<Work>>,
        checked: &Mutex<HashMap<[u8; 32], Checked>>,
        history: &History,
        segment_bytes: u64,
    ) {
        loop {
            let next = work.lock().expect("no opener panics").recv();
            let Ok((digest, image)) = next else { return };
            let root = place();
            let found = match image.write(root.path()) {
                Err(error) => Checked::Broken(format!("the image cannot be written: {error}")),
                Ok(()) => check_directory(root.path(), history, segment_bytes),
            };
            // One that is refused may have lost too much, which is judged later.
            if let (Checked::Broken(_) | Checked::Refused { .. }, Some(keep)) = (&found, &self.keep) {
                let to = keep.join(blake3::Hash::from_bytes(digest).to_hex().as_str());
                fs::create_dir_all(&to).and_then(|()| image.write(&to)).expect("a place to keep it");
            }
            checked.lock().expect("no opener panics").insert(digest, found);
        }
    }
}

/// Words without the numbers and paths of one case.
fn general(message: &str) -> String {
    let words = message.split(' ').map(|word| if word.starts_with('/') { "<path>" } else { word });
    let text = words.collect::<Vec<_>>().join(" ");
    text.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}
