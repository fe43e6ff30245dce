//! What the machine itself takes meanwhile: a plain sync of the same disk, and an echo over loopback between two threads.
//!
//! Others on the machine, or on its host, make all of a server's answers slower for minutes. They make these slower too: a
//! server that slows down by itself is one whose latencies leave theirs behind.

use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::load::{Latencies, latencies};

/// How often each is tried.
const EVERY: Duration = Duration::from_millis(25);
/// Bytes of a sync, as a small commit has; places for them in the file, which is written through once before.
const SYNC_BYTES: usize = 512;
const PLACES: u64 = 2_048;
/// How long an echo may take; one that is lost counts as that.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is measured, in the order of [`super::Sample::control`].
pub(super) const CONTROLS: [&str; 2] = ["disk", "echo"];

/// Measures until it is dropped.
pub(super) struct Control {
    recorded: Arc<Mutex<[Latencies; CONTROLS.len()]>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    file: PathBuf,
}

impl Control {
    /// Begins, with a file in this folder.
    pub(super) fn start(dir: &Path) -> std::io::Result<Self> {
        let path = dir.join("control");
        let file = File::create(&path)?;
        file.write_all_at(&vec![1; SYNC_BYTES * PLACES as usize], 0)?;
        file.sync_all()?;
        let (here, there) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        here.connect(there.local_addr()?)?;
        there.connect(here.local_addr()?)?;
        here.set_read_timeout(Some(PATIENCE))?;
        there.set_read_timeout(Some(PATIENCE))?;
        let recorded = Arc::new(Mutex::new([latencies(), latencies()]));
        let is_over = Arc::new(AtomicBool::new(false));
        let answering = {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut bytes = [0; 64];
                while !is_over.load(Relaxed) {
                    let _ = there.recv(&mut bytes).and_then(|count| there.send(&bytes[..count]));
                }
            })
        };
        let measure = |number: usize, mut act: Box<dyn FnMut(u64) + Send>| {
            let (recorded, is_over) = (Arc::clone(&recorded), Arc::clone(&is_over));
            std::thread::spawn(move || {
                for at in 0.. {
                    if is_over.load(Relaxed) {
                        return;
                    }
                    let began = Instant::now();
                    act(at);
                    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    recorded.lock().expect("nobody panics with it")[number].saturating_record(took.max(1));
                    std::thread::sleep(EVERY);
                }
            })
        };
        let sync = measure(
            0,
            Box::new(move |at| {
                let place = at % PLACES * SYNC_BYTES as u64;
                file.write_all_at(&[at as u8; SYNC_BYTES], place).expect("room that was written before");
                file.sync_data().expect("a sync");
            }),
        );
        let echo = measure(
            1,
            Box::new(move |at| {
                let mut bytes = [0; 8];
                let _ = here.send(&at.to_le_bytes());
                // One that came too late is not the answer to this.
                while here.recv(&mut bytes).is_ok() && bytes != at.to_le_bytes() {}
            }),
        );
        Ok(Self { recorded, is_over, threads: vec![answering, sync, echo], file: path })
    }

    /// What was measured since the last time.
    pub(super) fn drain(&self) -> [Latencies; CONTROLS.len()] {
        std::mem::replace(
            &mut *self.recorded.lock().expect("nobody panics with it"),
            [latencies(), latencies()],
        )
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        let _ = std::fs::remove_file(&self.file);
    }
}
