//! The shim's end of the control socket, which is its standard input.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send,
};

use crate::process::wire::{self, DESCRIPTORS, Descriptors, Inbox, Order, Report, Start};

/// What came over the socket since the last look.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) orders: Vec<Order>,
    /// The other end is closed.
    pub(super) closed: bool,
}

/// What is to be run.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) start: Start,
    pub(super) strings: Vec<u8>,
    pub(super) descriptors: Descriptors,
}

#[derive(Debug)]
pub(super) struct Control {
    socket: BorrowedFd<'static>,
    inbox: Inbox,
}

impl Control {
    /// Waits for the whole request.
    pub(super) fn accept() -> io::Result<(Self, Request)> {
        let socket = rustix::stdio::stdin();
        let mut inbox = Inbox::default();
        let mut descriptors = Vec::new();
        let mut start = None;
        loop {
            if start.is_none() {
                start = inbox.json::<Start>()?;
            }
            if start.is_some()
                && let Some(strings) = inbox.frame()?
            {
                let fed = start.as_ref().is_some_and(|start| start.fed);
                let descriptors = Descriptors::from_list(descriptors, fed);
                let (Some(start), Some(descriptors)) = (start, descriptors) else {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                };
                return Ok((Self { socket, inbox }, Request { start, strings, descriptors }));
            }
            receive(socket, &mut inbox, &mut descriptors)?;
        }
    }

    /// Tells the gateway. When it is gone, nobody is there to hear it, and the socket's end shows.
    pub(super) fn report(&mut self, report: &Report) {
        let mut frame = Vec::new();
        if wire::push_json(&mut frame, report).is_err() {
            return;
        }
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match send(self.socket, rest, SendFlags::empty()) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Reads what is there, without waiting.
    pub(super) fn news(&mut self) -> News {
        let mut news = News::default();
        let mut buffer = [0; 4096];
        loop {
            match recv(self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => news.closed = true,
                Ok((count, _)) => {
                    self.inbox.push(&buffer[..count]);
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                Err(_) => news.closed = true,
            }
            break;
        }
        loop {
            match self.inbox.json() {
                Ok(Some(order)) => news.orders.push(order),
                Ok(None) => return news,
                // Who speaks another language is not our gateway.
                Err(_) => {
                    news.closed = true;
                    return news;
                }
            }
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket
    }
}

/// Reads once, waiting, and takes the descriptors that come along.
fn receive(
    socket: BorrowedFd<'_>,
    inbox: &mut Inbox,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let received = match recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::empty()) {
        Ok(received) => received.bytes,
        Err(Errno::INTR) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    // Not by a flag of `recvmsg`, which macOS lacks; one thread, so nothing is started in between.
    for descriptor in descriptors.iter() {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?;
    }
    if received == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    inbox.push(&buffer[..received]);
    Ok(())
}
