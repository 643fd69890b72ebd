//! What the old process and its replacement say to each other: one JSON object a line over a socket
//! pair, which is the replacement's standard input.
//!
//! The replacement says [`FromNew::Ready`]; then the old one sends [`FromOld::TakeOver`] with the
//! descriptor of the instance lock; then the replacement says [`FromNew::Up`]. Unknown fields are
//! ignored, so that other versions may say more.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

const LONGEST_LINE: usize = 64 * 1024;

/// What the replacement says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub(super) enum FromNew {
    /// It could take over.
    Ready {
        /// Its version.
        version: String,
    },
    /// The backend has accepted its `ready` heartbeat.
    Up,
    /// It gives up; why, one line.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What the old process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub(super) enum FromOld {
    /// The descriptor of the instance lock comes along.
    TakeOver {
        /// The old process speaks with its service manager; from now on the new one does.
        #[serde(default)]
        service: bool,
    },
}

/// One end.
#[derive(Debug)]
pub(super) struct Line {
    stream: UnixStream,
    inbox: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

impl Line {
    pub(super) fn new(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        Ok(Self { stream, inbox: Vec::new(), descriptor: None })
    }

    /// Says a word. It fits into the socket's buffer, so this never waits.
    pub(super) fn say(
        &self,
        word: &impl Serialize,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let parts = [IoSlice::new(&line)];
        let sent = sendmsg(&self.stream, &parts, &mut ancillary, SendFlags::empty())?;
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The next word; `None` when the other end is closed. Cancel safe: what came in stays.
    pub(super) async fn hear<W: DeserializeOwned>(&mut self) -> io::Result<Option<W>> {
        loop {
            if let Some(end) = self.inbox.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.inbox.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.inbox.len() > LONGEST_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.receive().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Waits until the other end is closed. Cancel safe.
    pub(super) async fn closed(&mut self) {
        // Whatever else it says, nobody minds any more.
        while matches!(self.hear::<serde_json::Value>().await, Ok(Some(_))) {}
    }

    /// The descriptor that came with what was heard.
    pub(super) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    async fn receive(&mut self) -> io::Result<usize> {
        let stream = &self.stream;
        let (bytes, descriptor) = stream
            .async_io(Interest::READABLE, || {
                let mut buffer = [0; 4096];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let mut parts = [IoSliceMut::new(&mut buffer)];
                let received = match recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::empty())
                {
                    Ok(received) => received.bytes,
                    // The other process died with something of ours unread.
                    Err(rustix::io::Errno::CONNRESET) => 0,
                    Err(error) => return Err(error.into()),
                };
                let mut descriptor = None;
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        descriptor = rights.last();
                    }
                }
                Ok((buffer[..received].to_vec(), descriptor))
            })
            .await?;
        if let Some(descriptor) = descriptor {
            // Not by a flag of `recvmsg`, which macOS lacks.
            rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
            self.descriptor = Some(descriptor);
        }
        self.inbox.extend_from_slice(&bytes);
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (Line, Line) {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        (Line::new(one).unwrap(), Line::new(other).unwrap())
    }

    #[tokio::test]
    async fn words_and_a_descriptor_come_over_and_the_end_shows() {
        let (old, mut new) = pair();
        let file = tempfile::tempfile().unwrap();
        old.say(&FromOld::TakeOver { service: false }, Some(file.as_fd())).unwrap();
        assert_eq!(new.hear().await.unwrap(), Some(FromOld::TakeOver { service: false }));
        assert!(new.descriptor().is_some());
        let mut old = old;
        for word in [
            FromNew::Ready { version: "1.2.3".into() },
            FromNew::Up,
            FromNew::Failed { reason: "no".into() },
        ] {
            new.say(&word, None).unwrap();
            assert_eq!(old.hear().await.unwrap(), Some(word));
        }
        drop(new);
        assert_eq!(old.hear::<FromNew>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_word_that_comes_in_pieces_with_more_fields_is_understood() {
        let (old, mut new) = pair();
        for piece in ["{\"word\":\"take", "_over\",\"later\":7}\n{\"wo"] {
            rustix::io::write(&old.stream, piece.as_bytes()).unwrap();
        }
        assert_eq!(new.hear().await.unwrap(), Some(FromOld::TakeOver { service: false }));
        rustix::io::write(&old.stream, b"rd\":\"sing\"}\n").unwrap();
        assert!(new.hear::<FromOld>().await.is_err());
    }

    #[tokio::test]
    async fn a_flood_without_a_line_end_is_an_error() {
        let (old, mut new) = pair();
        let flood = async {
            loop {
                old.stream.writable().await.unwrap();
                if old
                    .stream
                    .try_write(&[b'x'; 4096])
                    .is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock)
                {
                    return;
                }
            }
        };
        tokio::select! {
            () = flood => {}
            heard = new.hear::<FromOld>() => assert!(heard.is_err()),
        }
    }
}
