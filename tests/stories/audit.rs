//! The audit log: who had this machine do what.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::marks::Marks;
use crate::common::{ControlPlane, Gateway, Machine, Paired, wait_until};

fn lines(machine: &Machine) -> Vec<Value> {
    let text = std::fs::read_to_string(machine.dir().join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The lines of one job.
fn of_job(machine: &Machine, job: &str) -> Vec<Value> {
    lines(machine).into_iter().filter(|line| line["job_id"] == job).collect()
}

fn events(machine: &Machine) -> Vec<String> {
    lines(machine).iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect()
}

async fn stop(machine: &Machine, gateway: &mut Gateway) {
    assert_eq!(machine.run_async(&["stop", "--wait=20"]).await.code, 0);
    gateway.ended().await;
}

/// Tells the rows who asked, as a hosted backend does.
fn requested(control: &ControlPlane, job: &str, user: &str) {
    let store = rusqlite::Connection::open(control.data_dir().join("sandbox.db")).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    let query = "UPDATE gateway_jobs SET requested_via = 'chat', requested_by_user_id = ?1 \
                 WHERE id = ?2";
    assert_eq!(store.execute(query, [user, job]).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_pairing_to_unpairing_everything_is_told() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let gateway_id = machine.pair(&control).await;
    machine.allow_control().await;
    let resource = control.allow_shell(&gateway_id).await;
    let command = "echo password=hunter22; exit 3";
    let payload = json!({"command": command, "resource_id": resource});
    let job = control.submit(&gateway_id, "shell_exec", payload.clone()).await;
    let user = uuid::Uuid::new_v4().to_string();
    requested(&control, &job, &user);
    let mut gateway = machine.start().await;
    control.ended(&job).await;

    let told = of_job(&machine, &job);
    assert_eq!(told.len(), 2, "{told:?}");
    let whoami = panorama_gateway::observe::audit::local_user();
    for (line, event) in told.iter().zip(["job_started", "job_ended"]) {
        assert_eq!(line["event"], event, "{line}");
        let wanted = json!([
            "shell_exec", "chat", user, resource, command, "/", whoami,
            {"host": true, "team": true, "resource": true},
        ]);
        let found = json!([
            line["job_type"],
            line["requested_via"],
            line["requested_by_user_id"],
            line["resource_id"],
            line["command"],
            line["cwd"],
            line["user"],
            line["toggles"],
        ]);
        assert_eq!(found, wanted, "{line}");
    }
    let end = &told[1];
    assert_eq!((&end["status"], &end["exit_code"]), (&json!("completed"), &json!(3)), "{end}");
    assert!(end["started_at"].is_string() && end["ended_at"].is_string(), "{end}");

    // What is refused is told of, too.
    let off = machine.run_async(&["full-control", "disable"]).await;
    assert_eq!(off.code, 0, "{off:?}");
    let refused = control.submit(&gateway_id, "shell_exec", payload).await;
    assert_eq!(control.ended(&refused).await["status"], "failed");
    let told = of_job(&machine, &refused);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["event"], &told[0]["command"]), (&json!("job_refused"), &json!(command)));
    assert_eq!(told[0]["toggles"], json!({"host": false, "team": true}));
    assert!(told[0]["reason"].as_str().unwrap().contains("turned off on this host"), "{told:?}");
    let diagnostic = control.submit(&gateway_id, "diagnostic", json!({})).await;
    control.ended(&diagnostic).await;
    assert_eq!(of_job(&machine, &diagnostic).len(), 2);

    stop(&machine, &mut gateway).await;
    assert_eq!(machine.run_async(&["unpair", "--yes"]).await.code, 0);
    let events = events(&machine);
    let of_the_house: Vec<_> = events.iter().filter(|event| !event.starts_with("job_")).collect();
    assert_eq!(
        of_the_house,
        [
            "paired",
            "full_control_changed",
            "gateway_started",
            "full_control_changed",
            "full_control_in_force",
            "gateway_stopped",
            "unpaired"
        ]
    );
    let text = std::fs::read_to_string(machine.dir().join("audit.jsonl")).unwrap();
    for secret in ["accessToken", "refreshToken", "eyJ"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_read_it_with_logs() {
    let control = ControlPlane::start().await;
    let paired = Paired::start(&control).await;
    paired.shell(&control, "printf '\\033[2J'; true").await;
    let read = async |words: &[&str]| {
        let mut all = vec!["logs", "--audit", "--no-follow"];
        all.extend(words);
        let ran = paired.machine.run_async(&all).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
        ran.stdout
    };
    let shown = read(&[]).await;
    assert!(shown.contains(" job started          shell_exec "), "{shown}");
    assert!(shown.contains("in / as "), "{shown}");
    assert!(shown.contains("(host on, team on, resource on)"), "{shown}");
    assert_eq!(read(&["--lines", "1"]).await.lines().count(), 1);
    assert_eq!(read(&["--since", "0s"]).await, "");
    let raw = read(&["--json", "--since", "1h"]).await;
    assert!(raw.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{raw}");
    let wrong = paired.machine.run_async(&["logs", "--audit", "--level", "warn"]).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_gateway_was_killed_has_its_end_told_by_the_next_one() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let marks = Marks::in_dir(paired.machine.home());
    let command = format!("{}; sleep 600", marks.note("runs"));
    let more = json!({"timeout_ms": 600_000});
    let job = paired.submit_shell(&control, &command, more).await;
    wait_until("the job to run", || async { marks.has("runs").then_some(()) }).await;
    // It is told of before it runs, so that whatever it does to the gateway leaves a trace.
    assert_eq!(of_job(&paired.machine, &job)[0]["command"], command.as_str());
    paired.gateway.kill().await;
    let _next = paired.machine.start().await;
    assert_eq!(control.ended(&job).await["status"], "failed");
    let told = of_job(&paired.machine, &job);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((&told[1]["event"], &told[1]["status"]), (&json!("job_ended"), &json!("failed")));
    assert!(told[1]["reason"].as_str().unwrap().contains("ended unexpectedly"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_audit_works_and_says_so() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let gateway_id = machine.pair(&control).await;
    let file = machine.dir().join("audit.jsonl");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let changed = machine.run_async(&["full-control", "enable"]).await;
    assert_eq!(changed.code, 0, "{changed:?}");
    assert!(changed.stderr.contains("the audit log does not tell of this"), "{changed:?}");
    let resource_id = control.allow_shell(&gateway_id).await;
    let (log, stderr) = (machine.dir().join("gateway.log"), machine.home().join("stderr"));
    let gateway = machine.spawn_logging(&log, &stderr);
    machine.is_up().await;
    let paired = Paired { machine, gateway, gateway_id, resource_id };
    assert_eq!(paired.shell(&control, "true").await["status"], "completed");
    says(&log, "the audit log cannot be written; jobs go on").await;
    let doctor = paired.machine.run_async(&["doctor", "--json"]).await;
    let report: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let check =
        report["checks"].as_array().unwrap().iter().find(|check| check["id"] == "audit_log");
    assert_eq!(check.unwrap()["status"], "warn", "{report:#}");

    std::fs::remove_dir(&file).unwrap();
    assert_eq!(paired.shell(&control, "true").await["status"], "completed");
    says(&log, "the audit log is written again").await;
    assert_eq!(events(&paired.machine)[0], "lines_lost");
}

async fn says(log: &Path, text: &str) {
    wait_until(&format!("the log to say {text:?}"), || async {
        std::fs::read_to_string(log).ok()?.contains(text).then_some(())
    })
    .await;
}
