//! Starting a shim: the binary, the control socket, the pipes.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Once, OnceLock};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::RunSpec;
use super::shim::SHIM_WORD;
use super::wire::{self, DESCRIPTORS, Inbox, Report, Start};

static SHIM_BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Names the binary that serves as shim, for programs that use this library and are not the
/// gateway's binary (its tests). To be called before the first run; later calls change nothing.
pub fn set_shim_binary(path: impl Into<PathBuf>) {
    SHIM_BINARY.get_or_init(|| path.into());
}

/// `/proc/self/exe` is this very binary even after an upgrade has replaced its file. Where it is
/// missing, the path that this process was started from is remembered at first use.
fn shim_binary() -> &'static Path {
    SHIM_BINARY.get_or_init(|| {
        let link = Path::new("/proc/self/exe");
        if link.exists() {
            return link.to_owned();
        }
        std::env::current_exe().unwrap_or_else(|_| "panorama-gateway".into())
    })
}

/// A shim under way, with the gateway's ends.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) child: Child,
    pub(super) control: Control,
    /// When the command is fed.
    pub(super) stdin: Option<pipe::Sender>,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}

/// Starts a shim and hands it the run.
pub(super) async fn start(spec: &RunSpec, run_id: &str) -> io::Result<Shim> {
    let request = request(spec, run_id)?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let (stdout, stdout_write) = io::pipe()?;
    let (stderr, stderr_write) = io::pipe()?;
    let stdin = spec.stdin.as_ref().map(|_| io::pipe()).transpose()?;
    let child = spawn(theirs.into(), run_id)?;
    ours.set_nonblocking(true)?;
    let control = Control { stream: UnixStream::from_std(ours)?, inbox: Inbox::default() };
    let mut descriptors =
        vec![stdout.as_fd(), stdout_write.as_fd(), stderr.as_fd(), stderr_write.as_fd()];
    descriptors.extend(stdin.as_ref().map(|(read, _)| read.as_fd()));
    control.send_with(&request, &descriptors).await?;
    // Our copy of the read end is closed: a command that has ended must show at the next write.
    let stdin = stdin.map(|(_, write)| pipe::Sender::from_owned_fd(write.into())).transpose()?;
    Ok(Shim {
        child,
        control,
        stdin,
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
    })
}

fn request(spec: &RunSpec, run_id: &str) -> io::Result<Vec<u8>> {
    let start = Start {
        umask: spec.umask,
        stop: spec.stop,
        background: spec.background,
        fed: spec.stdin.is_some(),
        args: spec.args.len(),
        confine: Some(&spec.confine).filter(|confine| !confine.is_nothing()).cloned(),
    };
    let mut request = Vec::new();
    wire::push_json(&mut request, &start)?;
    wire::push_frame(&mut request, &wire::strings_of(spec, run_id)?)?;
    Ok(request)
}

/// The shim's own environment is empty but for the marker: what a job sets for its command (such as
/// `LD_PRELOAD`) must have no hold on its supervisor.
fn spawn(control: OwnedFd, run_id: &str) -> io::Result<Child> {
    handle_child_signals()?;
    let mut command = Command::new(shim_binary());
    command
        .arg0(env!("CARGO_PKG_NAME"))
        .arg(OsStr::new(SHIM_WORD))
        .env_clear()
        .env(wire::MARKER, run_id)
        .stdin(Stdio::from(control))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _blocked = SignalsBlocked::on_this_thread()?;
    command.spawn()
}

/// A process that ignores SIGCHLD hands that down, and then its children cannot wait for theirs. A
/// handler is not handed down. It also makes tokio reap shims that outlive their [`super::Run`].
fn handle_child_signals() -> io::Result<()> {
    static HANDLED: Once = Once::new();
    let mut result = Ok(());
    HANDLED.call_once(|| result = signal(SignalKind::child()).map(drop));
    result
}

/// All signals blocked on this thread, so that a shim is born with them blocked.
struct SignalsBlocked(SigSet);

impl SignalsBlocked {
    fn on_this_thread() -> io::Result<Self> {
        Ok(Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // Fails only for an argument that is no mask.
        self.0.thread_set_mask().ok();
    }
}

/// The gateway's end of a control socket. Closing it ends the run, or lets its background work be.
#[derive(Debug)]
pub(super) struct Control {
    stream: UnixStream,
    inbox: Inbox,
}

impl Control {
    /// Sends everything; the descriptors go with the first byte.
    async fn send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut sent = self
            .stream
            .async_io(Interest::WRITABLE, || {
                let mut space =
                    [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
                let parts = [IoSlice::new(bytes)];
                Ok(sendmsg(&self.stream, &parts, &mut ancillary, SendFlags::empty())?)
            })
            .await?;
        while sent < bytes.len() {
            let rest = &bytes[sent..];
            let write = || Ok(send(&self.stream, rest, SendFlags::empty())?);
            sent += self.stream.async_io(Interest::WRITABLE, write).await?;
        }
        Ok(())
    }

    /// Gives an order. A shim that is gone shows at the next report.
    pub(super) fn order(&self, order: wire::Order) {
        let mut frame = Vec::new();
        if wire::push_json(&mut frame, &order).is_ok() {
            // A frame of some bytes: there is room for it, for the shim reads what was sent before.
            self.stream.try_write(&frame).ok();
        }
    }

    /// The next report; `None` when the shim has closed its end. Cancel safe: what came in stays in
    /// the inbox.
    pub(super) async fn report(&mut self) -> io::Result<Option<Report>> {
        let mut buffer = [0; 1024];
        loop {
            if let Some(report) = self.inbox.json()? {
                return Ok(Some(report));
            }
            self.stream.readable().await?;
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.inbox.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
