//! What must hold after all faults are over.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::lane::{Lane, Submitted};
use super::plan::Kind;
use super::runs;

/// Bytes that are kept of a stream.
const KEPT: usize = 5_000_000;
/// Work that was left on purpose ends by itself within this.
const WORK_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Looks at a lane whose gateway has been stopped.
pub(crate) async fn judge(lane: &Lane<'_>) {
    nothing_is_left(lane).await;
    judge_jobs(lane);
    runs::judge(lane);
    judge_secrets(lane);
    judge_permissions(lane);
    let rotations = lane.middleman.seen();
    let rotations = rotations.iter().filter(|seen| seen.path.ends_with("/token")).count();
    lane.saw("refreshes of sessions", rotations);
}

async fn nothing_is_left(lane: &Lane<'_>) {
    let deadline = Instant::now() + WORK_ENDS_WITHIN;
    loop {
        let left = lane.marks.left(lane.machine.home());
        if left.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            lane.violation(&format!("processes are left: {left:?}"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn judge_jobs(lane: &Lane<'_>) {
    let counts = lane.marks.counts();
    let ran = |name: &str| counts.get(name).copied().unwrap_or(0);
    let kills = lane.kills.lock().unwrap();
    for job in lane.jobs.lock().unwrap().iter() {
        let name = &job.planned.name;
        let Some(row) = job.row.as_ref().filter(|_| job.run.is_none()) else { continue };
        let later = ran(&format!("{name}-later"));
        match verdict(job, row, ran(name), later, &kills) {
            Ok(outcome) => lane.outcome(outcome),
            Err(reason) => {
                let text: String = row.to_string().chars().take(1_500).collect();
                lane.outcome("VIOLATION");
                lane.violation(&format!("{:?}: {reason}; ran {}: {text}", job.planned, ran(name)));
            }
        }
    }
}

/// How a job ended, or what is wrong with that.
fn verdict(
    job: &Submitted,
    row: &Value,
    ran: usize,
    later: usize,
    kills: &[(Timestamp, Timestamp)],
) -> Result<&'static str, String> {
    let kind = job.planned.kind;
    let may_be_cancelled = matches!(kind, Kind::IsCancelled | Kind::IsCancelledAtOnce);
    match row["status"].as_str() {
        // The limit may pass before the shell has come to its first word.
        Some("completed") if ran == 0 && matches!(kind, Kind::HitsItsLimit(_)) => {
            is_result(job, &row["result"])?;
            Ok("completed at its limit before its first word")
        }
        Some("completed") if ran != 1 => Err("completed, but not run once".to_owned()),
        Some("completed") => {
            is_result(job, &row["result"])?;
            if kind == Kind::LeavesWork && later != 1 {
                return Err(format!("the work that it left came to its end {later} times"));
            }
            Ok("completed, ran once")
        }
        Some("cancelled") if may_be_cancelled && ran <= 1 => Ok("cancelled by its row"),
        Some("failed") if row["result"]["error_code"] == "gateway_restarted" => {
            if ran > 1 || later > 1 {
                return Err("run more than once".to_owned());
            }
            if !died_over(row, kills)? {
                return Err("no gateway died over it".to_owned());
            }
            Ok(match ran {
                0 => "gateway_restarted before it ran",
                _ => "gateway_restarted, ran once",
            })
        }
        _ => Err("it ended in no way that a fault explains".to_owned()),
    }
}

pub(super) fn died_over(row: &Value, kills: &[(Timestamp, Timestamp)]) -> Result<bool, String> {
    let time = |name: &str| row[name].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let (Some(started), Some(completed)) = (time("started_at"), time("completed_at")) else {
        return Err("it has no times".to_owned());
    };
    // Wire times have milliseconds.
    let slack = Duration::from_millis(1);
    Ok(kills.iter().any(|kill| kill.1 + slack >= started && kill.0 <= completed + slack))
}

/// The result is what the command wrote.
fn is_result(job: &Submitted, result: &Value) -> Result<(), String> {
    let line = format!("result of {}\n", job.planned.name);
    let is = |name: &str, value: Value| result[name] == value;
    let right = match job.planned.kind {
        Kind::Prints | Kind::IsCancelledAtOnce | Kind::TakesTime(_) | Kind::LeavesWork => {
            is("stdout", line.into()) && is("exit_code", 0.into())
        }
        Kind::Floods(bytes) => {
            // Its length, see where rows are taken over.
            is("stdout", bytes.min(KEPT).into()) && is("stdout_truncated", (bytes > KEPT).into())
        }
        Kind::Fails(code) => is("stderr", line.into()) && is("exit_code", code.into()),
        Kind::KillsItself => is("signal", "SIGKILL".into()) && is("exit_code", Value::Null),
        Kind::HitsItsLimit(_) => is("timed_out", true.into()) && is("stdout", "".into()),
        Kind::IsCancelled => return Err("it was to be cancelled".to_owned()),
        // What it may hold is looked at with all other rows.
        Kind::Snoops => is("exit_code", 0.into()),
        Kind::Agent(..) | Kind::Cancels => return Err("it has no command".to_owned()),
    };
    if right { Ok(()) } else { Err("the result is not what the command wrote".to_owned()) }
}

fn judge_secrets(lane: &Lane<'_>) {
    let secrets = lane.middleman.secrets();
    // The signature is what makes a token one.
    let signature =
        |token: &String| token.rsplit_once('.').map(|(_, signature)| signature.to_owned());
    let wanted: BTreeSet<String> =
        secrets.iter().cloned().chain(secrets.iter().filter_map(signature)).collect();
    lane.saw("secrets that were looked for", secrets.len());
    let program = lane.machine.program();
    for path in files(lane.machine.home()) {
        if path == lane.machine.config_file() || path == program {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        if let Some(line) = told(&text, &wanted) {
            lane.violation(&format!("a secret is in {}: {line}", path.display()));
        }
    }
    for job in lane.jobs.lock().unwrap().iter() {
        let mut row = job.row.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(run) = &job.run {
            row.push_str(&run.rows(lane.control).to_string());
        }
        if let Some(line) = told(&row, &wanted) {
            lane.violation(&format!("a secret is in the row of {:?}: {line}", job.planned));
        }
    }
}

/// What stands around a secret that is told.
fn told(text: &str, secrets: &BTreeSet<String>) -> Option<String> {
    let (before, after) = secrets.iter().find_map(|secret| text.split_once(secret.as_str()))?;
    let before: String = before.chars().rev().take(200).collect::<Vec<_>>().iter().rev().collect();
    let after: String = after.chars().take(200).collect();
    Some(format!("{before}<SECRET>{after}"))
}

fn judge_permissions(lane: &Lane<'_>) {
    let log_dir = lane.log().parent().unwrap().to_owned();
    for root in [lane.machine.home().join(".panorama"), log_dir] {
        for path in std::iter::once(root.clone()).chain(all(&root)) {
            let metadata = path.symlink_metadata().unwrap();
            let loosest = if metadata.is_dir() { 0o700 } else { 0o600 };
            let mode = metadata.permissions().mode() & 0o7777;
            // Made by this test when it mounts the disk.
            let ours = path.ends_with(".panorama");
            if mode & !loosest != 0 && !ours {
                lane.violation(&format!("{} has mode {mode:o}", path.display()));
            }
        }
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    all(root).into_iter().filter(|path| path.is_file()).collect()
}

/// Everything below a directory.
fn all(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(all(&path));
        }
        found.push(path);
    }
    found
}
