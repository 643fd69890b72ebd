//! What a gateway and a run's shim say to each other over the control socket.
//!
//! Both ends are the same binary, so the format is private and carries no version. A frame is a
//! length (4 bytes, little endian) and that many bytes. The gateway sends [`Start`] as JSON, then one
//! frame of NUL-terminated strings (see [`Strings`]), then [`Order`]s as JSON; the descriptors travel
//! with the first byte, in the order of [`Descriptors`]. The shim answers with [`Report`]s as JSON.
//! What a start needs later (a terminal) are further fields of [`Start`] and further descriptors; a further stop sequence is a further variant.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Background, Confine, Exit, RunSpec, StopSequence};

/// Far above what the kernel takes as arguments and environment of one command.
const FRAME_LIMIT: usize = 32 << 20;

/// The environment variable that names the run in each of its processes.
pub(super) const MARKER: &str = "PANORAMA_RUN_ID";

/// The first frame.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) umask: u32,
    pub(super) stop: StopSequence,
    pub(super) background: Background,
    /// A descriptor for the command's stdin comes along.
    pub(super) fed: bool,
    /// How many of the strings are arguments.
    pub(super) args: usize,
    /// As whom and in which cgroup the command runs, where that is not the shim's.
    pub(super) confine: Option<Confine>,
}

/// Both ends of the command's stdout and stderr, and its end of stdin when it is fed.
#[derive(Debug)]
pub(super) struct Descriptors {
    pub(super) stdout: Ends,
    pub(super) stderr: Ends,
    pub(super) stdin: Option<OwnedFd>,
}

/// Both ends of a pipe.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

/// How many descriptors a start carries at most.
pub(super) const DESCRIPTORS: usize = 5;

impl Descriptors {
    /// In the order in which they were sent; the last one is there for a command that is `fed`.
    pub(super) fn from_list(mut list: Vec<OwnedFd>, fed: bool) -> Option<Self> {
        let stdin = if fed { Some(list.pop()?) } else { None };
        let [stdout_read, stdout_write, stderr_read, stderr_write] =
            <[OwnedFd; DESCRIPTORS - 1]>::try_from(list).ok()?;
        Some(Self {
            stdout: Ends { read: stdout_read, write: stdout_write },
            stderr: Ends { read: stderr_read, write: stderr_write },
            stdin,
        })
    }
}

/// What the gateway wants of a shim whose command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Carry out the stop sequence.
    Stop,
}

/// What a shim has to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The command runs.
    Started { pid: u32, start: u64 },
    /// The command does not run. The last report.
    Failed { step: Step, errno: i32 },
    /// The command ended. The last report.
    Exited(Exited),
}

/// At what a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// Making the shim what it must be.
    Prepare,
    /// Entering the working directory.
    WorkDir,
    /// Starting the program.
    Program,
    /// Entering the cgroup.
    Cgroup,
    /// Becoming the user.
    User,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exited {
    pub(super) exit: Exit,
    /// From start to exit of the leader.
    pub(super) nanoseconds: u64,
    /// A stop sequence had begun before the leader ended.
    pub(super) stopped: bool,
    /// Processes, or holders of the pipes, were left on purpose.
    pub(super) background: bool,
    /// Processes of the run could not be killed; the shim goes on trying.
    pub(super) stuck: bool,
}

/// The strings of a start: working directory, program, arguments, environment as `NAME=value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Strings<'a> {
    pub(super) cwd: &'a CStr,
    pub(super) program: &'a CStr,
    pub(super) args: Vec<&'a CStr>,
    pub(super) env: Vec<&'a CStr>,
}

impl<'a> Strings<'a> {
    /// Reads what [`strings_of`] wrote; `None` when it is not that.
    pub(super) fn read(block: &'a [u8], args: usize) -> Option<Self> {
        let mut strings = block
            .split_inclusive(|byte| *byte == 0)
            .map(|bytes| CStr::from_bytes_with_nul(bytes).ok())
            .collect::<Option<Vec<_>>>()?
            .into_iter();
        let (cwd, program) = (strings.next()?, strings.next()?);
        let arguments: Vec<_> = strings.by_ref().take(args).collect();
        (arguments.len() == args).then(|| Self {
            cwd,
            program,
            args: arguments,
            env: strings.collect(),
        })
    }
}

/// The strings of a run as one block. Refuses what cannot be passed to a program: a NUL inside.
pub(super) fn strings_of(spec: &RunSpec, run_id: &str) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(8 << 10);
    push(&mut block, "the working directory", &[spec.cwd.as_os_str()])?;
    push(&mut block, "the program's name", &[&spec.program])?;
    for arg in &spec.args {
        push(&mut block, "an argument", &[arg])?;
    }
    let equals = OsStr::new("=");
    for (name, value) in spec.env.iter().filter(|(name, _)| name != MARKER) {
        push(&mut block, "an environment variable", &[name, equals, value])?;
    }
    push(&mut block, "the run's id", &[OsStr::new(MARKER), equals, OsStr::new(run_id)])?;
    Ok(block)
}

fn push(block: &mut Vec<u8>, what: &str, parts: &[&OsStr]) -> io::Result<()> {
    for part in parts {
        if part.as_bytes().contains(&0) {
            let text = format!("{what} contains a NUL byte");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        block.extend_from_slice(part.as_bytes());
    }
    block.push(0);
    Ok(())
}

/// Appends a frame.
pub(super) fn push_frame(to: &mut Vec<u8>, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= FRAME_LIMIT);
    let Some(length) = length else {
        return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong));
    };
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(payload);
    Ok(())
}

/// Appends a frame of JSON.
pub(super) fn push_json<T: Serialize>(to: &mut Vec<u8>, message: &T) -> io::Result<()> {
    push_frame(to, &serde_json::to_vec(message)?)
}

/// Bytes that came in, cut into frames.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(super) fn frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if length > FRAME_LIMIT {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let Some(payload) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.bytes.drain(..4 + length);
        Ok(Some(payload))
    }

    /// The next whole frame, read as JSON.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        Ok(self.frame()?.map(|frame| serde_json::from_slice(&frame)).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::time::Duration;

    use super::*;

    fn spec(args: &[&[u8]]) -> RunSpec {
        RunSpec {
            program: "/bin/echo".into(),
            args: args.iter().map(|arg| OsString::from_vec(arg.to_vec())).collect(),
            env: vec![("A".into(), "1=2".into()), (MARKER.into(), "outer".into())],
            cwd: "/".into(),
            umask: 0o22,
            stop: StopSequence::Shell { grace: Duration::from_secs(2) },
            background: Background::Swept,
            stdin: None,
            confine: Confine::default(),
            capture_limit: 10,
        }
    }

    #[test]
    fn strings_come_back_byte_by_byte() {
        let block = strings_of(&spec(&[b"", b"\xff\n", b"x"]), "id").unwrap();
        let strings = Strings::read(&block, 3).unwrap();
        assert_eq!((strings.cwd, strings.program), (c"/", c"/bin/echo"));
        assert_eq!(strings.args, [c"", c"\xff\n", c"x"]);
        assert_eq!(strings.env, [c"A=1=2", c"PANORAMA_RUN_ID=id"]);
        assert_eq!(Strings::read(&block, 6), None);
        assert_eq!(Strings::read(&block[..block.len() - 1], 3), None);
    }

    #[test]
    fn a_nul_inside_is_refused_with_its_place() {
        let error = strings_of(&spec(&[b"a\0b"]), "id").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "an argument contains a NUL byte");
    }

    #[test]
    fn frames_come_back_whatever_the_pieces() {
        let mut bytes = Vec::new();
        push_json(&mut bytes, &Order::Stop).unwrap();
        push_frame(&mut bytes, b"").unwrap();
        push_frame(&mut bytes, b"abc").unwrap();
        for size in 1..bytes.len() {
            let mut inbox = Inbox::default();
            let mut frames = Vec::new();
            for piece in bytes.chunks(size) {
                inbox.push(piece);
                while let Some(frame) = inbox.frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, [b"\"stop\"".to_vec(), vec![], b"abc".to_vec()]);
        }
    }

    #[test]
    fn a_frame_over_the_bound_is_an_error() {
        let mut inbox = Inbox::default();
        inbox.push(&u32::MAX.to_le_bytes());
        assert_eq!(inbox.frame().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let large = vec![0; FRAME_LIMIT + 1];
        let error = push_frame(&mut Vec::new(), &large).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ArgumentListTooLong);
    }
}
