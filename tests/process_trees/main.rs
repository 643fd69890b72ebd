//! Real process trees under the real run shim.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail where it stands")]

mod background;
mod ending;
mod input;
mod output;
mod plans;
mod starting;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use panorama_gateway::process::{
    Background, Outcome, Run, RunError, RunSpec, StopSequence, set_shim_binary,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Generous, for machines under load; nothing waits for it that succeeds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command under the shim of the real binary, with `PATH` as its environment.
fn spec(program: &str, args: &[&str]) -> RunSpec {
    set_shim_binary(env!("CARGO_BIN_EXE_panorama-gateway"));
    RunSpec {
        program: program.into(),
        args: args.iter().map(OsString::from).collect(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        cwd: "/".into(),
        umask: 0o022,
        stop: StopSequence::Shell { grace: Duration::from_millis(300) },
        background: Background::Swept,
        stdin: None,
        confine: panorama_gateway::process::Confine::default(),
        capture_limit: 5_000_000,
    }
}

fn bash(script: &str) -> RunSpec {
    spec("bash", &["-c", script])
}

fn allowing_background(spec: RunSpec) -> RunSpec {
    RunSpec { background: Background::Allowed, ..spec }
}

/// Runs to the end without a limit.
async fn run(spec: RunSpec) -> Result<Outcome, RunError> {
    Run::spawn(spec).await?.wait(None, &CancellationToken::new()).await
}

/// Waits until `condition` gives something, at most `within`.
async fn eventually<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A process as it reported itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reported {
    label: String,
    pid: u32,
    start: u64,
}

impl Reported {
    /// State letter, while the process is in the table (zombies are, as `Z`).
    fn state(&self) -> Option<char> {
        let (state, start) = stat(self.pid)?;
        (start == self.start).then_some(state)
    }
}

/// State and start time of a pid.
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some((fields[0].chars().next()?, fields[19].parse().ok()?))
}

/// A tree grown by `tree.py`, and the folder in which it keeps its log.
struct Tree {
    folder: tempfile::TempDir,
    members: Vec<&'static str>,
}

impl Tree {
    fn new(members: &[&'static str]) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), members: members.to_vec() }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn spec(&self) -> RunSpec {
        tree_spec(&self.log(), &self.members)
    }

    /// What has been reported so far.
    fn reported(&self) -> Vec<Reported> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let line = |line: &str| {
            let mut fields = line.split(' ');
            Some(Reported {
                label: fields.next()?.to_owned(),
                pid: fields.next()?.parse().ok()?,
                start: fields.next()?.parse().ok()?,
            })
        };
        text.split_inclusive('\n')
            .filter(|text| text.ends_with('\n'))
            .map(|text| line(text.trim_end()).unwrap_or_else(|| panic!("not a report: {text:?}")))
            .collect()
    }

    /// All members, once they are there.
    async fn grown(&self) -> Vec<Reported> {
        eventually("the tree has grown", PATIENCE, || {
            let reported = self.reported();
            (reported.len() == self.members.len() + 1).then_some(reported)
        })
        .await
    }

    /// Every member, zombies included, is gone within 5 s.
    async fn is_gone(&self) {
        let members = self.reported();
        assert_eq!(members.len(), self.members.len() + 1, "the tree had grown: {members:?}");
        eventually("the tree is gone", Duration::from_secs(5), || {
            members.iter().all(|member| member.state().is_none()).then_some(())
        })
        .await;
    }
}

fn tree_spec(log: &Path, members: &[&str]) -> RunSpec {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process_trees/tree.py");
    let mut spec = spec("python3", &["-S", "-E", script]);
    spec.args.push(log.into());
    spec.args.extend(members.iter().map(OsString::from));
    spec
}
