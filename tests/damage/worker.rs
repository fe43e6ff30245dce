//! A process that is asked again and again what a process of its own each time would be asked: `jeton`'s own command line,
//! called as a function. Its streams are files, so that its words are those of the real binary; it is asked, and says
//! with what code it ended, over a socket in the place of its input.
//!
//! A panic, an abort or a hang ends the process. Whoever asks sees that, and starts another.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Output};
use std::time::Duration;

use clap::Parser as _;

use crate::work_dir;

/// The argument that makes the `damage` binary a worker.
pub const WORKER: &str = "worker";
/// The codes that `jeton` ends with.
const CODES: [u8; 3] = [0, 1, 2];

/// A worker, from the side of whoever asks; killed when dropped.
#[derive(Debug)]
pub struct Worker {
    process: Child,
    socket: UnixStream,
    streams: tempfile::TempDir,
}

impl Worker {
    /// Starts one on a data directory. `program` is the `damage` binary.
    ///
    /// # Errors
    /// The system's.
    pub fn start(program: &Path, data: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(WORKER).env("JETON_DATA", data);
        Self::start_as(command)
    }

    fn start_as(mut command: Command) -> io::Result<Self> {
        let streams = work_dir();
        let stream = |name| File::options().create(true).append(true).open(streams.path().join(name));
        let (socket, theirs) = UnixStream::pair()?;
        command.stdin(OwnedFd::from(theirs)).stdout(stream("stdout")?).stderr(stream("stderr")?);
        Ok(Self { process: command.spawn()?, socket, streams })
    }

    /// What `jeton` with these arguments comes to; `None` if there is no answer in time. After that, or if the output says
    /// that the process ended, there is nothing more to be asked of this worker.
    ///
    /// # Errors
    /// The system's.
    pub fn ask(&mut self, arguments: &[&str], patience: Duration) -> io::Result<Option<Output>> {
        for stream in ["stdout", "stderr"] {
            File::options().write(true).open(self.path(stream))?.set_len(0)?;
        }
        self.socket.set_read_timeout(Some(patience))?;
        let mut code = [0];
        let asked = self.socket.write_all(format!("{}\n", arguments.join(" ")).as_bytes());
        let status = match asked.and_then(|()| self.socket.read_exact(&mut code)) {
            Ok(()) => ExitStatus::from_raw(i32::from(code[0]) << 8),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            // It has closed its end: it is gone, or about to be.
            Err(_) => self.process.wait()?,
        };
        let (stdout, stderr) = (fs::read(self.path("stdout"))?, fs::read(self.path("stderr"))?);
        Ok(Some(Output { status, stdout, stderr }))
    }

    fn path(&self, stream: &str) -> PathBuf {
        self.streams.path().join(stream)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The worker itself: answers until nobody asks any more.
///
/// # Errors
/// The system's.
pub fn work() -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let questions = BufReader::new(socket.try_clone()?);
    for question in questions.lines() {
        let question = question?;
        let arguments = std::iter::once("jeton").chain(question.split(' '));
        let arguments = jeton::cli::Arguments::try_parse_from(arguments).map_err(io::Error::other)?;
        let ended = jeton::cli::run(arguments);
        let code = CODES.into_iter().find(|code| ExitCode::from(*code) == ended);
        socket.write_all(&[code.ok_or_else(|| io::Error::other("a code that jeton does not have"))?])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn shell(script: &str) -> Worker {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Worker::start_as(command).unwrap()
    }

    #[test]
    fn a_worker_that_hangs_or_dies_is_noticed_with_its_words() {
        let mut hangs = shell("exec sleep 1000");
        assert!(hangs.ask(&["log", "verify"], Duration::from_millis(50)).unwrap().is_none());
        let mut dies = shell("read question; echo \"$question\" >&2; kill -ABRT $$");
        let output = dies.ask(&["log", "verify"], Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!((output.status.code(), output.status.signal()), (None, Some(6)));
        assert_eq!(output.stderr, b"log verify\n");
    }
}
