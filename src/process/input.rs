//! Feeds a command's stdin.

use std::io::ErrorKind;

use tokio::net::unix::pipe;

/// What is still to be written, and where to. Dropping it closes the pipe.
#[derive(Debug)]
pub(super) struct Input {
    /// `None` when everything is written, or when nobody reads.
    pipe: Option<pipe::Sender>,
    bytes: Vec<u8>,
    written: usize,
}

impl Input {
    pub(super) fn new(pipe: Option<pipe::Sender>, bytes: Vec<u8>) -> Self {
        let pipe = pipe.filter(|_| !bytes.is_empty());
        Self { pipe, bytes, written: 0 }
    }

    /// Writes what the pipe takes; for ever pending when there is nothing to write. A command that
    /// has closed its stdin does not want the rest. Cancel safe: it waits before it writes, and what
    /// was written is counted at once.
    pub(super) async fn write_some(&mut self) {
        let Some(pipe) = &self.pipe else { return std::future::pending().await };
        // An error shows at the write as well.
        pipe.writable().await.ok();
        match pipe.try_write(&self.bytes[self.written..]) {
            Ok(count) => self.written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => self.written = self.bytes.len(),
        }
        if self.written >= self.bytes.len() {
            self.pipe = None;
            self.bytes = Vec::new();
        }
    }
}
