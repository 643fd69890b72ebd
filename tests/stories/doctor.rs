//! `doctor`, the checks of a `diagnostic` job, and the providers when a machine is paired.

use serde_json::{Value, json};

use crate::common::agents::{Agent, RECORDED};
use crate::common::{ControlPlane, Machine, wait_until};

/// Claude Code answers the question of the full check.
fn healthy() -> String {
    format!(
        "cat > /dev/null; sed 's/\"structured_output\":{{[^}}]*}}/\"structured_output\":\
         {{\"message\":\"hi\"}}/' {RECORDED}/claude/structured/stdout.txt"
    )
}

/// Gemini CLI is not logged in.
fn refused() -> String {
    let case = format!("{RECORDED}/gemini/error-401");
    format!("cat > /dev/null; cat {case}/stdout.txt; cat {case}/stderr.txt >&2; exit 145")
}

/// A machine with both, and no Codex CLI.
fn machine() -> Machine {
    let (machine, _claude) = Agent::install(Machine::new(), "claude", &healthy());
    let (machine, _gemini) = Agent::install(machine, "gemini", &refused());
    machine.with("PANORAMA_CODEX_CLI", "/nowhere/codex")
}

/// What `doctor --json` says, and its exit code.
async fn doctor(machine: &Machine) -> (Value, i32) {
    let ran = machine.run_async(&["doctor", "--json"]).await;
    (serde_json::from_str(&ran.stdout).expect(&ran.stderr), ran.code)
}

/// The status of one check; null when it was not made.
fn status<'a>(report: &'a Value, id: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).map_or(&Value::Null, |check| &check["status"])
}

/// Events of validations in this context: provider and level.
fn events(control: &ControlPlane, context: &str) -> Vec<(String, String)> {
    let store = rusqlite::Connection::open(control.data_dir().join("sandbox.db")).unwrap();
    let mut query = store
        .prepare("select provider, level, details from gateway_events order by provider")
        .unwrap();
    let rows = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))
        .unwrap();
    rows.map(Result::unwrap)
        .filter(|(_, _, details)| details.contains(&format!("\"context\":\"{context}\"")))
        .map(|(provider, level, _)| (provider, level))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_shows_every_provider_and_tells_of_those_that_are_not_healthy() {
    let control = ControlPlane::start().await;
    let machine = machine();
    let (url, key, code) = (control.url(), control.server.anon_key(), control.code().await);
    let words = ["pair", &code, "--no-start", "--supabase-url", &url, "--anon-key", key];
    let ran = machine.run_async(&words).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().rev().take(3).collect();
    assert!(lines[2].starts_with("Claude Code  2.1.197  healthy ("), "{ran:?}");
    assert!(lines[2].ends_with(" s, claude-sonnet-5)"), "{ran:?}");
    assert!(lines[1].starts_with("Codex CLI    "), "{ran:?}");
    assert!(lines[0].starts_with("Gemini CLI   0.61.0  unhealthy: fake error 401; "), "{ran:?}");
    let told = events(&control, "pairing");
    let wanted = [("codex", "warn"), ("gemini", "error")];
    assert_eq!(told, wanted.map(|(id, level)| (id.to_owned(), level.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paired_machine_is_looked_at_without_and_with_a_running_gateway() {
    let control = ControlPlane::start().await;
    let machine = machine();
    machine.pair(&control).await;
    let (report, code) = doctor(&machine).await;
    assert_eq!((code, &report["ok"]), (0, &json!(true)), "{report:#}");
    let all = [
        "host",
        "permissions",
        "disk_space",
        "on_disk",
        "audit_log",
        "config",
        "gateway",
        "pairing",
        "backend",
        "auth",
        "rest",
        "functions",
        "clock",
        "session",
        "realtime",
        "realtime_join",
        "provider_claude_code",
        "provider_codex",
        "provider_gemini",
        "providers",
    ];
    let made: Vec<&Value> =
        report["checks"].as_array().unwrap().iter().map(|check| &check["id"]).collect();
    assert_eq!(made, all.iter().map(|id| json!(id)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    for id in all {
        let wanted =
            if ["provider_codex", "provider_gemini"].contains(&id) { "warn" } else { "ok" };
        assert_eq!(status(&report, id), wanted, "{id}: {report:#}");
    }
    assert_eq!(events(&control, "doctor").len(), 2);

    // A running gateway keeps its session and goes on undisturbed.
    let mut gateway = machine.start().await;
    wait_until("realtime", || async {
        (machine.status().await?["realtime"]["state"] == "ready").then_some(())
    })
    .await;
    let tokens = machine.config()["refreshToken"].clone();
    let (report, code) = doctor(&machine).await;
    assert_eq!(code, 0, "{report:#}");
    for id in ["session", "realtime", "realtime_join", "rest"] {
        assert_eq!(status(&report, id), "ok", "{id}: {report:#}");
    }
    assert!(report.to_string().contains("says the running gateway"), "{report:#}");
    assert_eq!(machine.config()["refreshToken"], tokens);
    assert_eq!(machine.status().await.unwrap()["phase"], "up");
    assert_eq!(events(&control, "doctor").len(), 4);
    assert_eq!(machine.run_async(&["stop", "--wait=20"]).await.code, 0);
    gateway.ended().await;

    // What stops a gateway is a failure.
    drop(control);
    let (report, code) = doctor(&machine).await;
    assert_eq!((code, &report["ok"]), (1, &json!(false)), "{report:#}");
    assert_eq!(status(&report, "auth"), "fail", "{report:#}");
    assert_eq!(status(&report, "provider_claude_code"), "ok", "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diagnostic_job_brings_the_checks() {
    let control = ControlPlane::start().await;
    let (machine, claude) = Agent::install(Machine::new(), "claude", &healthy());
    let id = machine.pair(&control).await;
    let _gateway = machine.start().await;
    wait_until("the start's own check", || async { (claude.calls().len() >= 2).then_some(()) })
        .await;
    let plain = control.ended(&control.submit(&id, "diagnostic", json!({})).await).await;
    assert_eq!(plain["status"], "completed", "{plain}");
    assert_eq!(plain["result"]["version"], "2.1.197 (Claude Code)");
    for check in ["host", "permissions", "disk_space", "clock", "auth", "session", "realtime"] {
        assert_eq!(status(&plain["result"], check), "ok", "{check}: {plain}");
    }
    let first = plain["result"]["checks"][0].as_object().unwrap();
    assert_eq!(first.keys().collect::<Vec<_>>(), ["id", "status", "detail", "duration_ms"]);
    let calls = claude.calls().len();
    claude.acts("cat > /dev/null; exit 3");
    let full = control.submit(&id, "diagnostic", json!({"validate": true})).await;
    let full = control.ended(&full).await;
    assert_eq!(full["status"], "completed", "{full}");
    assert_eq!(status(&full["result"], "provider_claude_code"), "warn", "{full}");
    assert_eq!(claude.calls().len(), calls + 1);
}
