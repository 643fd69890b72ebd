//! `shell_exec`: what it returns, what it refuses, what it leaves.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use panorama_gateway::sandbox::client::NewJob;

use crate::common::{ControlPlane, Machine, Paired, ProcessName, fields, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn the_result_holds_every_field() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let row = paired.shell(&control, "echo out; echo err >&2; pwd; exit 3").await;
    assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &Value::Null));
    let result = &row["result"];
    let expected = json!({
        "message": "The command ended with exit code 3",
        "resource_id": paired.resource_id,
        "command": "echo out; echo err >&2; pwd; exit 3",
        "shell": "/bin/bash",
        "cwd": "/",
        "stdout": "out\n/\n",
        "stderr": "err\n",
        "exit_code": 3,
        "duration_ms": result["duration_ms"],
        "timed_out": false,
        "success": false,
        "stdout_truncated": false,
        "stderr_truncated": false,
        "output_truncated": false,
        "error": "The command ended with exit code 3",
        "exec_user": null,
        "workload_id": null,
        "cgroup": null,
        "cgroup_termination_error": null,
        "readiness_evidence": null,
        "process_tree_contained": false,
    });
    assert_eq!(result, &expected);
    assert!(row["started_at"].is_string() && row["completed_at"].is_string(), "{row}");

    let row = paired.shell(&control, "kill -KILL $$").await;
    let result = &row["result"];
    assert_eq!((&result["exit_code"], &result["signal"]), (&Value::Null, &json!("SIGKILL")));
    assert_eq!(result["success"], false);

    let row = paired.shell(&control, "true").await;
    assert_eq!((&row["result"]["success"], &row["result"]["error"]), (&json!(true), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_names_its_reason_and_runs_nothing() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let marker = paired.machine.home().join("marker");
    let touch = format!("touch {}", marker.display());
    let gateway = paired.gateway_id.as_str();
    let resource = async |kind: &str, level: &str, metadata: Value| {
        control.resource(gateway, kind, level, metadata).await
    };
    let ours = json!({"gateway_id": gateway, "full_control": true});
    let viewer = resource("remote_shell", "viewer", ours.clone()).await;
    let drive = resource("drive", "editor", ours).await;
    let other_gateway = Machine::new().pair(&control).await;
    let other_host = control.allow_shell(&other_gateway).await;
    let of_a_vm = resource(
        "remote_shell",
        "editor",
        json!({"vm_id": "vm-1", "gateway_id": gateway, "full_control": true}),
    )
    .await;
    let no_control =
        resource("remote_shell", "editor", json!({"gateway_id": gateway, "full_control": "true"}))
            .await;
    let missing = uuid::Uuid::new_v4().to_string();
    let good = paired.resource_id.clone();
    let cases = [
        (json!({"command": touch}), "resource_id"),
        (json!({"command": touch, "resource_id": 7}), "resource_id"),
        (json!({"command": touch, "resource_id": missing}), "does not exist"),
        (json!({"command": touch, "resource_id": "../../etc"}), "does not exist"),
        (json!({"command": touch, "resource_id": viewer}), "viewed"),
        (json!({"command": touch, "resource_id": drive}), "not a remote shell"),
        (json!({"command": touch, "resource_id": other_host}), "another host"),
        (json!({"command": touch, "resource_id": of_a_vm}), "another host"),
        (json!({"command": touch, "resource_id": no_control}), "full control"),
        (json!({"resource_id": good}), "command"),
        (json!({"command": " \n ", "resource_id": good}), "command"),
        (json!({"command": ["touch"], "resource_id": good}), "command"),
        (
            json!({"command": touch, "resource_id": good, "secret_env": {"KEY": "name"}}),
            "secret_env",
        ),
    ];
    let mut jobs = Vec::new();
    for (payload, reason) in cases {
        let job = control.submit(gateway, "shell_exec", payload.clone()).await;
        jobs.push((payload, reason, job));
    }
    for (payload, reason, job) in jobs {
        let row = control.ended(&job).await;
        assert_eq!(row["status"], "failed", "{payload}: {row}");
        let message = row["result"]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{payload}: {message}");
        assert_eq!(row["error"], row["result"]["message"], "{payload}");
        if let Some(id) = payload.get("resource_id").filter(|id| id.is_string()) {
            assert_eq!(&row["result"]["resource_id"], id, "{payload}");
        }
    }
    assert!(!marker.exists(), "a refused command ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_toggle_alone_stops_the_next_command() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let status = async |why: &str| {
        let row = paired.shell(&control, "true").await;
        (row["status"].as_str().unwrap().to_owned(), format!("{why}: {row}"))
    };
    assert_eq!(status("all on").await.0, "completed");
    control.admin.set_full_control(Some(&paired.gateway_id), false).await.unwrap();
    let (word, row) = status("team off").await;
    assert!(word == "failed" && row.contains("team"), "{row}");
    control.admin.set_full_control(Some(&paired.gateway_id), true).await.unwrap();
    paired.machine.run_async(&["full-control", "disable"]).await;
    let (word, row) = status("host off").await;
    assert!(word == "failed" && row.contains("full-control enable"), "{row}");
    paired.machine.allow_control().await;
    wait_until("machine control to be on again", || async {
        (paired.shell(&control, "true").await["status"] == "completed").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_bytes_survive_as_far_as_text_can_hold_them() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let row = paired
        .shell(&control, r"printf 'a\0b\xff\xfec\xc3\xa9\n'; printf '\xed\xa0\x80' >&2")
        .await;
    assert_eq!(row["status"], "completed", "{row}");
    assert_eq!(row["result"]["stdout"], "a\u{fffd}b\u{fffd}\u{fffd}c\u{e9}\n");
    assert_eq!(row["result"]["stderr"], "\u{fffd}\u{fffd}\u{fffd}");
    // The command itself may hold what no database takes.
    let row = paired.shell(&control, "echo 'x\u{fffd}y'").await;
    assert_eq!(row["result"]["stdout"], "x\u{fffd}y\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_output_than_is_kept_is_counted_and_dropped() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let row = paired.shell(&control, "head -c 20000000 /dev/zero | tr '\\0' x; echo e >&2").await;
    let result = &row["result"];
    assert_eq!(result["stdout"].as_str().unwrap().len(), 5_000_000);
    assert_eq!(result["stdout_truncated"], true);
    assert_eq!(result["stderr_truncated"], false);
    assert_eq!(result["output_truncated"], true);
    assert_eq!((&result["stderr"], &result["exit_code"]), (&json!("e\n"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_limit_ends_the_whole_tree() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let pids = paired.machine.home().join("pids");
    let command = format!(
        "(setsid sh -c 'trap \"\" TERM; echo $$ >> {0}; sleep 300; sleep 300' &) ; \
         echo $$ >> {0}; echo before; sleep 300",
        pids.display()
    );
    let began = Instant::now();
    let id = paired.submit_shell(&control, &command, json!({"timeout_ms": "1500"})).await;
    let named = wait_until("both processes", || async {
        let text = std::fs::read_to_string(&pids).ok()?;
        let named: Vec<_> =
            text.lines().filter_map(|pid| ProcessName::of(pid.parse().ok()?)).collect();
        (named.len() == 2).then_some(named)
    })
    .await;
    let row = control.ended(&id).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let result = &row["result"];
    assert_eq!((&row["status"], &result["timed_out"]), (&json!("completed"), &json!(true)));
    assert_eq!((&result["exit_code"], &result["success"]), (&Value::Null, &json!(false)));
    assert_eq!(result["stdout"], "before\n");
    wait_until("the tree to be gone", || async {
        named.iter().all(|process| !process.is_alive()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn background_work_does_not_hold_the_job_and_lives_on() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let row = paired.shell(&control, "sleep 300 & echo $!").await;
    assert!(row["result"]["duration_ms"].as_u64().unwrap() < 1_000, "{row}");
    let pid = row["result"]["stdout"].as_str().unwrap().trim().parse().unwrap();
    let background = ProcessName::of(pid).expect("it lives on");
    paired.gateway.signal(nix::sys::signal::Signal::SIGKILL);
    paired.gateway.ended().await;
    assert!(background.is_alive(), "it outlives the gateway too");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn children_see_the_users_environment_without_the_gateways_secrets() {
    let control = ControlPlane::start().await;
    let machine = Machine::new()
        .with("OPENAI_API_KEY", "the-users-own")
        .with("SUPABASE_SERVICE_ROLE_KEY", "never")
        .with("PANORAMA_GATEWAY_CONCURRENCY", "3")
        .with("HTTPS_PROXY", "http://user:word@proxy.example.com:1")
        .with("EDITOR", "ed");
    let paired = Paired::start_on(machine, &control).await;
    let row = paired.shell(&control, "env; umask").await;
    let stdout = row["result"]["stdout"].as_str().unwrap();
    for present in ["OPENAI_API_KEY=the-users-own\n", "EDITOR=ed\n", "TMPDIR="] {
        assert!(stdout.contains(present), "{present}: {stdout}");
    }
    for absent in ["SERVICE_ROLE", "PANORAMA_GATEWAY_", "HTTPS_PROXY", "word@"] {
        assert!(!stdout.contains(absent), "{absent}: {stdout}");
    }
    let umask = std::process::Command::new("sh").args(["-c", "umask"]).output().unwrap();
    assert!(stdout.ends_with(std::str::from_utf8(&umask.stdout).unwrap()), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_runs_once() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    let marker = paired.machine.home().join("marker");
    let command = format!("echo x >> {}", marker.display());
    let submit = async |attempt: u32| {
        let payload = json!({"command": command, "resource_id": paired.resource_id});
        let job = NewJob {
            gateway_id: Some(paired.gateway_id.clone()),
            job_type: "shell_exec".to_owned(),
            payload: fields(payload),
            idempotency_key: Some("once, please".to_owned()),
            attempt: Some(attempt),
        };
        control.submit_job(job).await
    };
    let first = control.ended(&submit(1).await).await;
    assert_eq!(first["status"], "completed", "{first}");
    let second = control.ended(&submit(1).await).await;
    assert_eq!(second["status"], "cancelled", "{second}");
    assert_eq!(second["result"]["idempotency_key"], "once, please");
    assert_eq!(second["result"]["attempt"], 1);
    let retried = control.ended(&submit(2).await).await;
    assert_eq!(retried["status"], "completed", "{retried}");
    assert_eq!(std::fs::read_to_string(marker).unwrap(), "x\nx\n");
}
