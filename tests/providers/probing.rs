//! Probes are bounded, whatever the command does.

use std::path::Path;
use std::time::Duration;

use panorama_gateway::providers::probe::{Limits, probe};
use tokio::time::Instant;

use super::{FAKE, Machine};

const LIMIT: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn version_help_and_extensions_are_read() {
    let machine = Machine::new();
    let cli = machine.cli("p1/gemini", "0.61.0");
    let installed = probe(&FAKE, &machine.asker(), &cli, None, Limits::default()).await.unwrap();
    assert_eq!(installed.command, cli);
    assert_eq!(installed.version.as_deref(), Some("0.61.0"));
    assert_eq!(installed.flags, [("modelFlag", true), ("toolsFlag", false)].into());
    assert_eq!(installed.extensions, ["one", "two"]);
    assert_eq!(machine.asked(), ["p1/gemini --help", "p1/gemini --list", "p1/gemini --version"]);
    probe(&FAKE, &machine.asker(), &cli, Some("0.61.0".to_owned()), Limits::default())
        .await
        .unwrap();
    assert_eq!(machine.asked().iter().filter(|line| line.ends_with("--version")).count(), 1);
}

#[tokio::test]
async fn help_that_fails_is_the_providers_to_judge_and_no_version_is_fatal() {
    let machine = Machine::new();
    let body = "[ \"$1\" = --version ] && echo 1.0.0 || { echo oops >&2; exit 41; }";
    let cli = machine.script("p1/gemini", body);
    let installed = probe(&FAKE, &machine.asker(), &cli, None, Limits::default()).await.unwrap();
    assert_eq!(installed.flags, [("modelFlag", true), ("toolsFlag", false)].into());
    assert_eq!(installed.extensions, [""; 0]);
    let cli = machine.script("p1/gemini", "echo oops >&2; exit 3");
    let error = probe(&FAKE, &machine.asker(), &cli, None, Limits::default()).await.unwrap_err();
    assert_eq!(error.text, format!("{} --version ended with exit code 3: oops", cli.display()));
}

#[tokio::test]
async fn a_command_stands_on_nothing_of_ours() {
    let machine = Machine::new().with("PANORAMA_GATEWAY_LOG", "x");
    let body = "echo \"in:$(cat) var:$PANORAMA_GATEWAY_LOG probe:$FAKE_PROBE tmp:$TMPDIR\"; \
                echo \"$PATH\"; pwd";
    let cli = machine.script("odd/gemini", body);
    let said = machine.asker().ask(&cli, &[], &[("FAKE_PROBE", "yes")], LIMIT).await.unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "in: var: probe:yes tmp:/tmp");
    assert!(lines[1].starts_with(machine.path("odd").to_str().unwrap()), "{said}");
    assert_eq!(lines[2], "/");
}

#[tokio::test]
async fn one_that_hangs_is_ended() {
    let machine = Machine::new();
    let cli = machine.script("p1/gemini", "trap '' TERM INT HUP; while :; do sleep 1; done");
    let began = Instant::now();
    let error = machine.asker().ask(&cli, &["--version"], &[], LIMIT).await.unwrap_err();
    assert!(error.text.ends_with("--version did not end within 1 seconds"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(left_of(&machine), [0; 0]);
}

#[tokio::test]
async fn a_flood_is_read_but_not_kept() {
    let machine = Machine::new();
    let cli = machine.script("p1/gemini", "head -c 1073741824 /dev/zero");
    let limit = Duration::from_mins(1);
    let said = machine.asker().ask(&cli, &[], &[], limit).await.unwrap();
    assert!(said.len() <= 256 * 1024, "{}", said.len());
    let endless = machine.script("p1/gemini", "exec yes");
    let error = machine.asker().ask(&endless, &[], &[], LIMIT).await.unwrap_err();
    assert!(error.text.contains("did not end"), "{error}");
    assert_eq!(left_of(&machine), [0; 0]);
}

#[tokio::test]
async fn what_it_forks_goes_with_it() {
    let machine = Machine::new();
    let body = "setsid sh -c 'trap \"\" TERM HUP; sleep 600' & (sleep 600 &) ; echo 1.0.0";
    let cli = machine.script("p1/gemini", body);
    let said = machine.asker().ask(&cli, &["--version"], &[], LIMIT).await.unwrap();
    assert_eq!(said, "1.0.0\n");
    assert_eq!(left_of(&machine), [0; 0]);
}

#[tokio::test]
async fn garbage_is_text_all_the_same_and_signals_and_missing_files_are_named() {
    let machine = Machine::new();
    let cli = machine.script("p1/gemini", "printf 'a\\377\\000b'");
    let asker = machine.asker();
    assert_eq!(asker.ask(&cli, &[], &[], LIMIT).await.unwrap(), "a\u{fffd}\0b");
    let cli = machine.script("p1/gemini", "kill -SEGV $$");
    let error = asker.ask(&cli, &["-v"], &[], LIMIT).await.unwrap_err();
    assert!(error.text.ends_with("-v was ended by signal 11"), "{error}");
    let error = asker.ask(Path::new("/nowhere/x"), &[], &[], LIMIT).await.unwrap_err();
    assert!(error.text.starts_with("could not start /nowhere/x: "), "{error}");
    let file = machine.file("p1/gemini", "\x7fELF garbage", 0o755);
    assert!(asker.ask(&file, &[], &[], LIMIT).await.is_err());
}

/// Processes that still carry this machine's home.
fn left_of(machine: &Machine) -> Vec<i32> {
    let needle = format!("HOME={}", machine.home.path().display());
    let mut left = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|pair| pair == needle.as_bytes()) {
            left.push(pid);
        }
    }
    left
}
