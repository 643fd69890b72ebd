//! A gateway in the background: the process that sends it there, and the one that is sent.
//!
//! The child is this binary again, in a session of its own, with nothing inherited but the two
//! pipes to its parent. It says on stdout, in one line of JSON, that it is up or what stopped it;
//! then it lets go of both pipes.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::asynchronous;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::foreground::{self, Hangup, Signals};
use super::start::already_running;
use super::upgrade;
use crate::config::{Purpose, Settings, Source, Sourced};
use crate::observe::logging;
use crate::runtime::notify::ServiceManager;
use crate::runtime::status::Phase;
use crate::runtime::upgrade::Installation;
use crate::runtime::{ExitReason, GatewayOptions, StartError};

/// Marks the child's command line, with the umask of whoever started it. No flag of the grammar:
/// people have no use for it.
const MARKER: &str = "--detached-child=";
/// How long the parent waits for the child's word.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of what a dying child says on stderr.
const LONGEST_COMPLAINT: u64 = 64 * 1024;
const LONGEST_WORD: u64 = 64 * 1024;

/// Variables that ask for an env file.
pub(super) const ASK_FOR_ENV_FILE: [&str; 3] =
    ["PANORAMA_ENV_FILE", "PANORAMA_ENV_PATH", "PANORAMA_ENV"];

/// What the child says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Word {
    /// A `ready` heartbeat was accepted.
    Up {
        /// Always true.
        up: bool,
        /// The child's process.
        pid: u32,
    },
    /// It did not come up.
    Failed {
        /// What failed.
        error: String,
        /// What to do.
        hint: Option<String>,
        /// Why.
        #[serde(default)]
        causes: Vec<String>,
        /// The exit code.
        exit_code: u8,
        /// For the exit code of a gateway that runs already.
        pid: Option<i32>,
    },
}

/// Sends a gateway to the background and waits for its word.
pub(crate) fn run(context: &Context, settings: &Settings) -> Outcome {
    // The log can be named from the start, and a path that cannot be used is known now.
    settings.paths.prepare()?;
    let mut child = spawn(context, settings)?;
    let pid = child.id();
    let word = wait_for_word(&mut child);
    match word {
        Ok(Some(Word::Up { .. })) => {
            context.ui.out(&format!("The gateway is up (pid {pid})."))?;
            Ok(Exit::Done)
        }
        Ok(Some(Word::Failed { exit_code, pid, .. }))
            if exit_code == Exit::AlreadyRunning.code() =>
        {
            already_running(context, pid)
        }
        Ok(Some(Word::Failed { error, hint, causes, exit_code, .. })) => Err(Failure {
            exit: if exit_code == Exit::NotPaired.code() { Exit::NotPaired } else { Exit::Failed },
            message: error,
            hint,
            causes,
        }),
        Ok(None) => {
            context.ui.out(&format!("The gateway has started (pid {pid})."))?;
            context
                .ui
                .warn(&format!("it is not up after {} s; it goes on trying", PATIENCE.as_secs()));
            context.ui.note(&format!(
                "`panorama-gateway status` says how far it is; its log is {}",
                settings.paths.log_file.display()
            ));
            Ok(Exit::Done)
        }
        Err(complaint) => {
            let mut failure = Failure::new("the gateway ended before it was up")
                .hint(format!("see its log: {}", settings.paths.log_file.display()));
            if let Some(line) = complaint.lines().rfind(|line| !line.trim().is_empty()) {
                failure = failure.cause(line);
            }
            Err(failure)
        }
    }
}

fn spawn(context: &Context, settings: &Settings) -> Result<Child, Failure> {
    // Through the link by which this program is installed, if there is one: a new version may be
    // where it leads.
    let installed = context.installation.as_ref().map(Installation::path);
    let mut command = Command::new(installed.unwrap_or(&context.executable));
    if settings.env_file.is_some() && env_file_to_read_again(settings).is_none() {
        command.envs(settings.environment.iter());
        for asks_for_it in ASK_FOR_ENV_FILE {
            command.env_remove(asks_for_it);
        }
    }
    if let Some(key) = &context.options.anon_key {
        // Not an argument: those are everybody's to read.
        command.env("PANORAMA_SUPABASE_ANON_KEY", key);
    }
    command
        .args(child_arguments(context, settings))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Failure::new(format!("could not start {}", context.executable.display()))
                .cause(error.to_string())
        })
}

/// `Ok(None)` when it did not say anything in time, `Err` with its stderr when it died instead.
fn wait_for_word(child: &mut Child) -> Result<Option<Word>, String> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Ok(None);
    };
    let (sender, word) = mpsc::sync_channel(1);
    // Both readers end with the pipes, which the child lets go of; else this process ends first.
    std::thread::spawn(move || {
        let mut line = String::new();
        let _no_word = BufReader::new(stdout.take(LONGEST_WORD)).read_line(&mut line);
        let _gone = sender.send(serde_json::from_str::<Word>(&line).ok());
    });
    let complaint = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _what_came = stderr.take(LONGEST_COMPLAINT).read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    match word.recv_timeout(PATIENCE) {
        Ok(Some(word)) => Ok(Some(word)),
        Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
        Ok(None) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            let _reaped = child.wait();
            Err(complaint.join().unwrap_or_default())
        }
    }
}

/// The same options, which must mean the same in another directory.
pub(super) fn child_arguments(context: &Context, settings: &Settings) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["start".into(), "--foreground".into()];
    words.push(format!("{MARKER}{:03o}", context.caller_umask).into());
    words.extend(carried_options(context, settings));
    words
}

/// The global options that another process needs to find the same settings, wherever it is started.
pub(super) fn carried_options(context: &Context, settings: &Settings) -> Vec<OsString> {
    let options = &context.options;
    let mut words = Vec::new();
    let mut add = |flag: &str, value: OsString| words.extend([OsString::from(flag), value]);
    let sources = &settings.path_sources;
    for (flag, source, path) in [
        ("--config-dir", &sources.dir, &settings.paths.dir),
        ("--config-path", &sources.config_file, &settings.paths.config_file),
        ("--log-path", &sources.log_file, &settings.paths.log_file),
        ("--pid-path", &sources.pid_file, &settings.paths.pid_file),
    ] {
        if *source != Source::Default {
            add(flag, path.into());
        }
    }
    // What the process environment and a named env file give, the child gets the same way.
    if let Some(path) = env_file_to_read_again(settings) {
        add("--env-file", path.into());
    }
    for (flag, value) in
        [("--device-name", &options.device_name), ("--supabase-url", &options.supabase_url)]
    {
        if let Some(value) = value {
            add(flag, value.into());
        }
    }
    for (flag, setting) in [
        ("--claude-cli", &settings.claude_cli),
        ("--codex-cli", &settings.codex_cli),
        ("--gemini-cli", &settings.gemini_cli),
    ] {
        if let Some(path) = setting {
            add(flag, absolute_program(path));
        }
    }
    if let Some(address) = options.metrics_listen {
        add("--metrics-listen", address.to_string().into());
    }
    if options.verbose {
        words.push("--verbose".into());
    }
    words
}

/// The env file, if it is one: from a pipe nothing comes twice, and what came goes to the child as
/// its environment.
pub(super) fn env_file_to_read_again(settings: &Settings) -> Option<&Path> {
    settings.env_file.as_deref().filter(|path| path.is_file())
}

/// A program with a slash is a path; one without is looked up by name.
fn absolute_program(program: &Sourced<String>) -> OsString {
    let program = &program.value;
    if !program.contains('/') {
        return program.into();
    }
    std::path::absolute(program).map_or_else(|_| program.into(), Into::into)
}

/// Takes the marker out of a command line; the umask that it carries.
pub(crate) fn take_marker(words: &mut Vec<OsString>) -> Option<u32> {
    take_umask(words, MARKER)
}

/// The same of any marker that carries a umask.
pub(super) fn take_umask(words: &mut Vec<OsString>, marker: &str) -> Option<u32> {
    let umask = |word: &OsString| {
        let digits = word.to_str()?.strip_prefix(marker)?;
        u32::from_str_radix(digits, 8).ok().filter(|mask| *mask <= 0o777)
    };
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let at = words[..end].iter().position(|word| umask(word).is_some())?;
    umask(&words.remove(at))
}

/// Before anything else is opened: a session of its own, and no descriptor but the standard ones.
pub(crate) fn detach() {
    let _leads_one_already = nix::unistd::setsid();
    for directory in ["/proc/self/fd", "/dev/fd"] {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        let open: Vec<i32> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|descriptor| *descriptor > 2)
            .collect();
        for descriptor in open {
            // The directory's own is among them, and closed by now.
            let _closed_already = nix::unistd::close(descriptor);
        }
        break;
    }
}

/// The gateway that was sent to the background.
pub(crate) fn child(context: &Context) -> Outcome {
    let outcome = run_child(context);
    if let Err(failure) = &outcome {
        say(&Word::Failed {
            error: context.redactor.text(&failure.message),
            hint: failure.hint.clone(),
            causes: failure.causes.iter().map(|cause| context.redactor.text(cause)).collect(),
            exit_code: failure.exit.code(),
            pid: None,
        });
        tracing::error!(error = %failure.message, causes = ?failure.causes, "the gateway ended");
    }
    outcome
}

fn run_child(context: &Context) -> Outcome {
    let settings = context.settings(Purpose::Start)?;
    // All paths are absolute by now, and no mount may be held busy.
    std::env::set_current_dir(Path::new("/"))?;
    settings.paths.prepare()?;
    let log = logging::init_file(
        &settings.log_filter.value,
        &context.redactor,
        &settings.paths.log_file,
    )?;
    let options = GatewayOptions {
        relaunch: upgrade::relaunch(context, &settings),
        settings,
        redactor: context.redactor.clone(),
        log: Some(log.handle()),
        caller_umask: context.caller_umask,
        // The manager knows the process that sent this one here, not this one.
        service: ServiceManager::none(),
        drive_sync: None,
    };
    let ended = asynchronous::long()?.block_on(async {
        let Some(gateway) = upgrade::prepare(context, options, &log.handle()).await? else {
            return Ok(ExitReason::Stopped);
        };
        let signals = Signals::listen(gateway.handle(), log.handle(), Hangup::Reload)?;
        let phase = gateway.handle().phase();
        let run = foreground::run_with_signals(gateway, signals);
        Box::pin(tell_when_up(run, phase)).await
    });
    match ended {
        Err(StartError::AlreadyRunning { pid }) => {
            say(&Word::Failed {
                error: "the gateway is already running".to_owned(),
                hint: None,
                causes: Vec::new(),
                exit_code: Exit::AlreadyRunning.code(),
                pid,
            });
            Ok(Exit::Done)
        }
        ended => foreground::outcome(ended),
    }
}

async fn tell_when_up(
    run: impl Future<Output = Result<ExitReason, StartError>>,
    mut phase: tokio::sync::watch::Receiver<Phase>,
) -> Result<ExitReason, StartError> {
    tokio::pin!(run);
    tokio::select! {
        // Pinned outside, so that it goes on below.
        ended = &mut run => return ended,
        // Cancel safe; an error means that the gateway is gone, which the other arm tells.
        Ok(_) = phase.wait_for(|phase| *phase == Phase::Up) => {}
    }
    say(&Word::Up { up: true, pid: std::process::id() });
    let_go();
    run.await
}

/// A parent that has given up waiting is no reason to stop.
fn say(word: &Word) {
    let Ok(line) = serde_json::to_string(word) else { return };
    let mut stdout = std::io::stdout().lock();
    let _nobody_waits = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Gives the pipes back: whoever reads the parent's output must not wait for the gateway.
fn let_go() {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else {
        return;
    };
    let _kept_then = nix::unistd::dup2_stdout(null.as_fd());
    let _kept_then = nix::unistd::dup2_stderr(null.as_fd());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_were_said() {
        for word in [
            Word::Up { up: true, pid: 7 },
            Word::Failed {
                error: "no".into(),
                hint: Some("do".into()),
                causes: vec!["why".into()],
                exit_code: 4,
                pid: None,
            },
        ] {
            let line = serde_json::to_string(&word).unwrap();
            assert_eq!(serde_json::from_str::<Word>(&line).unwrap(), word, "{line}");
        }
    }

    #[test]
    fn the_marker_is_taken_out_of_the_command_line() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let mut marked = words("x start --detached-child=022 -v");
        assert_eq!(take_marker(&mut marked), Some(0o22));
        assert_eq!(marked, words("x start -v"));
        for other in ["x start", "x start --detached-child=9", "x a -- --detached-child=022"] {
            let mut same = words(other);
            assert_eq!(take_marker(&mut same), None);
            assert_eq!(same, words(other));
        }
    }

    #[test]
    fn programs_by_path_are_made_absolute() {
        let program = |text: &str| {
            absolute_program(&Sourced { value: text.to_owned(), source: Source::Default })
        };
        assert_eq!(program("claude"), "claude");
        assert_eq!(program("/opt/claude"), "/opt/claude");
        assert!(Path::new(&program("./claude")).is_absolute());
    }
}
