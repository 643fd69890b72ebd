//! What commands say.

use std::io::{BufRead, BufReader};

use crate::machine::Machine;

const PAIRED: &str = r#"{"supabaseUrl": "http://127.0.0.1:9", "supabaseAnonKey": "anon-key-1234",
    "accessToken": "access-token-1234", "refreshToken": "refresh-token-1234",
    "gatewayId": "gw-1", "teamId": "team-1", "deviceName": "box"}"#;

/// Columns are as wide as the paths of this machine, which are nobody's business.
fn show(name: &str, transcript: &str) {
    insta::with_settings!({filters => vec![(" {2,}", "  ")]}, {
        insta::assert_snapshot!(name, transcript);
    });
}

#[test]
fn on_a_fresh_machine() {
    let machine = Machine::new();
    let cases: &[(&str, &[&str])] = &[
        ("fresh_status", &["status"]),
        ("fresh_status_verbose", &["status", "-v"]),
        ("fresh_status_json", &["status", "--json"]),
        ("fresh_status_check", &["status", "--check"]),
        ("fresh_start", &["start"]),
        ("fresh_start_managed", &["start", "--mode", "managed"]),
        ("fresh_stop", &["stop"]),
        ("fresh_logs", &["logs", "--no-follow"]),
        ("fresh_full_control", &["full-control"]),
        ("fresh_full_control_off", &["full-control", "off"]),
        ("fresh_unpair", &["unpair", "--yes"]),
        ("fresh_pair", &["pair", "ABCD-1234"]),
        ("fresh_config", &["config", "show"]),
        ("fresh_sandbox_jobs", &["sandbox", "jobs"]),
        ("missing_env_file", &["--env-file", "absent.env", "status"]),
    ];
    for (name, words) in cases {
        show(name, &machine.transcript(words));
    }
}

/// The machine and its room are what they are.
#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let machine = Machine::new();
    let filters = vec![
        (r#"panorama-gateway \S+ on [^"\n]*"#, "panorama-gateway [version] on [machine]"),
        (r"[0-9.]+ [GM]iB free", "[some] free"),
        (r"could not (connect|reach the backend): .*?;", "could not $1: [why];"),
        (r#""duration_ms": \d+"#, "\"duration_ms\": 0"),
    ];
    insta::with_settings!({filters => filters}, {
        insta::assert_snapshot!("doctor_fresh", machine.transcript(&["doctor"]));
        insta::assert_snapshot!("doctor_fresh_json", machine.transcript(&["doctor", "--json"]));
        machine.write_config("{\"gatewayId\": ");
        insta::assert_snapshot!("doctor_damaged", machine.transcript(&["doctor"]));
        machine.write_config(PAIRED);
        insta::assert_snapshot!("doctor_paired", machine.transcript(&["doctor"]));
    });
}

#[test]
fn variables_that_are_not_understood_are_named() {
    let output = Machine::new()
        .command(&["status"])
        .env("PANORAMA_GATEWAY_CONCURRENCY", "many")
        .env("PANORAMA_GATEWAY_AUTO_RESTART", "perhaps")
        .env("PANORAMA_GATEWAY_LOG", "info,loud")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r#"
    warning: PANORAMA_GATEWAY_CONCURRENCY is ignored: "many" is not a whole number
    warning: PANORAMA_GATEWAY_AUTO_RESTART is ignored: "perhaps" is neither 1/true/yes/on nor 0/false/no/off
    warning: PANORAMA_GATEWAY_LOG is ignored: "info,loud" is neither a level (error, warn, info, debug, trace) nor a list of target=level
    "#);
}

#[test]
fn looking_makes_no_files() {
    let machine = Machine::new();
    for words in [
        &["status"][..],
        &["stop"],
        &["logs", "--no-follow"],
        &["full-control"],
        &["full-control", "off"],
        &["doctor"],
        &["config", "show"],
        &["start"],
        &["unpair", "--yes"],
        &["sandbox", "jobs"],
    ] {
        machine.command(words).output().unwrap();
        assert!(!machine.home().join(".panorama").exists(), "{words:?}");
    }
}

#[test]
fn on_a_paired_machine() {
    let machine = Machine::new();
    machine.write_config(PAIRED);
    let cases: &[(&str, &[&str])] = &[
        ("paired_status", &["status", "-v"]),
        ("paired_config", &["config", "show"]),
        ("paired_config_json", &["config", "show", "--json"]),
        ("paired_full_control_on", &["full-control", "on"]),
        ("paired_full_control", &["full-control", "status"]),
        (
            "paired_unreachable",
            &["pair", "CODE-12345678", "--supabase-url=http://127.0.0.1:9", "--anon-key=k"],
        ),
        ("paired_unpair", &["unpair", "-y"]),
        ("paired_unpair_again", &["unpair", "-y"]),
    ];
    for (name, words) in cases {
        let shown = machine.transcript(words);
        for secret in ["anon-key-1234", "access-token-1234", "refresh-token-1234"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        if *name != "paired_unreachable" {
            show(name, &shown);
            continue;
        }
        let (_, stderr) = shown.split_once("[stderr]").unwrap();
        insta::assert_snapshot!(*name, stderr);
        assert!(!stderr.contains("CODE-12345678"), "{stderr}");
    }
}

#[test]
fn a_damaged_config_stops_neither_stop_nor_logs() {
    let machine = Machine::new();
    machine.write_config("{\"gatewayId\": ");
    std::fs::write(machine.dir().join("gateway.log"), "a line\n").unwrap();
    for (name, words) in [
        ("damaged_stop", &["stop"][..]),
        ("damaged_logs", &["logs", "--no-follow"]),
        ("damaged_status", &["status"]),
        ("damaged_start", &["start"]),
    ] {
        insta::assert_snapshot!(name, machine.transcript(words));
    }
}

#[test]
fn logs_filter_and_render() {
    let machine = Machine::new();
    machine.write_config(PAIRED);
    let lines = [
        r#"{"timestamp":"2026-01-01T10:00:00.000000Z","level":"INFO","message":"up","target":"x"}"#,
        r#"{"timestamp":"2026-01-01T10:00:01.000000Z","level":"WARN","message":"poll failed","error":"no route","target":"x"}"#,
        "thread 'main' panicked",
    ];
    std::fs::write(machine.dir().join("gateway.log"), lines.join("\n") + "\n").unwrap();
    for (name, words) in [
        ("logs_all", &["logs", "--no-follow"][..]),
        ("logs_last", &["logs", "--no-follow", "--lines", "1"]),
        ("logs_warn", &["logs", "--no-follow", "--level", "warn"]),
        ("logs_raw", &["logs", "--no-follow", "--json"]),
        ("logs_since", &["logs", "--no-follow", "--since", "1d"]),
    ] {
        insta::assert_snapshot!(name, machine.transcript(words));
    }
}

#[test]
fn logs_follow() {
    use std::io::Write;
    let machine = Machine::new();
    machine.write_config(PAIRED);
    let path = machine.dir().join("gateway.log");
    std::fs::write(&path, "first\n").unwrap();
    let mut logs = machine.command(&["logs"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "first");
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"second\n").unwrap();
    assert_eq!(next(), "second");
    std::fs::rename(&path, machine.dir().join("gateway.log.1")).unwrap();
    std::fs::write(&path, "third\n").unwrap();
    assert_eq!(next(), "third");
    logs.kill().unwrap();
    logs.wait().unwrap();
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let machine = Machine::new();
    let mut command = machine.command(&["completions", "bash"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
