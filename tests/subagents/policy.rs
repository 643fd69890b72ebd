//! A gateway that may not run agents fails the job.

use serde_json::{Value, json};

use crate::common::backend::Fault;
use crate::common::wait_until;
use crate::scene::{PROMPT, Scene, checked, conversation, lines};

/// The job fails with this word, and its run has not begun.
async fn refused(scene: &Scene, word: &str) {
    let one = scene.subagent(&json!({})).await;
    let job = scene.job(&one).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(job["result"]["message"].as_str().unwrap().contains(word), "{word}: {job}");
    assert_eq!(scene.rows(&one).run["started_at"], Value::Null, "{job}");
    assert!(scene.agent.path("said").metadata().is_err(), "nothing was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_of_the_team_counts() {
    let scene = Scene::new().await;
    let nothing = Fault::Answer(200, "application/json", "[]".to_owned());
    scene.middleman.fault("GET /team_gateways", nothing);
    refused(&scene, "could not be read").await;

    let old = Fault::Changed(|_, rows| rows[0]["last_seen_at"] = json!("2001-01-01T00:00:00Z"));
    scene.middleman.fault("GET /team_gateways", old);
    refused(&scene, "older than 90 seconds").await;

    let unready = Fault::Changed(|_, rows| {
        rows[0]["capabilities"]["services"]["model_execution"]["ready"] = json!(false);
    });
    scene.middleman.fault("GET /team_gateways", unready);
    refused(&scene, "panorama-gateway doctor").await;

    scene.middleman.heal();
    let one = scene.subagent(&json!({})).await;
    assert_eq!(scene.job(&one).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_until_the_team_knows_that_agents_can_run() {
    let mut scene = Scene::new().await;
    let go = scene.agent.path("go");
    scene.agent.acts(&format!(
        "case $(cat) in '{PROMPT}') {} ;;\n*) until [ -e '{}' ]; do sleep 0.05; done\n{} ;; esac",
        lines(&conversation()),
        go.display(),
        lines(&[checked()]),
    ));
    scene.paired.gateway.kill().await;
    scene.paired.gateway = scene.paired.machine.start().await;
    let broken = Fault::Answer(503, "text/plain", "later".to_owned());
    scene.middleman.fault("POST /gateway-heartbeat", broken);
    let one = scene.subagent(&json!({})).await;
    let job = scene.submit(&one).await;
    let status = async || scene.paired.machine.status().await;
    wait_until("the job to wait", || async { (status().await?["queued_jobs"] == 1).then_some(()) })
        .await;
    scene.middleman.forget();
    std::fs::write(go, "").unwrap();
    wait_until("the CLI's check", || async {
        (status().await?["providers"][0]["available"] == true).then_some(())
    })
    .await;
    scene.asked_for("POST /gateway-heartbeat").await;
    assert_eq!(status().await.unwrap()["queued_jobs"], 1);
    scene.middleman.heal();
    let job = scene.control.ended(&job).await;
    assert_eq!(job["status"], "completed", "{job}");
}
