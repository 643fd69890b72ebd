//! A gateway at work: start, status, logs, an outage, a revoked pairing.

use std::time::Duration;

use serde_json::json;

use crate::common::backend::{Fault, Middleman};
use crate::common::{ControlPlane, Machine, Paired, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn start_in_the_background_status_logs_stop() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    assert_eq!(machine.run_async(&["status", "--check"]).await.code, 3);

    let ran = machine.run_async(&["start", "--daemon"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let status = machine.run_async(&["status", "--json", "--check"]).await;
    assert_eq!(status.code, 0, "{status:?}");
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["running"], true, "{status}");

    // A second one says so and is no error.
    let again = machine.run_async(&["start", "--daemon"]).await;
    assert_eq!(again.code, 0, "{again:?}");

    let logs = machine.run_async(&["logs", "--no-follow"]).await;
    assert_eq!(logs.code, 0, "{logs:?}");
    assert!(logs.stdout.contains("ready"), "{logs:?}");

    let stop = machine.run_async(&["stop", "--wait=20"]).await;
    assert_eq!(stop.code, 0, "{stop:?}");
    assert_eq!(machine.run_async(&["status", "--check"]).await.code, 3);
    assert!(!machine.dir().join("gateway.pid").exists());
    assert!(!machine.dir().join("gateway.sock").exists());
    let gateways = control.gateways().await;
    assert_eq!(gateways[0]["status"], "offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_from_a_pipe_reach_the_gateway_in_the_background() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let mut start = machine.command(&["start", "--daemon", "--env-file", "/dev/stdin"]);
    let mut start = start.stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(
        &mut start.stdin.take().unwrap(),
        b"PANORAMA_GATEWAY_CONCURRENCY=3\n",
    )
    .unwrap();
    let code = tokio::task::spawn_blocking(move || start.wait()).await.unwrap().unwrap().code();
    assert_eq!(code, Some(0));
    assert_eq!(machine.status().await.unwrap()["concurrency"], 3);
    assert_eq!(machine.run_async(&["stop", "--wait=20"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_start_reports_what_stopped_it() {
    let machine = Machine::new();
    let ran = machine.run_async(&["start", "--daemon"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("pair"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_starts_at_once_one_runs() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let mut gateways: Vec<_> = (0..4).map(|_| machine.spawn(&[])).collect();
    machine.is_up().await;
    let mut running = 0;
    wait_until("all but one to go", || {
        running = gateways.iter_mut().map(|g| usize::from(g.is_running())).sum();
        async move { (running == 1).then_some(()) }
    })
    .await;
    for gateway in &mut gateways {
        if let Some(status) = gateway.child.try_wait().unwrap() {
            assert!(status.success(), "a gateway that finds another one is no error: {status}");
        }
    }
    let status = machine.status().await.unwrap();
    let running = gateways.iter_mut().find_map(|g| g.is_running().then_some(g.pid())).unwrap();
    assert_eq!(status["pid"], running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_pid_file_harms_nobody() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let mut bystander = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(machine.dir().join("gateway.pid"), bystander.id().to_string()).unwrap();
    let stop = machine.run_async(&["stop"]).await;
    assert_eq!(stop.code, 0, "{stop:?}");
    assert!(bystander.try_wait().unwrap().is_none(), "a foreign process was signalled");
    let gateway = machine.start().await;
    let pid = std::fs::read_to_string(machine.dir().join("gateway.pid")).unwrap();
    assert_eq!(pid.trim(), gateway.pid().to_string());
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_toggle_reaches_the_backend_within_a_second() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let _gateway = machine.start().await;
    for (word, on) in [("enable", true), ("disable", false)] {
        machine.run_async(&["full-control", word]).await;
        let began = tokio::time::Instant::now();
        wait_until("the backend to know the toggle", || async {
            let gateways = control.gateways().await;
            let services = &gateways[0]["capabilities"]["services"];
            (services["machine_control"]["ready"] == on).then_some(())
        })
        .await;
        // Far below the 30 s of the regular heartbeat: the change itself sent one.
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_nothing_but_time() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let paired = Paired::through(&control, &middleman.url).await;
    let (marker, go) = (paired.machine.home().join("marker"), paired.machine.home().join("go"));
    let command = format!(
        "echo x >> {}; until [ -e {} ]; do sleep 0.05; done; echo result",
        marker.display(),
        go.display()
    );
    // The claim's answer is lost on its way back; then the backend is down altogether.
    middleman.fault("PATCH /gateway_jobs", Fault::LostAnswer);
    let job = paired.submit_shell(&control, &command, json!({})).await;
    wait_until("the command to run", || async { marker.exists().then_some(()) }).await;
    middleman.fault("/gateway_jobs", Fault::Answer(503, "text/html", "<p>down</p>".into()));
    middleman.heal_but("/gateway_jobs");
    middleman.forget();
    std::fs::write(go, "").unwrap();
    wait_until("a report to be refused", || async {
        middleman.seen().iter().any(|seen| seen.method == "PATCH").then_some(())
    })
    .await;
    middleman.heal();
    let row = control.ended(&job).await;
    assert_eq!(row["status"], "completed", "{row}");
    assert_eq!(row["result"]["stdout"], "result\n");
    assert_eq!(std::fs::read_to_string(marker).unwrap(), "x\n", "ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_after_the_claim_fails_no_job_that_has_not_run_yet() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let paired = Paired::through(&control, &middleman.url).await;
    middleman.fault("/team_resources", Fault::Answer(503, "text/html", "<p>down</p>".into()));
    let job = paired.submit_shell(&control, "echo late", json!({})).await;
    wait_until("the resource to be asked for again and again", || async {
        let asked = middleman.seen().iter().filter(|s| s.path.ends_with("/team_resources")).count();
        (asked >= 4).then_some(())
    })
    .await;
    assert_eq!(control.admin.job(&job).await.unwrap()["status"], "running");
    middleman.heal();
    let row = control.ended(&job).await;
    assert_eq!((&row["status"], &row["result"]["stdout"]), (&json!("completed"), &json!("late\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_whose_answer_was_lost_is_not_logged_as_dropped() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let machine = Machine::new();
    let code = control.code().await;
    let gateway_id = machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    let _gateway = machine.start().await;
    middleman.fault("PATCH /gateway_jobs", Fault::LostAnswer);
    let job = control.submit(&gateway_id, "teleport", json!({})).await;
    assert_eq!(control.ended(&job).await["status"], "failed");
    middleman.heal();
    wait_until("the gateway to be done with it", || async {
        (machine.status().await?["finished_jobs"] == 1).then_some(())
    })
    .await;
    let logs = machine.run_async(&["logs", "--no-follow"]).await;
    assert!(logs.stdout.contains("job ended"), "{logs:?}");
    assert!(!logs.stdout.contains("no longer running"), "{logs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_away_at_the_start_is_waited_for() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let machine = Machine::new();
    let code = control.code().await;
    machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    middleman.fault("", Fault::Answer(503, "text/plain", "down".into()));
    let _gateway = machine.spawn(&[]);
    wait_until("the gateway to say what it waits for", || async {
        let status = machine.status().await?;
        (status["phase"] == "starting" && status["session"] == "retrying").then_some(())
    })
    .await;
    middleman.heal();
    machine.is_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_pairing_ends_the_gateway_with_its_own_exit_code() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let machine = Machine::new();
    let code = control.code().await;
    machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    let expired = json!({"code": 401, "error_code": "bad_jwt", "msg": "token is expired"});
    let gone = json!({"code": "refresh_token_not_found", "message": "Invalid Refresh Token"});
    middleman.fault("/user", Fault::Answer(403, "application/json", expired.to_string()));
    middleman.fault("/token", Fault::Answer(400, "application/json", gone.to_string()));
    let ran = machine.run_async(&["start", "--foreground"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("pair"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_job_costs_five_requests() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let paired = Paired::through(&control, &middleman.url).await;
    // What is told of the start is told by then.
    paired.shell(&control, "sleep 1").await;
    middleman.forget();
    paired.shell(&control, "true").await;
    let requests: Vec<_> = middleman
        .seen()
        .into_iter()
        .filter(|seen| !seen.path.ends_with("/gateway-heartbeat"))
        // The middleman carries no web sockets, so that one is asked for now and then.
        .filter(|seen| !seen.path.starts_with("/realtime/"))
        .filter(|seen| !(seen.method == "GET" && seen.query.contains("status=eq.queued")))
        .map(|seen| format!("{} {}?{}", seen.method, seen.path, seen.query))
        .collect();
    assert!(requests.len() <= 5, "{requests:#?}");
}

/// Spoils the row of `teleport` jobs wherever it comes by, and puts garbage before polled rows.
fn spoil(query: &str, answer: &mut serde_json::Value) {
    let Some(rows) = answer.as_array_mut() else { return };
    for row in rows.iter_mut().filter(|row| row["job_type"] == "teleport") {
        row["payload"] = json!(["not", "an", "object"]);
    }
    if query.contains("order=created_at") {
        let garbage = [json!("text"), json!({"no": "id"}), json!(null), json!({"id": 7})];
        rows.splice(0..0, garbage);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_rows_hide_no_good_one_and_are_not_left_queued() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    middleman.fault("/gateway_jobs", Fault::Changed(spoil));
    let machine = Machine::new();
    let code = control.code().await;
    let gateway_id = machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    machine.allow_control().await;
    let resource = control.allow_shell(&gateway_id).await;
    let bad = control.submit(&gateway_id, "teleport", json!({})).await;
    let payload = json!({"command": "echo good", "resource_id": resource});
    let good = control.submit(&gateway_id, "shell_exec", payload).await;
    let _gateway = machine.start().await;
    let row = control.ended(&good).await;
    assert_eq!(row["result"]["stdout"], "good\n", "{row}");
    let row = control.ended(&bad).await;
    assert_eq!(row["status"], "failed", "{row}");
    let message = row["result"]["message"].as_str().unwrap();
    assert!(message.contains("payload is not an object"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn diagnostic_runs_the_claude_that_is_there() {
    use std::os::unix::fs::PermissionsExt;
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let claude = machine.home().join("claude");
    std::fs::write(&claude, "#!/bin/sh\necho '9.9.9 (Test)'\n").unwrap();
    std::fs::set_permissions(&claude, PermissionsExt::from_mode(0o755)).unwrap();
    let machine = machine.with("PANORAMA_CLAUDE_CLI", claude.display().to_string());
    let paired = Paired::start_on(machine, &control).await;
    let job = control.submit(&paired.gateway_id, "diagnostic", json!({})).await;
    let row = control.ended(&job).await;
    assert_eq!(row["status"], "completed", "{row}");
    assert_eq!(row["result"]["version"], "9.9.9 (Test)");
    assert_eq!(row["result"]["exit_code"], 0);

    std::fs::remove_file(&claude).unwrap();
    let job = control.submit(&paired.gateway_id, "diagnostic", json!({})).await;
    let row = control.ended(&job).await;
    assert_eq!(row["status"], "failed", "{row}");
    assert!(row["result"]["error"].is_string(), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_an_unknown_type_fails_by_name() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let job = control.submit(&paired.gateway_id, "teleport", json!({})).await;
    let row = control.ended(&job).await;
    assert_eq!(
        (&row["status"], &row["result"]["job_type"]),
        (&json!("failed"), &json!("teleport"))
    );
}
