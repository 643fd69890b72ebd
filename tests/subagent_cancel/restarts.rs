//! The gateway is killed over a subagent's run; the next one brings the run to its end.

use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::agents::Agent;
use crate::common::backend::Fault;
use crate::common::tree::{GONE_WITHIN, Tree, all_gone};
use crate::common::{Machine, wait_until};
use crate::failures::assert_failed;
use crate::scene::{Scene, grows, work_dir};

/// Who has a session of its own, is deaf to SIGTERM, and all of that at once.
const MEMBERS: &[&str] = &["child", "session", "deaf", "escaped"];

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_gateway_is_killed_fails_with_its_job() {
    let machine = Machine::new();
    let tree = Tree::new(machine.home(), MEMBERS);
    let mut scene = Scene::with_act_on(machine, &grows(&tree)).await;
    let subject = scene.add("codex_gateway", "running");
    let job = scene.start(&subject).await;
    let members = tree.grown().await;
    assert!(work_dir(&scene, &subject).exists());
    scene.paired.gateway.signal(Signal::SIGKILL);
    all_gone("after the gateway's SIGKILL", &members, Instant::now(), GONE_WITHIN).await;
    scene.paired.gateway.ended().await;
    let rows = scene.rows(&subject);
    assert_eq!(
        (&rows.subagent["status"], &rows.run["status"]),
        (&json!("running"), &json!("running"))
    );
    scene.agent.acts(&Agent::structured("codex"));
    let _again = scene.paired.machine.start().await;
    let row = scene.control.ended(&job).await;
    assert_eq!(row["status"], "failed", "{row}");
    assert_eq!(row["result"]["error_code"], "gateway_restarted", "{row}");
    let rows = scene.rows(&subject);
    assert_failed(&rows, &subject, &row["error"]);
    assert_eq!(rows.event_types().first(), Some(&"run_started"), "{rows:?}");
    let subject_dir = work_dir(&scene, &subject);
    assert!(!subject_dir.exists() && !subject_dir.parent().unwrap().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_had_ended_is_finalised_as_it_ended() {
    let mut scene = Scene::with_act(&Agent::structured("codex")).await;
    let subject = scene.add("codex_gateway", "running");
    let away = Fault::Answer(503, "application/json", "{}".to_owned());
    scene.fault("/finalize-gateway-subagent-run", away);
    scene.middle.forget();
    let job = scene.start(&subject).await;
    scene.sent("POST", "/finalize-gateway-subagent-run").await;
    let calls = scene.agent.calls().len();
    scene.paired.gateway.kill().await;
    assert_eq!(scene.rows(&subject).subagent["status"], "running");
    scene.middle.heal();
    let _again = scene.paired.machine.start().await;
    let row = scene.control.ended(&job).await;
    assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &json!(null)), "{row}");
    let rows = scene.rows(&subject);
    assert_eq!(row["result"]["status"], "completed", "{row}");
    assert_eq!(row["result"]["subagent_id"], subject.subagent, "{row}");
    assert_eq!(row["result"]["output"], rows.run["output"], "{row}");
    for row in [&rows.subagent, &rows.run] {
        assert_eq!((&row["status"], &row["completed"]), (&json!("completed"), &json!(true)));
        assert_eq!(row["metadata"]["exit_code"], 0, "{row}");
    }
    rows.last_event("run_completed");
    let ends = rows.event_types().iter().filter(|kind| **kind == "run_completed").count();
    assert_eq!(ends, 1, "{rows:?}");
    let runs = scene.agent.calls().iter().skip(calls).filter(|call| call.contains("exec")).count();
    // What the next gateway asks of the CLI is its own check, not this run again.
    assert!(runs <= 1, "{:?}", scene.agent.calls());
    wait_until("the journal to be empty", || async {
        let files = std::fs::read_dir(scene.paired.machine.dir().join("jobs")).unwrap();
        let records = files.flatten().filter(|file| file.path().extension().is_some());
        (records.count() == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_row_was_cancelled_meanwhile_counts_as_cancelled() {
    let mut scene = Scene::with_act(&Agent::structured("codex")).await;
    let subject = scene.add("codex_gateway", "running");
    let away = Fault::Answer(503, "application/json", "{}".to_owned());
    scene.fault("/finalize-gateway-subagent-run", away);
    scene.middle.forget();
    let job = scene.start(&subject).await;
    scene.sent("POST", "/finalize-gateway-subagent-run").await;
    scene.paired.gateway.kill().await;
    let sql = "UPDATE subagent_runs SET status = 'cancelled' WHERE id = ?1";
    scene.database().execute(sql, [&subject.run]).unwrap();
    scene.middle.heal();
    let _again = scene.paired.machine.start().await;
    let row = scene.control.ended(&job).await;
    assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &json!(null)), "{row}");
    assert_eq!(row["result"]["status"], "cancelled", "{row}");
    let rows = scene.rows(&subject);
    assert_eq!(rows.last_event("run_cancelled")["source"], "gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_waited_when_the_gateway_was_killed_come_once_and_the_last_one_last() {
    let mut scene = Scene::with_act(&Agent::structured("codex")).await;
    let subject = scene.add("codex_gateway", "running");
    let away = Fault::Answer(503, "application/json", "{}".to_owned());
    scene.fault("POST /subagent_run_events", away);
    let job = scene.start(&subject).await;
    let rows = scene.ended(&subject, "completed").await;
    assert!(rows.events.is_empty(), "{rows:?}");
    let spool = scene.paired.machine.dir().join(format!("jobs/events/{}.jsonl", subject.run));
    wait_until("the last event to be on disk", || async {
        std::fs::read_to_string(&spool).ok()?.contains("run_completed").then_some(())
    })
    .await;
    scene.paired.gateway.kill().await;
    scene.middle.heal();
    let _again = scene.paired.machine.start().await;
    let row = scene.control.ended(&job).await;
    assert_eq!((&row["status"], &row["error"]), (&json!("completed"), &json!(null)), "{row}");
    let rows = scene.rows(&subject);
    rows.last_event("run_completed");
    let types = rows.event_types();
    assert_eq!(types[..2], ["run_started", "run_progress"], "{types:?}");
    assert!(types.contains(&"message"), "{types:?}");
    assert_eq!(types.iter().filter(|kind| **kind == "run_completed").count(), 1, "{types:?}");
    assert!(!spool.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_nobody_used_for_long_go_at_the_start() {
    let mut scene = Scene::new().await;
    scene.paired.gateway.kill().await;
    let kept = scene.paired.machine.dir().join("work/subagents");
    for (name, days) in [("long-ago", 31), ("lately", 29)] {
        let dir = kept.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("made"), "by the agent").unwrap();
        let at = std::time::SystemTime::now() - std::time::Duration::from_hours(24 * days);
        std::fs::File::open(&dir).unwrap().set_modified(at).unwrap();
    }
    let _again = scene.paired.machine.start().await;
    wait_until("the old folder to go", || async {
        (!kept.join("long-ago").exists()).then_some(())
    })
    .await;
    assert!(kept.join("lately/made").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_claimed_but_not_begun_fails_its_run_too() {
    let mut scene = Scene::with_act(&Agent::structured("codex")).await;
    let subject = scene.add("codex_gateway", "running");
    let away = || Fault::Answer(503, "application/json", "{}".to_owned());
    scene.fault("GET /subagents", away());
    scene.middle.forget();
    let job = scene.start(&subject).await;
    scene.sent("GET", "/subagents").await;
    scene.paired.gateway.kill().await;
    scene.middle.heal();
    let _again = scene.paired.machine.start().await;
    let row = scene.control.ended(&job).await;
    assert_eq!(row["result"]["error_code"], "gateway_restarted", "{row}");
    assert_failed(&scene.rows(&subject), &subject, &row["error"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_between_run_and_subagent_does_what_is_missing() {
    let mut scene = Scene::with_act(&Agent::structured("codex")).await;
    let subject = scene.add("cursor_gateway", "running");
    let away = || Fault::Answer(503, "application/json", "{}".to_owned());
    // First before the event, then before the subagent's row.
    for (method, path) in [("POST", "/subagent_run_events"), ("PATCH", "/subagents")] {
        scene.fault(&format!("{method} {path}"), away());
        scene.middle.forget();
        if method == "POST" {
            scene.start(&subject).await;
        }
        scene.sent(method, path).await;
        scene.paired.gateway.kill().await;
        let rows = scene.rows(&subject);
        assert_eq!(rows.run["status"], "failed");
        assert_eq!(rows.subagent["status"], "running");
        assert_eq!(rows.events.len(), usize::from(method == "PATCH"), "{rows:?}");
        scene.middle.heal();
        if method == "POST" {
            scene.fault("PATCH /subagents", away());
        }
        scene.middle.forget();
        scene.paired.gateway = scene.paired.machine.start().await;
    }
    let rows = scene.ended(&subject, "failed").await;
    assert_eq!(rows.event_types(), ["run_failed"]);
}
