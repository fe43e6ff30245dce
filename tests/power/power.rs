//! Power loss and faults under the real store: what a disk may hold after a crash, and what comes of a call that fails.
//!
//! ```text
//! script.rs   the steps that a process takes with a store: opens, appends, rotations, trims, closes
//!    | runs in a process of its own, under the shim (shim.rs, tests/shim)
//! trace.rs    everything that changed or synced a file, in order, with marks of what was acknowledged
//!    |
//! disk.rs     what of it is safe and what is pending, at each point of the trace
//! image.rs    what a crash there may leave, in seven variants
//!    |
//! check.rs    opens that with the real store: nothing acknowledged may be missing, and the log goes on
//! campaign.rs all of it for every sync point of a seed
//! snapshots.rs the same for the files of snapshots, written by a small engine
//! faults.rs   calls that fail: what is told, and the same check of what they leave
//! snapshot_script.rs, snapshot_faults.rs  the same for the files of an engine's snapshots
//! ```
//!
//! The disk is modelled as harshly as POSIX allows: a file's bytes are safe only once its own descriptor was synced, a
//! name only once its directory was. It keeps sectors of 512 bytes whole.

mod campaign;
mod check;
mod disk;
mod faults;
mod history;
mod image;
mod script;
mod shim;
mod snapshot_faults;
mod snapshot_script;
mod snapshots;
mod trace;

pub use campaign::{Campaign, Lie, Report};
pub use check::{Bounds, Checked, bounds_at, check_directory, judge};
pub use disk::Disk;
pub use faults::{Calls, Outcome, calls, crashes, failures, undisturbed};
pub use history::History;
pub use image::{Image, Variant};
pub use script::{Script, Step, drive};
pub use shim::{Fault, Recorded, record, record_in, shim};
pub use snapshot_faults::{SnapshotRun, run_snapshots, snapshot_failures};
pub use snapshot_script::drive_snapshots;
pub use snapshots::{SnapshotLie, SnapshotReport, cut_snapshots, write_snapshots};
pub use trace::{Event, Trace};
