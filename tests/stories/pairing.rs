//! Pairing, and everything that a backend can do to spoil it.

use std::time::Duration;

use serde_json::json;

use crate::common::backend::{Fault, Middleman};
use crate::common::{ControlPlane, Machine, Paired, wait_until};

const EXCHANGE: &str = "/exchange-gateway-pairing-code";

#[tokio::test(flavor = "multi_thread")]
async fn a_code_works_once() {
    let control = ControlPlane::start().await;
    let code = control.code().await;
    let first = Machine::new();
    first.pair_with(&control.url(), control.server.anon_key(), &code).await;
    let config = first.config();
    for field in ["accessToken", "refreshToken", "teamId", "supabaseUrl", "supabaseAnonKey"] {
        assert!(config[field].is_string(), "{field}: {config}");
    }

    let second = Machine::new();
    let url = control.url();
    for code in [code.as_str(), "NOT-A-CODE"] {
        let args = [
            "pair",
            code,
            "--no-start",
            "--supabase-url",
            &url,
            "--anon-key",
            control.server.anon_key(),
        ];
        let ran = second.run_async(&args).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(!ran.stderr.contains(code), "the code is printed: {ran:?}");
        assert!(!second.config_file().exists(), "nothing is saved");
    }
    assert_eq!(control.gateways().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_misbehaves_is_an_error_with_a_name() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let machine = Machine::new();
    let html = "<!doctype html><title>Welcome to the hotel</title>".to_owned();
    let faults = [
        ("html", Fault::Answer(200, "text/html", html.clone())),
        ("html error", Fault::Answer(502, "text/html", html)),
        ("huge", Fault::Huge(100 * 1024 * 1024)),
        ("half", Fault::Half("{\"success\": true, \"gatew")),
        ("incomplete", Fault::Answer(200, "application/json", "{\"success\":true}".into())),
        ("not an object", Fault::Answer(200, "application/json", "[1]".into())),
    ];
    for (name, fault) in faults {
        middleman.fault(EXCHANGE, fault);
        let args = [
            "pair",
            "CODE-1234",
            "--no-start",
            "--supabase-url",
            &middleman.url,
            "--anon-key",
            control.server.anon_key(),
        ];
        let ran = machine.run_async(&args).await;
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        assert!(!ran.stderr.is_empty() && !ran.stderr.contains("panicked"), "{name}: {ran:?}");
        assert!(!machine.config_file().exists(), "{name}: nothing is saved");
        middleman.heal();
    }
    // The same code goes through once the backend is well again.
    let code = control.code().await;
    machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_url_wrong_key_and_nothing_there() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let url = control.url();
    let key = control.server.anon_key().to_owned();
    let nowhere = "http://127.0.0.1:9";
    let cases = [
        (nowhere, key.as_str(), 1),
        (url.as_str(), "wrong-key", 1),
        (url.as_str(), "key\nwith newline", 1),
        ("not a url", key.as_str(), 1),
        ("http://gateway.example.com", key.as_str(), 1),
    ];
    for (url, key, code) in cases {
        let args = ["pair", "CODE-1234", "--no-start", "--supabase-url", url, "--anon-key", key];
        let ran = machine.run_async(&args).await;
        assert_eq!(ran.code, code, "{url} {key}: {ran:?}");
        assert!(!ran.stderr.contains(key), "the key is printed: {ran:?}");
        assert!(ran.stderr.contains("hint"), "what to do: {ran:?}");
    }
    let ran = machine.run_async(&["pair", "CODE-1234"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("PANORAMA_SUPABASE_URL"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_may_come_by_stdin() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let code = control.code().await;
    let url = control.url();
    let mut command = machine.command(&[
        "pair",
        "-",
        "--no-start",
        "--supabase-url",
        &url,
        "--anon-key",
        control.server.anon_key(),
    ]);
    command.stdin(std::process::Stdio::piped());
    let status = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{code}\n").as_bytes()).unwrap();
        child.wait().unwrap()
    })
    .await
    .unwrap();
    assert!(status.success());
    assert!(machine.config()["gatewayId"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_again_keeps_toggle_and_unknown_fields() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let before = machine.pair(&control).await;
    machine.allow_control().await;
    let mut config = machine.config();
    config["somethingNewer"] = json!({"kept": [1, 2]});
    std::fs::write(machine.config_file(), config.to_string()).unwrap();
    let after = machine.pair(&control).await;
    assert_ne!(before, after);
    let config = machine.config();
    assert_eq!(config["full_control_enabled"], true);
    assert_eq!(config["somethingNewer"], json!({"kept": [1, 2]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_adopts_a_pairing_with_another_backend() {
    let control = ControlPlane::start().await;
    let other = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let _gateway = machine.start().await;
    let code = other.code().await;
    let (url, key) = (other.url(), other.server.anon_key().to_owned());
    let args = [
        "pair",
        &code,
        "--no-start",
        "--supabase-url",
        &url,
        "--anon-key",
        &key,
        "--device-name",
        "renamed",
    ];
    assert_eq!(machine.run_async(&args).await.code, 0);
    wait_until("the other backend to know it", || async {
        let gateways = other.gateways().await;
        (gateways[0]["status"] == "ready" && gateways[0]["device_name"] == "renamed").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_adopts_a_new_pairing() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let slow = paired.submit_shell(&control, "sleep 1; echo done", json!({})).await;
    paired.machine.ask("status").await.unwrap();
    let new_id = paired.machine.pair(&control).await;
    assert_ne!(new_id, paired.gateway_id);
    wait_until("the new identity to be up", || async {
        let gateways = control.gateways().await;
        gateways
            .iter()
            .any(|row| row["id"] == new_id.as_str() && row["status"] == "ready")
            .then_some(())
    })
    .await;
    let slow = control.admin.job(&slow).await.unwrap();
    // Whether it was claimed before the change or not, it is not left running.
    assert!(slow["status"] == "completed" || slow["status"] == "queued", "{slow}");
    let resource = control.allow_shell(&new_id).await;
    let job = control
        .submit(&new_id, "shell_exec", json!({"command": "echo new", "resource_id": resource}))
        .await;
    assert_eq!(control.ended(&job).await["result"]["stdout"], "new\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_backend_is_waited_for() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    middleman.fault(EXCHANGE, Fault::Slow(Duration::from_secs(2)));
    let code = control.code().await;
    Machine::new().pair_with(&middleman.url, control.server.anon_key(), &code).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unpair_forgets_the_identity_and_turns_the_toggle_off() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let ran = paired.machine.run_async(&["unpair", "--yes"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    paired.gateway.ended().await;
    let config = paired.machine.config();
    for field in ["accessToken", "refreshToken", "gatewayId", "teamId"] {
        assert!(config.get(field).is_none_or(serde_json::Value::is_null), "{field}: {config}");
    }
    assert_ne!(config["full_control_enabled"], true);
    wait_until("the backend to know", || async {
        let gateways = control.gateways().await;
        (gateways[0]["status"] == "offline").then_some(())
    })
    .await;
    let ran = paired.machine.run_async(&["start", "--foreground"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_starts_the_gateway_and_warns_once() {
    let control = ControlPlane::start().await;
    let machine = Machine::new().with("PANORAMA_GATEWAY_CONCURRENCY", "many");
    let (url, key, code) = (control.url(), control.server.anon_key(), control.code().await);
    let ran = machine.run_async(&["pair", &code, "--supabase-url", &url, "--anon-key", key]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("The gateway is up"), "{ran:?}");
    assert_eq!(ran.stderr.matches("PANORAMA_GATEWAY_CONCURRENCY").count(), 1, "{ran:?}");
    assert_eq!(machine.run_async(&["stop", "--wait=20"]).await.code, 0);
}
