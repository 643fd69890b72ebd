//! The command line: one file a command.
//!
//! `args` is the grammar, and runs nothing; each command's file has its `run`; `failure` has the
//! exit codes and the shape of errors. Commands that answer at once (`status`, `stop`, `logs`,
//! `full-control`) make neither a runtime nor an HTTP client.

mod age;
mod args;
mod asynchronous;
mod audit;
mod background;
mod completions;
mod config_show;
mod context;
mod doctor;
mod drive_sync;
mod failure;
mod foreground;
mod full_control;
mod guest;
mod identity;
mod instance;
mod logs;
mod pair;
mod printable;
mod progress;
mod sandbox;
mod service;
mod socket;
mod start;
mod status;
mod stop;
mod table;
mod ui;
mod unpair;
mod upgrade;
mod usage;
mod validation;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use nix::sys::stat::{Mode, umask};

use self::args::{Cli, Command, ConfigCommand};
use self::context::Context;
use self::failure::{Exit, Outcome};
use self::ui::Ui;
use crate::config::Environment;
use crate::observe::Redactor;

/// Parses, runs, and maps the outcome to an exit code.
pub fn main() -> ExitCode {
    // Whatever this process makes is its owner's alone; children get the caller's mask back.
    let caller_umask = umask(Mode::from_bits_truncate(0o077)).bits();
    let mut words = args::without_leading_dashes(std::env::args_os().collect());
    let succeeds = upgrade::take_marker(&mut words);
    let detached = background::take_marker(&mut words);
    if detached.is_some() {
        background::detach();
    }
    let takes_over = succeeds.and_then(|_| upgrade::line());
    let redactor = Redactor::default();
    let environment = Environment::of_process();
    let ui = Ui::new(&environment, redactor.clone());
    redact_panics(&ui);
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return usage::show(&error, &ui).into(),
    };
    let Some(command) = &cli.command else {
        let help = Cli::command().render_help();
        let text = if ui.colour_on_stdout() { help.ansi().to_string() } else { help.to_string() };
        return ended(ui.out_raw(&text).map(|()| Exit::Done).map_err(Into::into), false, &ui);
    };
    let executable = executable(&words);
    let mut options = cli.global.options();
    if let Command::Start(args) = command {
        options.metrics_listen = args.metrics_listen;
    }
    let context = Context {
        options,
        ui: ui.clone(),
        redactor,
        caller_umask: succeeds.or(detached).unwrap_or(caller_umask),
        detached: detached.is_some(),
        installation: upgrade::installation(&words, &executable, &environment),
        executable,
        takes_over,
        environment,
    };
    ended(run(&context, command), context.options.verbose, &ui)
}

fn run(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Pair(args) => pair::run(context, args),
        Command::Start(args) => start::run(context, args),
        Command::Stop(args) => stop::run(context, args),
        Command::Status(args) => status::run(context, args),
        Command::Logs(args) => logs::run(context, args),
        Command::Doctor(args) => doctor::run(context, args),
        Command::FullControl(args) => full_control::run(context, args),
        Command::Service(command) => service::run(context, command),
        Command::Unpair(args) => unpair::run(context, args),
        Command::Config(ConfigCommand::Show(args)) => config_show::run(context, args),
        Command::DriveSync(command) => drive_sync::run(context, command),
        Command::Sandbox(command) => sandbox::run(context, command),
        Command::Completions(args) => completions::run(context, args),
    }
}

/// A panic's text may quote what it was about.
fn redact_panics(ui: &Ui) {
    let ui = ui.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let trace = std::backtrace::Backtrace::capture();
        let captured = trace.status() == std::backtrace::BacktraceStatus::Captured;
        let trace = if captured { format!("\n{trace}") } else { String::new() };
        ui.err(&format!("{panic}{trace}\n"));
    }));
}

fn ended(outcome: Outcome, verbose: bool, ui: &Ui) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ui.err(&failure.render(verbose, ui.colour_on_stderr()));
            failure.exit.into()
        }
    }
}

fn executable(words: &[OsString]) -> std::path::PathBuf {
    let Ok(path) = std::env::current_exe() else {
        return words.first().map_or_else(|| "panorama-gateway".into(), Into::into);
    };
    // Replaced within the first moment of our life.
    let name = path.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    let before = name.map(|name| std::path::Path::new(std::ffi::OsStr::from_bytes(name)));
    before.filter(|_| !path.exists()).map_or_else(|| path.clone(), std::path::Path::to_owned)
}
