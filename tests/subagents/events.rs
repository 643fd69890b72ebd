//! What is told while a run goes on, and when.

use serde_json::json;

use crate::common::{Machine, wait_until};
use crate::scene::{Scene, Subagent};

const LIVE: &str = "PANORAMA_GATEWAY_LIVE_EVENTS";

async fn running(scene: &Scene, fields: &serde_json::Value) -> (Subagent, String) {
    let one = scene.subagent(fields).await;
    let job = scene.submit(&one).await;
    scene.named("pids", 1).await;
    (one, job)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_while_the_run_goes_on() {
    let scene = Scene::new().await;
    let go = scene.acts_until("go");
    let (one, job) = running(&scene, &json!({})).await;
    let so_far = ["run_started", "run_progress", "message", "tool_call", "tool_result"];
    wait_until("what was said so far", || async {
        (scene.rows(&one).types() == so_far).then_some(())
    })
    .await;
    std::fs::write(go, "").unwrap();
    let job = scene.control.ended(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
    let rows = scene.rows(&one);
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
}

#[tokio::test(flavor = "multi_thread")]
async fn without_live_events_only_a_stream_tells_any_and_only_after_the_run() {
    let scene = Scene::on(Machine::new().with(LIVE, "0"), |_| (), "").await;
    let go = scene.acts_until("go");
    let stream = json!({"config": {"output_format": "stream-json"}});
    let (one, job) = running(&scene, &stream).await;
    wait_until("the start", || async {
        (scene.rows(&one).types() == ["run_started", "run_progress"]).then_some(())
    })
    .await;
    // What was said would be there within a second.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(scene.rows(&one).types(), ["run_started", "run_progress"]);
    std::fs::write(&go, "").unwrap();
    let job = scene.control.ended(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
    let rows = scene.rows(&one);
    assert_eq!(rows.types().len(), 7, "{rows:?}");
    assert_eq!(rows.run["metadata"]["output_format"], "stream-json");

    let whole = json!({
        "type": "result", "subtype": "success", "is_error": false, "result": "It is so.",
        "session_id": crate::scene::SESSION, "num_turns": 1,
    });
    scene.agent.acts(&crate::scene::stream(&[whole]));
    let one = scene.subagent(&json!({})).await;
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(job["result"]["output"]["content"], "It is so.", "{job}");
    assert_eq!(scene.rows(&one).types(), ["run_started", "run_progress", "run_completed"]);
    let call = scene.agent.calls().last().unwrap().clone();
    assert!(!call.contains("stream-json"), "{call}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_the_backend_does_not_take_follow_later_and_the_last_one_is_last() {
    let scene = Scene::new().await;
    let one = scene.subagent(&json!({})).await;
    let broken = crate::common::backend::Fault::Answer(503, "text/plain", "later".to_owned());
    scene.middleman.fault("POST /subagent_run_events", broken);
    let job = scene.submit(&one).await;
    wait_until("the run's end", || async {
        (scene.rows(&one).status() == ("completed", "completed")).then_some(())
    })
    .await;
    assert!(scene.rows(&one).events.is_empty());
    assert_eq!(scene.control.admin.job(&job).await.unwrap()["status"], "running");
    scene.middleman.heal();
    assert_eq!(scene.control.ended(&job).await["status"], "completed");
    let rows = scene.rows(&one);
    assert_eq!((rows.types().len(), rows.types().last()), (7, Some(&"run_completed")));
    scene.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_secrets_of_the_gateway_are_taken_out_of_what_an_agent_says() {
    let scene = Scene::new().await;
    let token = scene.paired.machine.config()["refreshToken"].as_str().unwrap().to_owned();
    let mut told = crate::scene::conversation();
    let text = format!("password=hunter22 {token}");
    told[1]["message"]["content"][0]["text"] = json!(text);
    told[5]["result"] = json!(text);
    scene.agent.acts(&crate::scene::stream(&told));
    let one = scene.subagent(&json!({})).await;
    let job = scene.job(&one).await;
    let shown = "password=hunter22 [REDACTED]";
    assert_eq!(job["result"]["output"]["content"], shown, "{job}");
    let rows = scene.rows(&one);
    assert_eq!(rows.run["output"]["content"], shown);
    assert_eq!(rows.events[2].1["content"], shown);
    assert_eq!(rows.run["metadata"]["session_id"], crate::scene::SESSION);
}
