//! Reads a command's stdout and stderr side by side, in bounded memory.

use std::io;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::capture::{Capture, Captured};

/// After the exit: so long without a byte, and reading ends.
const SILENCE: Duration = Duration::from_millis(250);
/// After the exit: reading ends however much comes.
const IN_ALL: Duration = Duration::from_secs(2);

/// One stream.
#[derive(Debug)]
struct Stream {
    /// `None` when the last writer has closed it.
    pipe: Option<pipe::Receiver>,
    capture: Capture,
    tap: Option<Tap>,
}

/// Somebody who is given everything that is read, and for whom reading waits.
#[derive(Debug)]
struct Tap {
    sender: mpsc::Sender<Vec<u8>>,
    /// What is read already and not given yet.
    held: Option<Vec<u8>>,
}

impl Stream {
    fn new(pipe: pipe::Receiver, limit: usize) -> Self {
        Self { pipe: Some(pipe), capture: Capture::new(limit), tap: None }
    }

    /// Gives away what is held for the tap. Cancel safe: it is given only once there is room.
    async fn settle(&mut self) {
        let Some(tap) = &mut self.tap else { return };
        if tap.held.is_none() {
            return;
        }
        let listens = match tap.sender.reserve().await {
            Ok(room) => {
                if let Some(chunk) = tap.held.take() {
                    room.send(chunk);
                }
                true
            }
            Err(_) => false,
        };
        if !listens {
            self.tap = None;
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.capture.push(chunk);
        if let Some(tap) = &mut self.tap {
            tap.held = Some(chunk.to_vec());
        }
    }

    /// Cancel safe: waits, takes nothing.
    async fn readable(&self) {
        match &self.pipe {
            // An error shows at the read as well.
            Some(pipe) => drop(pipe.readable().await),
            None => std::future::pending().await,
        }
    }

    /// One read. True when something came, the end included.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        match pipe.try_read(buffer) {
            Ok(count) if count > 0 => self.push(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Ok(_) | Err(_) => self.pipe = None,
        }
        true
    }
}

/// Both streams, and one buffer for them.
#[derive(Debug)]
pub(super) struct Output {
    stdout: Stream,
    stderr: Stream,
    buffer: Vec<u8>,
}

impl Output {
    pub(super) fn new(stdout: pipe::Receiver, stderr: pipe::Receiver, limit: usize) -> Self {
        Self {
            stdout: Stream::new(stdout, limit),
            stderr: Stream::new(stderr, limit),
            buffer: vec![0; 64 << 10],
        }
    }

    /// Gives all of stdout to `tap` as it comes, and keeps none of it. Reading waits for whoever
    /// takes it there.
    pub(super) fn tap_stdout(&mut self, tap: mpsc::Sender<Vec<u8>>) {
        self.stdout.tap = Some(Tap { sender: tap, held: None });
        self.stdout.capture = Capture::new(0);
    }

    /// True when both streams have ended.
    pub(super) fn is_over(&self) -> bool {
        self.stdout.pipe.is_none() && self.stderr.pipe.is_none()
    }

    /// Reads what comes next; for ever pending when both streams have ended. Cancel safe: it waits
    /// before it reads, and what was read is kept at once.
    pub(super) async fn read_some(&mut self) {
        loop {
            let (stdout, stderr) = (&mut self.stdout, &self.stderr);
            let stdout_readable = async {
                stdout.settle().await;
                stdout.readable().await;
            };
            // Both arms only wait, or give away what is held, so the one that loses has lost
            // nothing.
            let stream = tokio::select! {
                () = stdout_readable => &mut self.stdout,
                () = stderr.readable() => &mut self.stderr,
            };
            if stream.read(&mut self.buffer) {
                return;
            }
        }
    }

    /// Reads what is still in the pipes after the exit.
    pub(super) async fn read_rest(&mut self) {
        let mut end = Instant::now() + IN_ALL;
        loop {
            // The tap's slowness is not the writer's.
            let asked = Instant::now();
            self.stdout.settle().await;
            end += asked.elapsed();
            if self.is_over() {
                return;
            }
            let until = end.min(Instant::now() + SILENCE);
            // A flood never lets the timer win, so the clock is asked as well.
            if timeout_at(until, self.read_some()).await.is_err() || Instant::now() >= end {
                return;
            }
        }
    }

    /// Stdout and stderr, as kept. Closes the pipes.
    pub(super) fn finish(self) -> (Captured, Captured) {
        (self.stdout.capture.finish(), self.stderr.capture.finish())
    }
}
