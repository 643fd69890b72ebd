//! Wrong usage: exit 2, one line what, one line what to do, no file made.

use crate::machine::Machine;

#[test]
fn every_error_of_usage() {
    let machine = Machine::new();
    let cases: &[(&str, &[&str])] = &[
        ("unknown_command", &["strat"]),
        ("unknown_flag", &["stop", "--forse"]),
        ("unknown_environment", &["--env", "mars", "status"]),
        ("flag_without_value", &["status", "--config-dir"]),
        ("pair_without_code", &["pair"]),
        ("pair_with_two_codes", &["pair", "A", "--code", "B"]),
        ("pair_with_bad_toggle", &["pair", "A", "--full-control=maybe"]),
        ("pair_with_empty_code", &["pair", " "]),
        ("pair_with_nothing_on_stdin", &["pair", "-"]),
        ("start_both_ways", &["start", "--foreground", "--daemon"]),
        ("start_in_no_mode", &["start", "--mode", "remote"]),
        ("start_metrics_at_no_address", &["start", "--metrics-listen", "9464"]),
        ("stop_waits_for_words", &["stop", "--wait=long"]),
        ("logs_no_lines", &["logs", "--lines", "0"]),
        ("logs_not_a_number", &["logs", "--lines=many"]),
        ("logs_bad_age", &["logs", "--since", "yesterday"]),
        ("logs_bad_level", &["logs", "--level", "loud"]),
        ("full_control_unknown_action", &["full-control", "maybe"]),
        ("unpair_with_nobody_to_ask", &["unpair"]),
        ("config_without_command", &["config"]),
        ("completions_unknown_shell", &["completions", "csh"]),
        ("sandbox_bad_address", &["sandbox", "up", "--listen", "here"]),
        ("sandbox_ephemeral_data_dir", &["sandbox", "up", "--ephemeral", "--data-dir", "x"]),
        ("sandbox_submit_without_command", &["sandbox", "submit", "shell-exec"]),
        ("sandbox_job_without_id", &["sandbox", "job"]),
        ("sandbox_jobs_bad_status", &["sandbox", "jobs", "--status", "lost"]),
    ];
    for (name, words) in cases {
        if *name == "unpair_with_nobody_to_ask" {
            machine.write_config(r#"{"gatewayId": "g"}"#);
        }
        insta::assert_snapshot!(*name, machine.transcript(words));
    }
}

#[test]
fn errors_are_plain_where_nobody_sees_colours() {
    let machine = Machine::new();
    let output = machine.command(&["strat"]).env("CLICOLOR_FORCE", "0").output().unwrap();
    assert!(!output.stderr.contains(&0x1b));
}
