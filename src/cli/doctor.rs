//! `doctor`: looks at everything that a gateway needs, a line each.

use std::cell::RefCell;
use std::io;

use serde_json::json;

use super::args::DoctorArgs;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::instance::Instance;
use super::validation::{self, Tokens};
use super::{asynchronous, table};
use crate::backend::{Api, Endpoint, Http};
use crate::config::{Paths, Purpose, SavedConfig, Settings};
use crate::doctor::{self, Check, Status};
use crate::guest::{Guest, GuestState};
use crate::providers::ProviderId;
use crate::runtime::hygiene;
use crate::runtime::status::LiveStatus;
use crate::runtime::validation::Occasion;

/// Why a gateway's work is not told of.
const AUDIT_HINT: &str =
    "jobs run without being audited: put right what is there, or name another place by --log-path";

/// Runs the command.
pub(crate) fn run(context: &Context, args: &DoctorArgs) -> Outcome {
    let report = Report { context, quiet: args.json, checks: RefCell::default() };
    if let Some((settings, saved)) = local(&report)? {
        let instance = Instance::find(&settings.paths);
        report.add(gateway(&instance))?;
        report.add(pairing(&saved))?;
        if let Some(guest) = Guest::to_look(&saved, &settings.guest) {
            report.add(doctor::guest::check(&guest, live_guest(&instance)))?;
        }
        asynchronous::short(remote(&report, &settings, &saved, &instance))??;
    }
    report.end()
}

/// What was looked at so far.
struct Report<'a> {
    context: &'a Context,
    /// Nothing is shown before the end.
    quiet: bool,
    checks: RefCell<Vec<Check>>,
}

impl Report<'_> {
    fn add(&self, check: Check) -> io::Result<()> {
        let check = self.redacted(check);
        if !self.quiet {
            self.context.ui.out(&line(&check, self.context.ui.colour_on_stdout()))?;
        }
        self.checks.borrow_mut().push(check);
        Ok(())
    }

    fn add_all(&self, checks: Vec<Check>) -> io::Result<()> {
        checks.into_iter().try_for_each(|check| self.add(check))
    }

    fn redacted(&self, check: Check) -> Check {
        Check { detail: self.context.redactor.text(&check.detail), ..check }
    }

    fn end(&self) -> Outcome {
        let checks = self.checks.borrow();
        let ok = doctor::is_ok(&checks);
        if self.quiet {
            self.context.ui.out(&table::json(&json!({"ok": ok, "checks": *checks})))?;
        } else {
            self.context.ui.out(&format!("\n{}", verdict(&checks)))?;
        }
        Ok(if ok { Exit::Done } else { Exit::Failed })
    }
}

/// What can be seen without a backend; `None`: the config cannot be used, and all else hangs on it.
fn local(report: &Report<'_>) -> Result<Option<(Settings, SavedConfig)>, Failure> {
    let context = report.context;
    report.add(doctor::host::host())?;
    // Before anything repairs them by reading the config.
    let paths = match context.paths(Purpose::Look) {
        Ok(paths) => paths,
        Err(failure) => {
            report.add(of_failure("config", failure))?;
            return Ok(None);
        }
    };
    report.add(doctor::host::permissions(&paths))?;
    report.add(doctor::host::disk_space(&paths.dir))?;
    report.add(hygiene::check(&paths))?;
    report.add(audit_log(&paths))?;
    let read = context
        .settings(Purpose::Look)
        .and_then(|settings| Ok((context.saved(&settings)?, settings)));
    let file = paths.config_file.display();
    match read {
        Ok((saved, settings)) => {
            let there = if paths.config_file.exists() { "can be read" } else { "is not there yet" };
            report.add(Check::ok("config", format!("{file} {there}")))?;
            Ok(Some((settings, saved)))
        }
        Err(failure) => {
            report.add(of_failure("config", failure))?;
            Ok(None)
        }
    }
}

/// Whether a line could be written now. Changes nothing.
fn audit_log(paths: &Paths) -> Check {
    const ID: &str = "audit_log";
    let file = paths.audit_file();
    let there = match crate::fs::open_to_look(&file) {
        Ok(there) => there.is_some(),
        Err(error) => return Check::warn(ID, error.to_string(), AUDIT_HINT),
    };
    let writable = if there {
        rustix::fs::access(&file, rustix::fs::Access::WRITE_OK).is_ok()
    } else {
        file.parent().is_some_and(|dir| crate::fs::check_writable_dir(dir).is_ok())
    };
    match (writable, there) {
        (true, true) => Check::ok(ID, file.display().to_string()),
        (true, false) => Check::ok(ID, format!("{} is not there yet", file.display())),
        (false, _) => Check::warn(ID, format!("{} cannot be written", file.display()), AUDIT_HINT),
    }
}

fn of_failure(id: &'static str, failure: Failure) -> Check {
    let hint = failure.hint.unwrap_or_else(|| "add -v to see why".to_owned());
    Check::fail(id, failure.message, hint)
}

fn gateway(instance: &Instance) -> Check {
    const ID: &str = "gateway";
    match instance {
        // One of an older version gives no reasons.
        Instance::Running { live: Some(live), .. } if live.health.reasons.is_empty() => {
            Check::ok(ID, format!("runs (pid {})", live.pid))
        }
        Instance::Running { live: Some(live), .. } => {
            let reasons = live.health.reasons.iter().map(|reason| reason.message.as_str());
            let why = reasons.collect::<Vec<_>>().join("; ");
            Check::warn(
                ID,
                format!("runs (pid {}), but takes no new jobs: {why}", live.pid),
                "see `panorama-gateway status`",
            )
        }
        Instance::Running { live: None, .. } => Check::warn(
            ID,
            "runs, but does not answer",
            "if that stays so, see `panorama-gateway logs` and start it again",
        ),
        Instance::Stopped { .. } => Check::ok(ID, "does not run now"),
    }
}

fn pairing(saved: &SavedConfig) -> Check {
    let id = saved.text("gatewayId").filter(|_| saved.is_paired());
    match id {
        Some(id) => Check::ok("pairing", format!("gateway {id}")),
        None => Check::fail(
            "pairing",
            "this machine is not paired",
            "get a code from your team and run `panorama-gateway pair <CODE>`",
        ),
    }
}

/// What a running gateway says of the managed VM that it is in.
fn live_guest(instance: &Instance) -> Option<&GuestState> {
    let Instance::Running { live: Some(live), .. } = instance else { return None };
    live.guest.as_ref()
}

/// Backend and providers.
async fn remote(
    report: &Report<'_>,
    settings: &Settings,
    saved: &SavedConfig,
    instance: &Instance,
) -> Result<(), Failure> {
    let api = backend(report, settings, saved, instance).await?;
    let api_works = report
        .checks
        .borrow()
        .iter()
        .any(|check| check.id == "session" && check.status == Status::Ok);
    let colour = report.context.ui.colour_on_stdout();
    let shown = |id: ProviderId, standing: &_| {
        let check = report.redacted(doctor::providers::check(id, standing));
        (!report.quiet).then(|| line(&check, colour))
    };
    let found = match Box::pin(validation::run(report.context, settings, shown)).await {
        Ok(found) => found,
        Err(failure) => return Ok(report.add(of_failure("providers", failure))?),
    };
    for (id, standing) in &found {
        let check = report.redacted(doctor::providers::check(*id, standing));
        report.checks.borrow_mut().push(check);
    }
    let healthy = found.values().filter(|standing| standing.health.is_ready()).count();
    report.add(doctor::providers::any(healthy))?;
    if let Some(api) = api.filter(|_| api_works) {
        validation::tell(report.context, &api, Occasion::Doctor, &found).await;
    }
    Ok(())
}

/// The backend; what speaks for this gateway there, when it is paired.
async fn backend(
    report: &Report<'_>,
    settings: &Settings,
    saved: &SavedConfig,
    instance: &Instance,
) -> Result<Option<Api>, Failure> {
    let purpose = if saved.is_paired() { Purpose::Start } else { Purpose::Pair };
    let reachable = settings.backend(purpose).map_err(Failure::from).and_then(|(url, anon_key)| {
        let endpoint = Endpoint { url, anon_key };
        Ok((Http::new(&endpoint)?, endpoint))
    });
    let (http, endpoint) = match reachable {
        Ok(reachable) => reachable,
        Err(failure) => {
            report.add(of_failure("backend", failure))?;
            return Ok(None);
        }
    };
    report.add(Check::ok("backend", endpoint.url.clone()))?;
    report.add_all(doctor::backend::parts(&http, &endpoint).await)?;
    if !saved.is_paired() {
        report.add(doctor::backend::handshake(&endpoint).await)?;
        return Ok(None);
    }
    let tokens = if instance.is_running() { Tokens::Borrowed } else { Tokens::Ours };
    let api = match validation::api(report.context, &settings.paths, saved, endpoint, http, tokens)
    {
        Ok(api) => api,
        Err(error) => {
            report.add(of_failure("session", error.into()))?;
            return Ok(None);
        }
    };
    if let Instance::Running { live: Some(live), .. } = instance {
        report.add(session_of(live))?;
        report.add(doctor::backend::handshake(api.endpoint()).await)?;
        report.add(realtime_of(live))?;
    } else {
        report.add(doctor::backend::session(&api).await)?;
        report.add_all(doctor::backend::handshake_and_join(&api).await)?;
    }
    Ok(Some(api))
}

/// What a running gateway says of its session.
fn session_of(live: &LiveStatus) -> Check {
    const ID: &str = "session";
    match live.session.as_str() {
        "valid" => Check::ok(ID, "valid, says the running gateway"),
        "ended" => {
            Check::fail(ID, "the pairing was revoked", "pair again: `panorama-gateway pair <CODE>`")
        }
        other => Check::warn(
            ID,
            format!("{other}, says the running gateway"),
            "it goes on trying; `panorama-gateway logs` says why",
        ),
    }
}

/// What a running gateway says of the channel of new jobs.
fn realtime_of(live: &LiveStatus) -> Check {
    const ID: &str = "realtime_join";
    let why = live.realtime.error.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    match live.realtime.state.as_str() {
        "ready" => Check::ok(ID, "new jobs are told, says the running gateway"),
        "off" => Check::ok(ID, "not used here: jobs are found by polling"),
        other => Check::warn(
            ID,
            format!("{other}, says the running gateway{why}"),
            "jobs are found by polling, some seconds later",
        ),
    }
}

/// For people: one line.
fn line(check: &Check, colour: bool) -> String {
    let (code, plain) = match (colour, check.status) {
        (false, _) => ("", ""),
        (true, Status::Ok) => ("\x1b[32m", "\x1b[0m"),
        (true, Status::Warn) => ("\x1b[33m", "\x1b[0m"),
        (true, Status::Fail) => ("\x1b[1;31m", "\x1b[0m"),
    };
    let hint = check.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    let (status, title) = (check.status.as_str(), title(check.id));
    format!("{code}{status:<5}{plain} {title:<14} {}{hint}", check.detail)
}

fn title(id: &'static str) -> &'static str {
    match id {
        "host" => "Host",
        "permissions" => "Permissions",
        "disk_space" => "Disk space",
        "on_disk" => "On disk",
        "audit_log" => "Audit log",
        "config" => "Config",
        "gateway" => "Gateway",
        "pairing" => "Pairing",
        "backend" => "Backend",
        "auth" => "  auth",
        "rest" => "  tables",
        "functions" => "  functions",
        "clock" => "  clock",
        "session" => "Session",
        "realtime" => "Realtime",
        "realtime_join" => "  new jobs",
        "provider_claude_code" => "Claude Code",
        "provider_codex" => "Codex CLI",
        "provider_gemini" => "Gemini CLI",
        "providers" => "Providers",
        other => other,
    }
}

fn verdict(checks: &[Check]) -> String {
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let many =
        |count, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    match (count(Status::Fail), count(Status::Warn)) {
        (0, 0) => "Everything is in order.".to_owned(),
        (0, warnings) => format!("The gateway can work; {}.", many(warnings, "warning")),
        (failures, warnings) => format!(
            "The gateway cannot work: {}, {}.",
            many(failures, "failure"),
            many(warnings, "warning")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_with_what_to_do() {
        let checks = [
            Check::ok("host", "panorama-gateway on linux"),
            Check::warn("realtime", "could not connect", "see the proxy"),
            Check::fail("pairing", "this machine is not paired", "pair it"),
        ];
        let lines: Vec<_> = checks.iter().map(|check| line(check, false)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        ok    Host           panorama-gateway on linux
        warn  Realtime       could not connect; see the proxy
        fail  Pairing        this machine is not paired; pair it
        ");
        assert!(line(&checks[2], true).starts_with("\x1b[1;31mfail \x1b[0m Pairing"));
        assert_eq!(verdict(&checks), "The gateway cannot work: 1 failure, 1 warning.");
        assert_eq!(verdict(&checks[..2]), "The gateway can work; 1 warning.");
        assert_eq!(verdict(&checks[..1]), "Everything is in order.");
    }
}
