//! Every help text.

use crate::machine::Machine;

const COMMANDS: &[&str] = &[
    "",
    "pair",
    "start",
    "stop",
    "status",
    "logs",
    "doctor",
    "full-control",
    "service",
    "service install",
    "service uninstall",
    "service status",
    "unpair",
    "config",
    "config show",
    "completions",
    "sandbox",
    "sandbox up",
    "sandbox serve",
    "sandbox code",
    "sandbox submit",
    "sandbox submit shell-exec",
    "sandbox submit model-run",
    "sandbox submit subagent",
    "sandbox submit diagnostic",
    "sandbox jobs",
    "sandbox job",
    "sandbox cancel",
    "sandbox gateways",
    "sandbox drive",
    "sandbox drive create",
    "sandbox drive list",
    "sandbox drive ls",
    "sandbox drive put",
    "sandbox drive get",
    "sandbox drive mkdir",
    "sandbox drive rm",
    "sandbox drive mv",
    "sandbox full-control",
    "drive-sync",
    "drive-sync status",
    "drive-sync conflicts",
    "drive-sync release-deletions",
    "drive-sync resync",
    "drive-sync accept-root",
    "sandbox vm-token",
    "sandbox secret",
    "sandbox secret add",
    "sandbox secret rm",
    "sandbox secret ls",
];

#[test]
fn every_help_text() {
    let machine = Machine::new();
    for command in COMMANDS {
        let words: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let name = format!("help_{}", command.replace([' ', '-'], "_"));
        insta::assert_snapshot!(name.trim_end_matches('_'), machine.transcript(&words));
    }
    assert!(!machine.dir().exists(), "help makes no files");
}

#[test]
fn no_command_is_help() {
    let machine = Machine::new();
    let help = machine.command(&["-h"]).output().unwrap();
    for words in [&[][..], &["--"]] {
        let output = machine.command(words).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stdout, help.stdout);
    }
}

#[test]
fn every_command_that_help_names_is_shown_here() {
    let machine = Machine::new();
    for parent in [
        "",
        "config",
        "service",
        "drive-sync",
        "sandbox",
        "sandbox submit",
        "sandbox drive",
        "sandbox secret",
    ] {
        let words: Vec<_> = parent.split_whitespace().chain(["--help"]).collect();
        let help = String::from_utf8(machine.command(&words).output().unwrap().stdout).unwrap();
        let (_, commands) = help.split_once("Commands:\n").unwrap();
        for line in commands.lines().take_while(|line| !line.is_empty()) {
            let name = line.split_whitespace().next().unwrap();
            let full = format!("{parent} {name}");
            assert!(COMMANDS.contains(&full.trim()), "{full}");
        }
    }
}

#[test]
fn the_version() {
    let machine = Machine::new();
    let wanted = format!("panorama-gateway {}\n", env!("CARGO_PKG_VERSION"));
    for words in [
        &["--version"][..],
        &["-V"],
        &["--version", "status"],
        &["status", "--version"],
        &["sandbox", "submit", "shell-exec", "-V"],
    ] {
        let output = machine.command(words).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted, "{words:?}");
        assert_eq!(output.status.code(), Some(0), "{words:?}");
    }
}

#[test]
fn completions_for_every_shell_name_the_commands() {
    let machine = Machine::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = machine.command(&["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(script.contains("full-control"), "{shell}");
        assert!(!script.contains("detached-child"), "{shell}: hidden flags stay hidden");
    }
}
