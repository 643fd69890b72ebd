//! `shell_exec`: one command of the team on this host, behind three toggles.
//!
//! The checks run in a fixed order and each refusal is a failed job with a reason. What the command
//! does is its own business: a command that fails or runs into its time limit is a completed job.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Finished, Host, signal_name};
use crate::backend::{BackendError, ControlState};
use crate::guest::{GUEST_TMP, Placeholder, SecretEnv, Workplace};
use crate::jobs::machine_control::{machine_control, remote_shell_resource};
use crate::jobs::patience::read;
use crate::jobs::progress::Progress;
use crate::jobs::stop::JobStop;
use crate::model::{Job, JobStatus, ResourceId};
use crate::process::{
    Background, Confine, Ended, ExecUserError, Exit, Outcome, Run, RunSpec, StopSequence,
    child_environment, guest_environment,
};

const DEFAULT_LIMIT_MS: u64 = 30_000;
const MAX_LIMIT_MS: u64 = 600_000;
const GRACE: Duration = Duration::from_secs(2);
/// Bytes kept of each stream.
const CAPTURE_LIMIT: usize = 5_000_000;
const CWD: &str = "/";

/// A command that passed every check.
struct Checked {
    resource_id: String,
    command: String,
    limit: Duration,
    /// Placeholders by variable; only ever in a managed VM.
    secrets: Vec<(String, String)>,
}

pub(super) async fn run(
    host: &Host,
    job: &Job,
    stop: &JobStop,
    progress: &Progress<'_>,
) -> Finished {
    let checked = tokio::select! {
        // Cancel safe: checks only read.
        checked = check(host, job, progress) => checked,
        () = stop.token().cancelled() => return Finished::stopped(),
    };
    let checked = match checked {
        Ok(checked) => checked,
        Err(refusal) => return refusal,
    };
    let shell = shell(host);
    let workplace = match workplace(host, job).await {
        Ok(workplace) => workplace,
        Err(error) => {
            let why = format!("The command could not be run: {:#}", anyhow::Error::new(error));
            return refuse(Some(&checked.resource_id), &why);
        }
    };
    progress.audit().place(CWD);
    progress.audit().starts().await;
    let confine = workplace.as_ref().map(|workplace| workplace.confine.clone());
    let run = match Run::spawn(spec(host, &shell, &checked, confine)).await {
        Ok(run) => {
            progress.run_started(run.ids()).await;
            let ended = run.wait(Some(checked.limit), stop.token()).await;
            if let Ok(outcome) = &ended {
                progress.audit().exit(outcome.exit, outcome.ended);
            }
            ended
        }
        Err(error) => Err(error),
    };
    let evidence = match (&host.guest, workplace) {
        (Some(guest), Some(workplace)) => guest.end(workplace).await,
        _ => outside_guests(),
    };
    match run {
        Ok(outcome) if outcome.ended == Ended::Cancelled => Finished::stopped(),
        Ok(outcome) => Finished::completed(result(&checked, &shell, outcome, evidence)),
        Err(error) => refuse(
            Some(&checked.resource_id),
            &format!("The command could not be run: {:#}", anyhow::Error::new(error)),
        ),
    }
}

/// As whom and in what the command runs, in a managed VM.
async fn workplace(host: &Host, job: &Job) -> Result<Option<Workplace>, ExecUserError> {
    match &host.guest {
        Some(guest) => guest.workplace(job.id.as_str()).await.map(Some),
        None => Ok(None),
    }
}

fn refuse(resource_id: Option<&str>, message: &str) -> Finished {
    let mut result = json!({ "message": message });
    if let Some(id) = resource_id {
        result["resource_id"] = Value::from(id);
    }
    Finished::failed(result)
}

async fn check(host: &Host, job: &Job, progress: &Progress<'_>) -> Result<Checked, Finished> {
    let resource_id =
        job.payload.get("resource_id").and_then(Value::as_str).filter(|id| !id.trim().is_empty());
    let unread = |what: &str, error: BackendError| {
        let why = format!("{:#}", anyhow::Error::new(error));
        refuse(resource_id, &format!("Could not read {what}: {why}"))
    };

    let status = read(host, || host.api.job_status(&job.id))
        .await
        .map_err(|error| unread("the job", error))?;
    if status != Some(JobStatus::Running) {
        let message = "The job was cancelled before it started";
        let mut refusal = refuse(resource_id, message);
        refusal.result["cancelled"] = Value::from(true);
        return Err(refusal);
    }

    let row = read(host, || host.api.control_state())
        .await
        .map_err(|error| unread("this gateway's row", error))?;
    let saved = host.saved_config().await.map_err(|message| refuse(resource_id, &message))?;
    let toggle = saved.full_control();
    progress.audit().toggle("host", toggle);
    if let Some(row) = &row {
        progress.audit().toggle("team", row.full_control_enabled);
    }
    machine_control(row.as_ref(), toggle)
        .map_err(|reason| refuse(resource_id, &format!("Machine control is off: {reason}")))?;

    let id = resource_id.ok_or_else(|| refuse(None, "resource_id is missing"))?;
    check_resource(host, job, progress, id, row.as_ref()).await?;

    let command = job
        .payload
        .get("command")
        .and_then(Value::as_str)
        .filter(|command| !command.trim().is_empty())
        .ok_or_else(|| refuse(resource_id, "command is missing"))?;
    if command.contains('\0') {
        return Err(refuse(resource_id, "command holds a NUL character, which no shell can take"));
    }
    let secrets =
        secrets(host, job).await.map_err(|reason| refuse(resource_id, reason.as_str()))?;
    Ok(Checked {
        secrets,
        resource_id: id.to_owned(),
        command: command.to_owned(),
        limit: limit(job.payload.get("timeout_ms")),
    })
}

async fn check_resource(
    host: &Host,
    job: &Job,
    progress: &Progress<'_>,
    id: &str,
    row: Option<&ControlState>,
) -> Result<(), Finished> {
    let resource_id = ResourceId::new(id);
    let resource = match read(host, || host.api.resource(&resource_id)).await {
        Ok(resource) => resource,
        // An id that the backend cannot even read names no resource.
        Err(error) if error.is_permanent_refusal() => None,
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::new(error));
            return Err(refuse(Some(id), &format!("Could not read the resource: {why}")));
        }
    };
    if let Some(resource) = &resource {
        let on = resource.pointer("/metadata/full_control") == Some(&Value::Bool(true));
        progress.audit().toggle("resource", on);
    }
    let vm_id = row.and_then(|row| row.vm_id.as_deref());
    remote_shell_resource(resource.as_ref(), &job.team_id, &job.gateway_id, vm_id)
        .map_err(|reason| refuse(Some(id), &format!("The resource cannot be used: {reason}")))
}

/// Placeholders for the job's secrets. The error is for people and holds none of them.
async fn secrets(host: &Host, job: &Job) -> Result<Vec<(String, String)>, String> {
    if host.guest.is_none() {
        return refuse_secrets(&job.payload).map(|()| Vec::new()).map_err(str::to_owned);
    }
    let asked = SecretEnv::of(&job.payload)?;
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let answer = read(host, || host.api.secret_placeholders(&job.id)).await.map_err(|error| {
        format!("Could not read the job's secrets: {:#}", anyhow::Error::new(error))
    })?;
    let rows = answer.into_iter().map(serde_json::from_value::<Placeholder>);
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(|_| {
        "The job's secrets cannot be used: the backend's answer does not fit".to_owned()
    })?;
    asked.resolve(rows).map_err(|why| format!("The job's secrets cannot be used: {why}"))
}

/// Placeholders for secrets exist in managed guests only.
fn refuse_secrets(payload: &Map<String, Value>) -> Result<(), &'static str> {
    match payload.get("secret_env") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(wanted)) if wanted.is_empty() => Ok(()),
        Some(_) => Err("secret_env is only allowed in managed VM guests"),
    }
}

/// 1 ms to 10 min; a number or a numeric text, anything else is the default.
fn limit(value: Option<&Value>) -> Duration {
    let number = match value {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    let millis = number.filter(|number| number.is_finite()).map_or(DEFAULT_LIMIT_MS, |number| {
        // The clamp makes the conversion exact and free of overflow.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let millis = number.clamp(1.0, 600_000.0) as u64;
        millis.min(MAX_LIMIT_MS)
    });
    Duration::from_millis(millis)
}

fn shell(host: &Host) -> OsString {
    ["/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .or_else(|| host.environment.get("SHELL"))
        .unwrap_or("/bin/sh")
        .into()
}

fn spec(host: &Host, shell: &OsString, checked: &Checked, confine: Option<Confine>) -> RunSpec {
    let mut env = match &confine {
        Some(confine) => {
            guest_environment(&host.environment, GUEST_TMP.as_ref(), confine.user.as_ref())
        }
        None => child_environment(&host.environment, &host.config.paths().tmp()),
    };
    env.retain(|(name, _)| checked.secrets.iter().all(|(secret, _)| name != secret.as_str()));
    env.extend(checked.secrets.iter().map(|(name, value)| (name.into(), value.into())));
    // What a job of a managed VM leaves in the background has no place there.
    let background = if confine.is_some() { Background::Swept } else { Background::Allowed };
    RunSpec {
        program: shell.clone(),
        args: vec!["-lc".into(), checked.command.as_str().into()],
        env,
        cwd: CWD.into(),
        umask: host.caller_umask,
        stop: StopSequence::Shell { grace: GRACE },
        background,
        stdin: None,
        confine: confine.unwrap_or_default(),
        capture_limit: CAPTURE_LIMIT,
    }
}

/// What a result says of where its command ran, on a host of its own.
fn outside_guests() -> Value {
    json!({
        "exec_user": null,
        "workload_id": null,
        "cgroup": null,
        "cgroup_termination_error": null,
        "readiness_evidence": null,
        "process_tree_contained": false,
    })
}

fn result(checked: &Checked, shell: &OsString, outcome: Outcome, evidence: Value) -> Value {
    let timed_out = outcome.ended == Ended::TimeLimit;
    let (exit_code, signal) = match outcome.exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal_name(signal))),
    };
    // A command that ends itself while it is being stopped was still stopped by us.
    let exit_code = exit_code.filter(|_| !timed_out);
    let success = !timed_out && exit_code == Some(0);
    let problem = if timed_out {
        Some(format!("The command did not end within {} ms", checked.limit.as_millis()))
    } else if let Some(signal) = &signal {
        Some(format!("The command was ended by {signal}"))
    } else {
        exit_code
            .filter(|code| *code != 0)
            .map(|code| format!("The command ended with exit code {code}"))
    };
    let (stdout_truncated, stderr_truncated) = (outcome.stdout.truncated, outcome.stderr.truncated);
    let mut result = json!({
        "message": problem.clone().unwrap_or_else(|| "The command ended".to_owned()),
        "resource_id": checked.resource_id,
        "command": checked.command,
        "shell": shell.to_string_lossy(),
        "cwd": CWD,
        "stdout": outcome.stdout.into_text(),
        "stderr": outcome.stderr.into_text(),
        "exit_code": exit_code,
        "duration_ms": outcome.duration.as_millis(),
        "timed_out": timed_out,
        "success": success,
        "stdout_truncated": stdout_truncated,
        "stderr_truncated": stderr_truncated,
        "output_truncated": stdout_truncated || stderr_truncated,
        "error": problem,
    });
    if let (Value::Object(fields), Value::Object(evidence)) = (&mut result, evidence) {
        fields.extend(evidence);
    }
    if let Some(signal) = signal {
        result["signal"] = Value::from(signal);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_are_clamped() {
        let cases = [
            (None, 30_000),
            (Some(json!(null)), 30_000),
            (Some(json!("soon")), 30_000),
            (Some(json!(true)), 30_000),
            (Some(json!(0)), 1),
            (Some(json!(-5)), 1),
            (Some(json!(1500)), 1_500),
            (Some(json!(" 250 ")), 250),
            (Some(json!("NaN")), 30_000),
            (Some(json!(1e300)), 600_000),
            (Some(json!("600001")), 600_000),
        ];
        for (value, millis) in cases {
            assert_eq!(limit(value.as_ref()), Duration::from_millis(millis), "{value:?}");
        }
    }

    #[test]
    fn secrets_are_refused_outside_guests() {
        let payload = |value: Value| Map::from_iter([("secret_env".to_owned(), value)]);
        assert!(refuse_secrets(&Map::new()).is_ok());
        assert!(refuse_secrets(&payload(json!({}))).is_ok());
        assert!(refuse_secrets(&payload(json!({"TOKEN": "name"}))).is_err());
        assert!(refuse_secrets(&payload(json!("TOKEN"))).is_err());
    }
}
