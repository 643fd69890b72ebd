//! Full control: team toggle, host toggle, the CLI's flags, and root.

use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::common::Machine;
use crate::scene::{Scene, Subagent, context, merged, without};

const FLAGS: [&str; 2] = ["--dangerously-skip-permissions", "bypassPermissions"];

fn wanting(value: &Value) -> Value {
    json!({"config": {"full_control": value}})
}

/// The run fails before it is tried, with this word as the reason.
async fn denied(scene: &Scene, word: &str) -> Subagent {
    let calls = scene.agent.calls().len();
    let one = scene.subagent(&wanting(&json!(true))).await;
    let job = scene.job(&one).await;
    let error = job["error"].as_str().unwrap();
    assert!(error.contains(word), "{word}: {job}");
    assert_eq!(job["status"], "failed", "{job}");
    let result = json!({
        "subagent_id": one.id, "status": "failed", "output": null, "error": error,
    });
    assert_eq!(job["result"], result);
    let rows = scene.rows(&one);
    assert_eq!(rows.status(), ("failed", "failed"));
    let envelope = json!({
        "schema_version": 1, "content": error, "content_type": "text", "errors": [error],
    });
    for row in [&rows.subagent, &rows.run] {
        assert_eq!((&row["output"], &row["error"]), (&envelope, &json!(error)), "{row}");
        assert!(row["started_at"].is_number() && row["completed_at"].is_number(), "{row}");
    }
    let metadata = merged(&[
        &context(),
        &json!({
            "schema_version": 1, "runner": "gateway", "adapter_id": "claude_code",
            "subagent_type": "claude_code_gateway", "run_id": one.run_id, "run_sequence": 1,
            "cancel_state": "none", "full_control_requested": true,
            "full_control_effective": false,
        }),
    ]);
    let reason = ["full_control_denied_reason"];
    assert_eq!(without(&rows.run["metadata"], &reason), metadata);
    let own = json!({"theirs": "kept", "current_run_id": one.run_id, "current_run_sequence": 1});
    let of_subagent = without(&rows.subagent["metadata"], &reason);
    assert_eq!(of_subagent, merged(&[&own, &metadata]));
    assert_eq!(rows.types(), ["run_started", "run_failed"]);
    let failed = json!({"reason": error, "source": "gateway", "stage": "pre_execution"});
    assert_eq!(rows.payload("run_failed"), &failed);
    assert_eq!(scene.agent.calls().len(), calls, "the CLI must not be called");
    scene.assert_tidy();
    one
}

/// The run goes well; whether it had full control.
async fn had_full_control(scene: &Scene, fields: &Value) -> bool {
    let one = scene.subagent(fields).await;
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "completed", "{job}");
    let metadata = scene.rows(&one).run["metadata"].clone();
    assert_eq!(metadata["full_control_denied_reason"], Value::Null, "{metadata}");
    let effective = metadata["full_control_effective"] == true;
    let call = scene.agent.calls().last().unwrap().clone();
    assert_eq!(FLAGS.iter().any(|flag| call.contains(flag)), effective, "{call}");
    effective
}

#[tokio::test(flavor = "multi_thread")]
async fn both_toggles_must_be_on_and_it_must_be_asked_for() {
    let scene = Scene::in_guest().await;
    let gateway = Some(scene.paired.gateway_id.as_str());
    for value in [json!(true), json!("yes"), json!("1")] {
        assert!(had_full_control(&scene, &wanting(&value)).await, "{value}");
    }
    assert!(had_full_control(&scene, &json!({"config": {"fullControl": "on"}})).await);
    for value in [json!(false), json!("no"), Value::Null] {
        assert!(!had_full_control(&scene, &wanting(&value)).await, "{value}");
    }

    scene.control.admin.set_full_control(gateway, false).await.unwrap();
    denied(&scene, "turned off for the team").await;
    assert!(!had_full_control(&scene, &json!({})).await, "it is not asked for");
    scene.control.admin.set_full_control(gateway, true).await.unwrap();
    scene.paired.machine.write_toggle(false);
    denied(&scene, "turned off on this host").await;
    assert!(!had_full_control(&scene, &json!({})).await, "it is not asked for");
    scene.paired.machine.write_toggle(true);
    assert!(had_full_control(&scene, &wanting(&json!(true))).await, "as it was before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cli_without_the_flags_has_no_full_control() {
    let flags = "--permission-mode --dangerously-skip-permissions \
                 --allow-dangerously-skip-permissions";
    let into_guest = |machine: &Machine| {
        let mut config = machine.config();
        config["vmGuest"] = json!({"vmId": "vm-1"});
        std::fs::write(machine.config_file(), config.to_string()).unwrap();
    };
    let scene = Scene::on(Machine::new(), into_guest, flags).await;
    denied(&scene, "no flag for full control").await;
    assert!(!had_full_control(&scene, &json!({})).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_has_no_full_control_outside_guests() {
    let scene = Scene::new().await;
    if geteuid().is_root() {
        denied(&scene, "root").await;
    } else {
        assert!(had_full_control(&scene, &wanting(&json!(true))).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_forbids_files_is_for_restricted_runs() {
    let scene = Scene::in_guest().await;
    let text = "You cannot write or interact with files in this environment.";
    for (full_control, there) in [(false, true), (true, false)] {
        let config = json!({"append_system_prompt": text, "full_control": full_control});
        assert_eq!(had_full_control(&scene, &json!({"config": config})).await, full_control);
        let call = scene.agent.calls().last().unwrap().clone();
        assert_eq!(call.contains(text), there, "{call}");
    }
}
