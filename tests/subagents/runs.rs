//! A run that goes as it should, and one that fails.

use serde_json::{Value, json};

use crate::common::agents::Agent;
use crate::common::{Machine, wait_until};
use crate::scene::{
    PROMPT, SESSION, Scene, Subagent, context, conversation, merged, stream, without,
};

/// What is written into metadata before a run has a process.
fn names(subagent: &Subagent) -> Value {
    merged(&[
        &context(),
        &json!({
            "schema_version": 1, "runner": "gateway", "adapter_id": "claude_code",
            "subagent_type": "claude_code_gateway", "run_id": subagent.run_id, "run_sequence": 1,
            "cancel_state": "none", "full_control_requested": false,
            "full_control_effective": false, "full_control_denied_reason": null,
        }),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_changes_the_rows_of_subagent_run_events_and_job() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let before = scene.rows(&one);
    let payload = json!({"subagentId": one.id, "runId": one.run_id});
    let job = scene.submit_payload(payload).await;
    let job = scene.control.ended(&job).await;
    let rows = scene.rows(&one);
    assert_eq!((&job["status"], &job["error"]), (&json!("completed"), &Value::Null), "{job}");
    let output = json!({
        "schema_version": 1, "content": "It is so.", "content_type": "markdown",
    });
    let result = json!({
        "subagent_id": one.id, "status": "completed", "output": output, "error": null,
    });
    assert_eq!(job["result"], result);
    assert_eq!(rows.status(), ("completed", "completed"));
    for row in [&rows.subagent, &rows.run] {
        assert_eq!((&row["output"], &row["error"]), (&output, &Value::Null), "{row}");
        assert!(row["started_at"].is_number() && row["completed_at"].is_number(), "{row}");
    }
    let unchanged = ["status", "output", "metadata", "started_at", "completed_at"];
    assert_eq!(without(&rows.run, &unchanged), without(&before.run, &unchanged));
    let subagents = [&unchanged[..], &["updated_at"]].concat();
    assert_eq!(without(&rows.subagent, &subagents), without(&before.subagent, &subagents));

    let expected = merged(&[
        &names(&one),
        &json!({
            "theirs": "kept", "current_run_id": one.run_id, "current_run_sequence": 1,
            "exit_code": 0, "timed_out": false, "stdout_truncated": false,
            "stderr_truncated": false, "output_format": "json", "parse_error": null,
            "retry_count": 0, "retry_reasons": [], "retry_max_attempts": 1, "cancel_run_id": null,
            "cancel_requested_at": null, "cancel_reason": null, "cancelled": false,
            "cancel_support": "gateway", "cancellation_scope": "gateway",
            "session_id": SESSION, "total_cost_usd": 0.25, "usage": {"output_tokens": 7},
            "model_usage": {"claude-x": {"outputTokens": 7}}, "permission_denials": [],
        }),
    ]);
    let timed = ["command", "duration_ms", "last_run_at"];
    assert_eq!(without(&rows.subagent["metadata"], &timed), expected);
    let of_run = without(&rows.run["metadata"], &["stderr"]);
    assert_eq!(without(&of_run, &timed), expected);
    assert_eq!(rows.run["metadata"]["stderr"], "");
    let command = rows.run["metadata"]["command"].as_str().unwrap();
    assert!(command.contains("--output-format") && !command.contains(PROMPT), "{command}");

    let types = [
        "run_started",
        "run_progress",
        "message",
        "tool_call",
        "tool_result",
        "message",
        "run_completed",
    ];
    assert_eq!(rows.types(), types);
    let started = without(
        &names(&one),
        &[
            "schema_version",
            "cancel_state",
            "full_control_requested",
            "full_control_effective",
            "full_control_denied_reason",
        ],
    );
    assert_eq!(rows.payload("run_started"), &started);
    let progress = json!({"phase": "attempt_started", "attempt": 1, "max_attempts": 1});
    assert_eq!(rows.payload("run_progress"), &progress);
    assert_eq!(rows.events[2].1["content"], "Let me look.", "{:?}", rows.events);
    assert_eq!(rows.payload("tool_call")["summary"], "Query: so");
    assert_eq!(rows.payload("tool_result")["content"], "found");
    let completed = without(rows.payload("run_completed"), &["duration_ms"]);
    assert_eq!(completed, json!({"parse_error": null, "retry_count": 0}));
    assert_eq!(std::fs::read_to_string(scene.agent.path("said")).unwrap().trim(), PROMPT);
    scene.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_goes_on_with_the_session_in_the_same_folder() {
    let scene = Scene::new().await;
    scene.agent.acts(&format!("pwd >> \"$here/folders\"\n{}", stream(&conversation())));
    let one = scene.subagent(&json!({})).await;
    assert_eq!(scene.job(&one).await["status"], "completed");
    let next = Subagent { run_id: uuid::Uuid::new_v4().to_string(), ..one.clone() };
    scene.sql(&format!(
        "INSERT INTO subagent_runs (id, subagent_id, team_id, gateway_id, run_sequence, prompt, \
             created_at) SELECT '{0}', id, team_id, gateway_id, 2, 'And now?', 2 FROM subagents \
             WHERE id = '{1}'; \
         UPDATE subagents SET status = 'running', output = NULL, input = json_object('query', \
             'And now?', 'run_id', '{0}', 'run_sequence', '2'), \
             metadata = json_set(metadata, '$.current_run_id', '{0}') WHERE id = '{1}'",
        next.run_id, next.id
    ));
    let job = scene.job(&next).await;
    assert_eq!(job["status"], "completed", "{job}");
    let folders = std::fs::read_to_string(scene.agent.path("folders")).unwrap();
    let folders: Vec<_> = folders.lines().collect();
    assert_eq!(folders.len(), 2, "{folders:?}");
    assert_eq!(folders[0], folders[1]);
    assert!(folders[0].ends_with(&format!("work/subagents/{}", one.id)), "{folders:?}");
    let calls = scene.agent.calls();
    assert!(calls.last().unwrap().contains(&format!("--resume {SESSION}")), "{calls:?}");
    let rows = scene.rows(&next);
    assert_eq!(rows.subagent["metadata"]["current_run_sequence"], 2);
    assert_eq!(rows.run["metadata"]["run_sequence"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cli_that_begins_anew_each_time_has_a_folder_for_each_run() {
    let told = [
        json!({"type": "thread.started", "thread_id": SESSION}),
        json!({"type": "turn.started"}),
        json!({"type": "item.completed", "item": {
            "id": "item_0", "type": "agent_message", "text": "It is so.",
        }}),
        json!({"type": "turn.completed", "usage": {"input_tokens": 1, "output_tokens": 7}}),
    ];
    let act = format!("pwd >> \"$here/folders\"\n{}", stream(&told));
    let (machine, codex) = Agent::install(Machine::new(), "codex", &act);
    let scene = Scene::on(machine, |_| (), "").await;
    let one = scene.subagent(&json!({"subagent_type": "codex_gateway"})).await;
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(job["result"]["output"]["content"], "It is so.", "{job}");
    let rows = scene.rows(&one);
    assert_eq!(rows.types(), ["run_started", "run_progress", "message", "run_completed"]);
    assert_eq!(rows.run["metadata"]["adapter_id"], "codex");
    assert_eq!(rows.run["metadata"]["subagent_type"], "codex_gateway");
    let folders = std::fs::read_to_string(codex.path("folders")).unwrap();
    let last = folders.lines().last().unwrap();
    assert!(last.ends_with(&format!("work/subagents/{}/{}", one.id, one.run_id)), "{folders}");
    assert!(!scene.paired.machine.dir().join("work/subagents").join(&one.id).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_fails_the_run_and_marks_its_health() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    scene.agent.acts("cat > /dev/null; echo 'token=hunter22hunter22' >&2; exit 9");
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "failed", "{job}");
    let error = job["error"].as_str().unwrap();
    assert!(
        error.contains("Claude Code") && error.contains("`panorama-gateway doctor`"),
        "{error}"
    );
    let result = json!({
        "subagent_id": one.id, "status": "failed", "output": null, "error": error,
    });
    assert_eq!(job["result"], result);
    let rows = scene.rows(&one);
    let envelope = json!({
        "schema_version": 1, "content": error, "content_type": "text", "errors": [error],
    });
    assert_eq!(rows.status(), ("failed", "failed"));
    for row in [&rows.subagent, &rows.run] {
        assert_eq!((&row["output"], &row["error"]), (&envelope, &json!(error)), "{row}");
        assert_eq!(row["metadata"]["exit_code"], 9, "{row}");
        assert_eq!(row["metadata"]["cancelled"], false, "{row}");
    }
    assert_eq!(rows.run["metadata"]["stderr"], "token=[REDACTED]\n");
    assert_eq!(rows.types(), ["run_started", "run_progress", "run_failed"]);
    let failed = without(rows.payload("run_failed"), &["duration_ms", "parse_error"]);
    assert_eq!(failed, json!({"reason": error}));
    let event = wait_until("the event", || async {
        let events = scene.control.admin.events(None).await.unwrap();
        events.into_iter().find(|event| event["code"] == "provider_unhealthy")
    })
    .await;
    assert_eq!(event["details"]["context"], "subagent_run", "{event}");
    assert_eq!(event["details"]["run_id"], one.run_id, "{event}");
    scene.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_an_error_is_a_failure_whatever_the_exit_says() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let mut told = conversation();
    told[5]["is_error"] = json!(true);
    told[5]["result"] = json!("API Error: 500 no luck");
    scene.agent.acts(&stream(&told));
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "failed", "{job}");
    let rows = scene.rows(&one);
    assert_eq!(rows.status(), ("failed", "failed"));
    assert_eq!(rows.subagent["metadata"]["session_id"], SESSION, "it can be continued");
    assert_eq!(rows.types().last(), Some(&"run_failed"));
}
