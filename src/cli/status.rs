//! `status`: gathers what files and the running gateway say, then renders it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::args::StatusArgs;
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::instance::Instance;
use super::{age, printable, table};
use crate::config::{Purpose, SavedConfig, Settings};
use crate::guest::GuestState;
use crate::jobs::{ActiveJob, JobPhase};
use crate::model::time;
use crate::runtime::health::Reason;
use crate::runtime::status::{
    AuditState, Contact, DriveSyncState, JournalState, ListenState, LiveStatus, LogState, Phase,
    RealtimeState, SupervisorState, UpgradeState,
};

/// Everything that `status` knows; `--json` prints it. Fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// A gateway runs.
    pub running: bool,
    /// Its version; this program's when none runs or it does not say.
    pub version: String,
    /// Its process.
    pub pid: Option<i32>,
    /// What the pid file names although it is no gateway.
    pub stale_pid: Option<i32>,
    /// Wire time.
    pub started_at: Option<String>,
    /// Milliseconds.
    pub uptime_ms: Option<u64>,
    /// There is an identity with tokens.
    pub paired: bool,
    /// The name that the team sees.
    pub device_name: String,
    /// Set when paired.
    pub gateway_id: Option<String>,
    /// Set when paired.
    pub team_id: Option<String>,
    /// The backend.
    pub supabase_url: Option<String>,
    /// The host toggle.
    pub full_control_enabled: bool,
    /// Set in a managed VM: its id and which of its lives this is.
    pub vm: Option<Vm>,
    /// Where everything lies.
    pub paths: ReportPaths,
    /// What the running gateway says of itself.
    pub gateway: Option<Box<LiveStatus>>,
}

/// A managed VM.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Vm {
    pub id: String,
    pub generation: serde_json::Value,
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ReportPaths {
    pub config_dir: PathBuf,
    pub config_file: PathBuf,
    pub log_file: PathBuf,
    pub pid_file: PathBuf,
    pub socket: PathBuf,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &StatusArgs) -> Outcome {
    let settings = context.settings(Purpose::Look)?;
    let saved = context.saved(&settings)?;
    let report = report(&settings, &saved, Instance::find(&settings.paths));
    let text = if args.json {
        let value = serde_json::to_value(&report).unwrap_or_default();
        table::json(&value)
    } else {
        render(&report, context.options.verbose, Timestamp::now())
    };
    context.ui.out(&text)?;
    Ok(if args.check && !report.running { Exit::NotRunning } else { Exit::Done })
}

fn report(settings: &Settings, saved: &SavedConfig, instance: Instance) -> Report {
    let (running, pid, stale_pid, live) = match instance {
        Instance::Running { pid, live } => (true, pid, None, live),
        Instance::Stopped { stale_pid } => (false, None, stale_pid, None),
    };
    let text = |name: &str| saved.text(name).map(str::to_owned);
    Report {
        running,
        version: live.as_ref().map_or(crate::VERSION, |live| live.version.as_str()).to_owned(),
        pid,
        stale_pid,
        started_at: live.as_ref().map(|live| live.started_at.clone()),
        uptime_ms: live.as_ref().map(|live| live.uptime_ms),
        paired: saved.is_paired(),
        device_name: settings.device_name.value.clone(),
        gateway_id: text("gatewayId"),
        team_id: text("teamId"),
        supabase_url: settings.supabase_url.as_ref().map(|url| url.value.clone()),
        full_control_enabled: saved.full_control(),
        vm: saved.vm_id().map(|id| Vm {
            id: id.to_owned(),
            generation: saved.guest_value("generation").cloned().unwrap_or_default(),
        }),
        paths: ReportPaths {
            config_dir: settings.paths.dir.clone(),
            config_file: settings.paths.config_file.clone(),
            log_file: settings.paths.log_file.clone(),
            pid_file: settings.paths.pid_file.clone(),
            socket: settings.paths.socket(),
        },
        gateway: live,
    }
}

/// For people.
pub(crate) fn render(report: &Report, verbose: bool, now: Timestamp) -> String {
    let mut lines = vec![("Gateway", gateway_line(report))];
    lines.push(("Paired", if report.paired { "yes" } else { "no" }.to_owned()));
    if let Some(vm) = &report.vm {
        let live = report.gateway.as_ref().and_then(|live| live.guest.as_ref());
        lines.push(("Managed VM", vm_line(vm, live)));
    }
    let toggle = if report.full_control_enabled { "enabled" } else { "disabled" };
    lines.push(("Machine control", format!("{toggle} on this host")));
    if let Some(live) = &report.gateway {
        live_lines(live, now, &mut lines);
        if verbose {
            inner_lines(live, &mut lines);
        }
    }
    if verbose {
        verbose_lines(report, &mut lines);
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let lines: Vec<_> = lines
        .iter()
        .map(|(name, value)| format!("{:<width$}{value}", format!("{name}:")))
        .collect();
    lines.join("\n")
}

fn vm_line(vm: &Vm, live: Option<&GuestState>) -> String {
    let Vm { id, generation } = vm;
    let counted =
        if generation.is_null() { String::new() } else { format!(", generation {generation}") };
    let user = live.and_then(|live| live.exec_user.as_ref());
    let user = user.map(|user| format!(", commands run as {user}")).unwrap_or_default();
    let trouble = live.and_then(|live| live.trouble.as_ref());
    let trouble = match (live, trouble) {
        (Some(live), Some(why)) if live.containment == "shim" => format!(" (no cgroups: {why})"),
        (_, Some(why)) => format!(" ({why})"),
        (_, None) => String::new(),
    };
    format!("{id}{counted}{user}{trouble}")
}

fn gateway_line(report: &Report) -> String {
    let Some(live) = &report.gateway else {
        return match (report.running, report.pid) {
            (true, Some(pid)) => format!("running, but it does not answer (pid {pid})"),
            (true, None) => "starting or stopping".to_owned(),
            (false, _) => format!("not running, version {}", report.version),
        };
    };
    let phase = match live.phase {
        Phase::Starting => "starting",
        Phase::Up => "up",
        Phase::Draining => "stopping",
        Phase::Stopped => "stopped",
    };
    let phase = if live.upgrade.version.is_some() && live.phase == Phase::Draining {
        "finishing its work before an upgrade"
    } else {
        phase
    };
    let detail = live.detail.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    format!("{phase}{detail}, version {}, for {}", live.version, age::millis(live.uptime_ms))
}

/// What is to be said of realtime, when it is not simply in order or not used at all.
fn realtime_trouble(realtime: &RealtimeState) -> Option<String> {
    let mut said = Vec::new();
    if !matches!(realtime.state.as_str(), "ready" | "off") {
        let why = realtime.error.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        said.push(format!("{}{why}", realtime.state));
    }
    if realtime.missed_jobs > 0 {
        said.push(format!("{} jobs were not told", realtime.missed_jobs));
    }
    (!said.is_empty()).then(|| said.join(", "))
}

fn log_trouble(log: &LogState) -> Option<String> {
    let LogState { dropped_lines, failed_writes, trouble, .. } = log;
    let why = trouble.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    (*dropped_lines > 0 || *failed_writes > 0).then(|| {
        format!("{dropped_lines} log lines were dropped, {failed_writes} not written{why}")
    })
}

fn audit_trouble(audit: &AuditState) -> Option<String> {
    let lost = audit.lost_lines;
    match &audit.trouble {
        Some(why) => Some(format!("the audit log cannot be written, {lost} lines are lost: {why}")),
        None => (lost > 0).then(|| format!("{lost} lines of the audit log are lost")),
    }
}

fn live_lines(live: &LiveStatus, now: Timestamp, lines: &mut Vec<(&'static str, String)>) {
    let reported = live.reported_status.as_deref().unwrap_or("nothing yet");
    lines.push(("Connection", format!("reported {reported}, {}", contact(&live.heartbeat, now))));
    lines.push(("Ingress", format!("{}, {}", live.ingress, contact(&live.poll, now))));
    if let Some(trouble) = realtime_trouble(&live.realtime) {
        lines.push(("Realtime", trouble));
    }
    upgrade_lines(&live.upgrade, now, lines);
    if live.session != "valid" {
        lines.push(("Session", live.session.clone()));
    }
    lines.push((
        "Jobs",
        format!(
            "{} of {} in hand, {} waiting, {} finished",
            live.active_jobs.len(),
            live.concurrency,
            live.queued_jobs,
            live.finished_jobs
        ),
    ));
    for job in &live.active_jobs {
        lines.push(("  in hand", in_hand(job, now)));
    }
    drive_lines(live.drive_sync.as_ref(), lines);
    for provider in &live.providers {
        let text = match (&provider.version, &provider.error) {
            (Some(version), _) if provider.available => version.clone(),
            (_, Some(error)) => format!("not available: {error}"),
            _ if provider.available => "available".to_owned(),
            _ => "not available".to_owned(),
        };
        lines.push(("Provider", format!("{} {text}", provider.id)));
    }
    if let Some(trouble) = &live.journal.trouble {
        lines.push(("Trouble", format!("no new jobs are taken: {trouble}")));
    }
    // Those of the phase are in the first line.
    for reason in live.health.reasons.iter().filter(|reason| says_more(live.phase, reason)) {
        lines.push(("Not ready", reason.message.clone()));
    }
    if let Some(trouble) = &live.config_trouble {
        lines.push(("Trouble", format!("it goes on with an earlier config: {trouble}")));
    }
    let troubles = [log_trouble(&live.log), audit_trouble(&live.audit)];
    lines.extend(troubles.into_iter().flatten().map(|trouble| ("Trouble", trouble)));
    if let Some(ListenState { address, error: Some(error), .. }) = &live.metrics_listen {
        lines.push(("Trouble", format!("no metrics at {address}: {error}")));
    }
    for supervisor in live.supervisors.iter().filter(|s| s.state != "running" || s.restarts > 0) {
        let SupervisorState { name, state, restarts } = supervisor;
        lines.push(("Trouble", format!("{name} is {state}, started again {restarts} times")));
    }
}

fn drive_lines(drives: Option<&DriveSyncState>, lines: &mut Vec<(&'static str, String)>) {
    let Some(DriveSyncState { problem, drives }) = drives else { return };
    for drive in drives {
        let why = drive.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let text = format!("{} {}{why}", drive.name, drive.state.words());
        lines.push(("Drive", printable::line(&text)));
    }
    if let Some(problem) = problem {
        lines.push(("Trouble", printable::line(&format!("drives: {problem}"))));
    }
}

fn says_more(phase: Phase, reason: &Reason) -> bool {
    phase == Phase::Up && reason.code != "journal"
        || matches!(reason.code.as_str(), "stalled" | "session_ended")
}

/// `shell_exec j1 for 2 min, being reported, run r1`.
fn in_hand(job: &ActiveJob, now: Timestamp) -> String {
    let mut said = vec![format!("{} {}", job.job_type, job.id)];
    if let Some(at) = time::parse(&job.started_at) {
        said[0].push_str(" for ");
        said[0].push_str(&age::between(at, now));
    }
    match job.phase {
        JobPhase::Claiming => said.push("being claimed".to_owned()),
        JobPhase::Running => {}
        JobPhase::Reporting => said.push("being reported".to_owned()),
    }
    let named = |what: &str, id: &Option<String>| id.as_ref().map(|id| format!("{what} {id}"));
    said.extend(named("subagent", &job.target.subagent_id));
    said.extend(named("run", &job.target.run_id));
    said.join(", ")
}

/// What only somebody minds who looks closely.
fn inner_lines(live: &LiveStatus, lines: &mut Vec<(&'static str, String)>) {
    let Contact { succeeded, failed, .. } = &live.heartbeat;
    let polls = format!("{} polls, {} failed", live.poll.succeeded, live.poll.failed);
    let refreshes = live.session_refreshes;
    lines.push((
        "Backend use",
        format!(
            "{} requests, {succeeded} heartbeats, {failed} failed, {polls}, {refreshes} refreshes",
            live.requests_sent
        ),
    ));
    let realtime = &live.realtime;
    let since = realtime.since.as_deref().map(|at| format!(" since {at}")).unwrap_or_default();
    let reconnects = realtime.reconnects;
    lines.push(("Realtime", format!("{}{since}, {reconnects} reconnects", realtime.state)));
    let JournalState { records, bytes, .. } = &live.journal;
    lines.push(("Journal", format!("{records} records, {bytes} bytes")));
    if let Some(metrics) = live.metrics_listen.as_ref().filter(|metrics| metrics.listening) {
        lines.push(("Metrics", format!("http://{}/metrics", metrics.address)));
    }
    for SupervisorState { name, state, restarts } in &live.supervisors {
        lines.push(("Part", format!("{name} is {state}, started again {restarts} times")));
    }
}

fn upgrade_lines(upgrade: &UpgradeState, now: Timestamp, lines: &mut Vec<(&'static str, String)>) {
    let ago = |at: &str| time::parse(at).map(|at| format!(", {} ago", age::between(at, now)));
    if let Some(version) = &upgrade.version {
        let stage = match upgrade.state.as_str() {
            "preparing" => "gets ready",
            "draining" => "is ready and waits for the jobs in hand",
            _ => "takes over",
        };
        lines.push(("Upgrade", format!("version {version} {stage}")));
    }
    if let Some(failed) = &upgrade.last_failed {
        let what = failed
            .version
            .as_ref()
            .map_or("what was installed".to_owned(), |version| format!("version {version}"));
        let when = ago(&failed.at).unwrap_or_default();
        lines.push(("Trouble", format!("{what} did not take over{when}: {}", failed.reason)));
    }
}

fn contact(contact: &Contact, now: Timestamp) -> String {
    let said = contact.last_ok_at.as_deref().and_then(time::parse);
    let last = match (contact.last_ok_age_ms, said) {
        // The gateway's own clock is never set; wall clocks are.
        (Some(age), _) => format!("last {} ago", age::millis(age)),
        (None, Some(at)) => format!("last {} ago", age::between(at, now)),
        (None, None) => "none so far".to_owned(),
    };
    match &contact.error {
        Some(error) => format!("{last}, failing: {error}"),
        None => last,
    }
}

fn verbose_lines(report: &Report, lines: &mut Vec<(&'static str, String)>) {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    lines.push(("Device", report.device_name.clone()));
    lines.push(("Gateway id", or_none(&report.gateway_id)));
    lines.push(("Team id", or_none(&report.team_id)));
    lines.push(("Backend", or_none(&report.supabase_url)));
    if let Some(pid) = report.pid {
        lines.push(("Pid", pid.to_string()));
    }
    if let Some(pid) = report.stale_pid {
        lines.push(("Stale pid", pid.to_string()));
    }
    let paths = &report.paths;
    for (name, path) in [
        ("Config dir", &paths.config_dir),
        ("Config file", &paths.config_file),
        ("Log file", &paths.log_file),
        ("Pid file", &paths.pid_file),
        ("Socket", &paths.socket),
    ] {
        lines.push((name, path.display().to_string()));
    }
}

#[cfg(test)]
mod tests;
