//! `diagnostic`: does the host's Claude Code answer, and is everything else in order?

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Finished, Host, signal_name};
use crate::doctor::{self, Check};
use crate::guest::GUEST_TMP;
use crate::jobs::progress::Progress;
use crate::jobs::stop::JobStop;
use crate::model::{Job, JobStatus};
use crate::process::{
    Background, Confine, Ended, ExecUser, Exit, Outcome, Run, RunError, RunSpec, StopSequence,
    child_environment, guest_environment,
};
use crate::providers::ProviderId;

const LIMIT: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(2);
/// Far above what any `--version` prints.
const CAPTURE_LIMIT: usize = 64 * 1024;

pub(super) async fn run(
    host: &Host,
    job: &Job,
    stop: &JobStop,
    progress: &Progress<'_>,
) -> Finished {
    let mut finished = version(host, stop, progress).await;
    if finished.status == JobStatus::Cancelled {
        return finished;
    }
    let validate = job.payload.get("validate").and_then(Value::as_bool).unwrap_or(false);
    let checks = tokio::select! {
        // Cancel safe: what was asked is given up, and a CLI that runs is ended.
        checks = checks(host, validate) => checks,
        () = stop.token().cancelled() => return Finished::stopped(),
    };
    finished.result["checks"] = checks.iter().map(Check::to_result).collect();
    finished
}

async fn checks(host: &Host, validate: bool) -> Vec<Check> {
    let paths = host.config.paths().clone();
    let guest = host.guest.clone();
    let local = tokio::task::spawn_blocking(move || {
        let mut checks = vec![
            doctor::host::host(),
            doctor::host::permissions(&paths),
            doctor::host::disk_space(&paths.dir),
        ];
        checks.extend(guest.map(|guest| doctor::guest::check(&guest, Some(&guest.state()))));
        checks
    });
    let of_providers = async {
        if validate {
            doctor::providers::validate_known(&host.providers, &host.model_check()).await;
        }
    };
    let (local, backend, ()) = tokio::join!(local, doctor::backend::all(&host.api), of_providers);
    // It fails only when the runtime is going down.
    let mut checks = local.unwrap_or_default();
    checks.extend(backend);
    for (id, standing) in host.providers.standings() {
        checks.push(doctor::providers::check(id, &standing));
    }
    for check in &mut checks {
        check.detail = host.redactor.text(&check.detail);
    }
    checks
}

/// The CLI's version, as it is now.
async fn version(host: &Host, stop: &JobStop, progress: &Progress<'_>) -> Finished {
    let standing = tokio::select! {
        // Cancel safe: a watch.
        standing = host.providers.searched(ProviderId::ClaudeCode) => standing,
        () = stop.token().cancelled() => return Finished::stopped(),
    };
    let Some(claude) = &standing.command else {
        let message = standing.health.error().unwrap_or("Claude Code was not found on this host");
        return Finished::failed(json!({
            "message": message, "command": "claude --version", "stdout": "", "stderr": "",
            "exit_code": null, "duration_ms": 0, "version": null, "error": message,
        }));
    };
    let command = format!("{} --version", claude.display());
    let user = match &host.guest {
        Some(guest) => guest.exec_user().await,
        None => Ok(None),
    };
    let run = match user {
        Ok(user) => Run::spawn(spec(host, claude, user)).await,
        Err(error) => {
            Err(RunError::Spawn { program: command.clone(), source: std::io::Error::other(error) })
        }
    };
    let run = match run {
        Ok(run) => {
            progress.run_started(run.ids()).await;
            run.wait(Some(LIMIT), stop.token()).await
        }
        Err(error) => Err(error),
    };
    let outcome = match run {
        Ok(outcome) if outcome.ended == Ended::Cancelled => {
            return Finished::stopped();
        }
        Ok(outcome) => outcome,
        Err(error) => {
            let message = format!("{:#}", anyhow::Error::new(error));
            return Finished::failed(json!({
                "message": message, "command": command, "stdout": "", "stderr": "",
                "exit_code": null, "duration_ms": 0, "version": null, "error": message,
            }));
        }
    };
    finish(host, &command, &outcome)
}

fn spec(host: &Host, claude: &Path, user: Option<ExecUser>) -> RunSpec {
    let env = match &host.guest {
        Some(_) => guest_environment(&host.environment, GUEST_TMP.as_ref(), user.as_ref()),
        None => child_environment(&host.environment, &host.config.paths().tmp()),
    };
    RunSpec {
        program: claude.into(),
        args: vec!["--version".into()],
        env,
        cwd: "/".into(),
        umask: host.caller_umask,
        stop: StopSequence::Shell { grace: GRACE },
        background: Background::Swept,
        stdin: None,
        confine: Confine { user, cgroup: None },
        capture_limit: CAPTURE_LIMIT,
    }
}

fn finish(host: &Host, command: &str, outcome: &Outcome) -> Finished {
    let stdout = outcome.stdout.text();
    let version = Some(stdout.trim()).filter(|version| !version.is_empty());
    let problem = match (outcome.ended, outcome.exit) {
        (Ended::TimeLimit, _) => Some(format!("{command} did not end within 10 seconds")),
        (_, Exit::Code(0)) => None,
        (_, Exit::Code(code)) => Some(format!("{command} ended with exit code {code}")),
        (_, Exit::Signal(signal)) => {
            Some(format!("{command} was ended by {}", signal_name(signal)))
        }
    };
    // What was asked for is shown as it is; what tells of a failure is not.
    let shown = |text: &str| {
        if problem.is_some() { host.redactor.text(text) } else { text.to_owned() }
    };
    let mut result = json!({
        "command": command,
        "stdout": shown(&stdout),
        "stderr": shown(&outcome.stderr.text()),
        "exit_code": match outcome.exit { Exit::Code(code) => Some(code), Exit::Signal(_) => None },
        "duration_ms": outcome.duration.as_millis(),
        "version": if problem.is_none() { version } else { None },
    });
    match problem {
        None => Finished::completed(result),
        Some(problem) => {
            result["message"] = Value::from(problem.clone());
            result["error"] = Value::from(problem);
            Finished::failed(result)
        }
    }
}
