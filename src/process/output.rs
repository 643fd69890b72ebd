//! Reads a command's stdout and stderr side by side, in bounded memory.

use std::io;
use std::time::Duration;

use tokio::net::unix::pipe;
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
}

impl Stream {
    fn new(pipe: pipe::Receiver, limit: usize) -> Self {
        Self { pipe: Some(pipe), capture: Capture::new(limit) }
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
            Ok(count) if count > 0 => self.capture.push(&buffer[..count]),
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

    /// True when both streams have ended.
    pub(super) fn is_over(&self) -> bool {
        self.stdout.pipe.is_none() && self.stderr.pipe.is_none()
    }

    /// Reads what comes next; for ever pending when both streams have ended. Cancel safe: it waits
    /// before it reads, and what was read is kept at once.
    pub(super) async fn read_some(&mut self) {
        loop {
            let (stdout, stderr) = (&self.stdout, &self.stderr);
            // Both arms only wait, so the one that loses has lost nothing.
            let stream = tokio::select! {
                () = stdout.readable() => &mut self.stdout,
                () = stderr.readable() => &mut self.stderr,
            };
            if stream.read(&mut self.buffer) {
                return;
            }
        }
    }

    /// Reads what is still in the pipes after the exit.
    pub(super) async fn read_rest(&mut self) {
        let end = Instant::now() + IN_ALL;
        while !self.is_over() {
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
