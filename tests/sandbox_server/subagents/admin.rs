//! The admin API.

use std::time::Duration;

use panorama_gateway::sandbox::AdminClientError;
use panorama_gateway::sandbox::client::{NewRun, NewSubagent};
use reqwest::Method;
use rusqlite::params;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{PATIENCE, Scene, do_it, go_on, id};
use crate::strangers::stranger;

fn refusal<T: std::fmt::Debug>(result: Result<T, AdminClientError>) -> (u16, String) {
    match result {
        Err(AdminClientError::Refused { status, code, .. }) => (status, code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_subagent_its_run_and_its_job_are_made_together() {
    let scene = Scene::new().await;
    let admin = scene.context.admin();
    let started = scene.started().await;
    let (subagent, run, job) = (&started.subagent, &started.run, &started.job);
    assert_eq!((&subagent["status"], &run["status"]), (&json!("running"), &json!("running")));
    assert_eq!(subagent["subagent_type"], "claude_code_gateway");
    assert_eq!(subagent["config"], json!({"model": "m", "timeout_ms": 5}));
    let input = json!({"prompt": "do it", "run_id": run["id"], "run_sequence": 1});
    assert_eq!(subagent["input"], input);
    assert_eq!(subagent["metadata"], json!({"current_run_id": run["id"]}));
    assert_eq!((&run["subagent_id"], &run["prompt"]), (&subagent["id"], &json!("do it")));
    assert_eq!((&run["run_sequence"], &run["started_at"]), (&json!(1), &Value::Null));
    assert_eq!((&job["job_type"], &job["status"]), (&json!("subagent_run"), &json!("queued")));
    assert_eq!(job["payload"], json!({"subagent_id": subagent["id"], "run_id": run["id"]}));
    for row in [subagent, run, job] {
        assert_eq!(row["gateway_id"], scene.ours.gateway_id.as_str());
        assert_eq!(row["team_id"], scene.ours.team_id.as_str());
    }
    assert_eq!(&admin.subagent(id(subagent)).await.unwrap(), subagent);
    assert_eq!(&admin.subagent_run(id(run)).await.unwrap(), run);
    assert_eq!(admin.subagent_runs(id(subagent)).await.unwrap(), std::slice::from_ref(run));
    let second = scene.started().await;
    let listed = admin.subagents(None).await.unwrap();
    assert_eq!(listed, [second.subagent.clone(), subagent.clone()]);
    assert_eq!(admin.subagents(Some(1)).await.unwrap(), [second.subagent]);
}

#[tokio::test]
async fn a_subagent_goes_on_with_the_next_number_once_its_run_has_ended() {
    let scene = Scene::new().await;
    let admin = scene.context.admin();
    let first = scene.started().await;
    let subagent = id(&first.subagent);
    let refused = refusal(admin.continue_subagent(subagent, &go_on()).await);
    assert_eq!(refused, (409, "subagent_is_running".to_owned()));
    assert_eq!(scene.context.count("subagent_runs"), 1);
    assert_eq!(scene.context.count("gateway_jobs"), 1);
    scene.play("completed").await;
    let config = json!({"model": "n"}).as_object().unwrap().clone();
    let second = admin.continue_subagent(subagent, &NewRun { config, ..go_on() }).await.unwrap();
    let now = &second.subagent;
    assert_eq!((&second.run["run_sequence"], &second.run["prompt"]), (&json!(2), &json!("go on")));
    assert_eq!(now["metadata"], json!({"current_run_id": second.run["id"], "session_id": "s-1"}));
    assert_eq!(
        now["input"],
        json!({"prompt": "go on", "run_id": second.run["id"], "run_sequence": 2})
    );
    assert_eq!(now["config"], json!({"model": "n", "timeout_ms": 5}));
    assert_eq!(now["status"], "running");
    for field in ["output", "error", "started_at", "completed_at"] {
        assert_eq!(now[field], Value::Null, "{field}");
    }
    scene.play("failed").await;
    let third = admin.continue_subagent(subagent, &go_on()).await.unwrap();
    assert_eq!(third.run["run_sequence"], 3);
    let runs = admin.subagent_runs(subagent).await.unwrap();
    let known: Vec<_> = runs.iter().map(|run| (&run["run_sequence"], &run["status"])).collect();
    let (running, failed, completed) = (json!("running"), json!("failed"), json!("completed"));
    let numbers = [json!(3), json!(2), json!(1)];
    let wanted =
        [(&numbers[0], &running), (&numbers[1], &failed), (&numbers[2], &completed)].to_vec();
    assert_eq!(known, wanted);
}

#[tokio::test]
async fn a_run_that_nobody_will_end_is_in_the_way_for_a_minute() {
    let scene = Scene::new().await;
    let admin = scene.context.admin();
    let started = scene.started().await;
    let subagent = id(&started.subagent);
    admin.cancel_job(id(&started.job)).await.unwrap();
    let refused = refusal(admin.continue_subagent(subagent, &go_on()).await);
    assert_eq!(refused.1, "subagent_is_running", "its gateway may be about to end it");
    let database = scene.context.database();
    database.execute("UPDATE gateway_jobs SET updated_at = updated_at - 61000000", []).unwrap();
    let second = admin.continue_subagent(subagent, &go_on()).await.unwrap();
    assert_eq!(second.run["run_sequence"], 2);
    let first = admin.subagent_run(id(&started.run)).await.unwrap();
    assert_eq!(first["status"], "cancelled");
    assert_eq!(first["error"], "its job ended without it");
    database.execute("UPDATE gateway_jobs SET updated_at = updated_at - 61000000", []).unwrap();
    let refused = refusal(admin.continue_subagent(subagent, &go_on()).await);
    assert_eq!(refused.1, "subagent_is_running", "a job that waits is not over");
}

#[tokio::test]
async fn two_prompts_at_once_make_one_run() {
    let scene = Scene::new().await;
    let admin = scene.context.admin();
    let first = scene.started().await;
    scene.play("completed").await;
    let (go_on, subagent) = (go_on(), id(&first.subagent));
    let (one, other) = tokio::join!(
        admin.continue_subagent(subagent, &go_on),
        admin.continue_subagent(subagent, &go_on)
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    assert_eq!(scene.context.count("subagent_runs"), 2);
    assert_eq!(scene.context.count("gateway_jobs"), 2);
}

#[tokio::test]
async fn a_long_poll_has_an_event_as_soon_as_it_is_there() {
    let scene = Scene::new().await;
    let admin = scene.context.admin();
    let run = scene.started().await.run;
    let job = scene.claim("subagent_run").await;
    let wait = Duration::from_secs(25);
    let mut slowest = Duration::ZERO;
    for sequence in 0..5 {
        let poll = admin.run_events(id(&run), sequence - 1, wait);
        let insert = async {
            // Answered on another connection: the poll, sent before, has been taken by then.
            admin.info().await.unwrap();
            scene.event(&job, sequence, "message", json!({"content": "hi"})).await;
            Instant::now()
        };
        let (events, inserted) =
            tokio::join!(async { (poll.await.unwrap(), Instant::now()) }, insert);
        let (events, heard) = events;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["sequence"], sequence);
        slowest = slowest.max(heard.saturating_duration_since(inserted));
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let later = admin.run_events(id(&run), 2, wait).await.unwrap();
    let sequences: Vec<_> = later.iter().map(|event| event["sequence"].as_i64()).collect();
    assert_eq!(sequences, [Some(3), Some(4)], "what was there before is told at once");
    let none = admin.run_events(id(&run), 4, Duration::from_millis(50)).await.unwrap();
    assert_eq!(none, Vec::<Value>::new());
}

#[tokio::test]
async fn a_poll_is_not_woken_by_another_run() {
    let scene = Scene::new().await;
    let admin = scene.context.admin();
    let ours = scene.started().await.run;
    let ours_job = scene.claim("subagent_run").await;
    scene.started().await;
    let other_job = scene.claim("subagent_run").await;
    let poll = admin.run_events(id(&ours), -1, Duration::from_secs(25));
    let (events, ()) = tokio::join!(poll, async {
        scene.event(&other_job, 0, "message", json!({"content": "theirs"})).await;
        scene.event(&ours_job, 0, "message", json!({"content": "ours"})).await;
    });
    let events = events.unwrap();
    assert_eq!((events.len(), &events[0]["payload"]["content"]), (1, &json!("ours")));
}

#[tokio::test]
async fn many_events_come_in_pages() {
    let scene = Scene::new().await;
    let run = scene.started().await.run;
    let job = scene.claim("subagent_run").await;
    for sequence in 0..105 {
        scene.event(&job, sequence, "system", json!({})).await;
    }
    let admin = scene.context.admin();
    let first = admin.run_events(id(&run), -1, Duration::ZERO).await.unwrap();
    let last = first.last().unwrap()["sequence"].as_i64().unwrap();
    let second = admin.run_events(id(&run), last, Duration::ZERO).await.unwrap();
    assert_eq!((first.len(), last, second.len()), (100, 99, 5));
}

#[tokio::test]
async fn a_shutdown_answers_who_waits_for_events() {
    let scene = Scene::new().await;
    let admin = scene.context.admin();
    let run = scene.started().await.run;
    let started = Instant::now();
    let server = scene.context.server;
    let (_events_or_none, ()) =
        tokio::join!(admin.run_events(id(&run), -1, Duration::from_secs(25)), async {
            admin.info().await.unwrap();
            server.shutdown().await;
        });
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_run_is_called_off_by_a_job_of_its_own() {
    let scene = Scene::new().await;
    let admin = scene.context.admin();
    let started = scene.started().await;
    let (subagent, run) = (id(&started.subagent), id(&started.run));
    let job = admin.cancel_subagent(subagent, Some(run), Some("enough")).await.unwrap();
    assert_eq!((&job["job_type"], &job["status"]), (&json!("subagent_cancel"), &json!("queued")));
    let payload = json!({"subagent_id": subagent, "run_id": run, "reason": "enough"});
    assert_eq!(job["payload"], payload);
    assert_eq!(job["gateway_id"], scene.ours.gateway_id.as_str());
    let asked = admin.subagent_run(run).await.unwrap();
    assert_eq!(asked["status"], "running", "the gateway ends it");
    assert!(asked["cancellation_requested_at"].is_string());
    let queued = admin.job(id(&started.job)).await.unwrap();
    assert_eq!(queued["status"], "queued", "the gateway takes it and sees that it was called off");
    let again = admin.cancel_subagent(subagent, None, None).await.unwrap();
    assert_eq!(again["payload"]["reason"], "Cancelled");
    let twice = admin.subagent_run(run).await.unwrap();
    assert_eq!(twice["cancellation_requested_at"], asked["cancellation_requested_at"]);
    let wrong = refusal(admin.cancel_subagent(subagent, Some("another"), None).await);
    assert_eq!(wrong, (409, "run_not_running".to_owned()));
    scene.play("cancelled").await;
    let over = refusal(admin.cancel_subagent(subagent, None, None).await);
    assert_eq!(over, (409, "run_not_running".to_owned()));
    assert_eq!(scene.context.count("gateway_jobs"), 3);
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let scene = Scene::new().await;
    for (path, body) in [
        ("subagents", "{}"),
        ("subagents", r#"{"subagent_type":" ","prompt":"x"}"#),
        ("subagents", r#"{"subagent_type":"x","prompt":" \n"}"#),
        ("subagents", r#"{"subagent_type":"x","prompt":"x","config":[]}"#),
        ("subagents", r#"{"subagent_type":"x","prompt":"x","more":1}"#),
        ("subagents", r#"{"subagent_type":"x","prompt":"\u0000"}"#),
        ("subagents/x/runs", r#"{"prompt":""}"#),
        ("subagents/x/runs", r#"{"prompt":"x","gateway_id":"g"}"#),
        ("subagents/x/cancel", r#"{"run":1}"#),
    ] {
        let request = scene.context.admin_request(Method::POST, path);
        let request = request.header("content-type", "application/json").body(body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 400, "{path} {body}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"]["code"], "invalid_request", "{path} {body}");
    }
    let admin = scene.context.admin();
    let nobody = NewSubagent { gateway_id: Some("nobody".into()), ..do_it() };
    assert_eq!(refusal(admin.create_subagent(&nobody).await).0, 404);
    for table in ["subagents", "subagent_runs", "gateway_jobs"] {
        assert_eq!(scene.context.count(table), 0, "{table}");
    }
    let run = scene.started().await.run;
    let query = format!("subagent-runs/{}/events?after=x", id(&run));
    let answer = scene.context.admin_request(Method::GET, &query).send().await.unwrap();
    assert_eq!(answer.status(), 400);
}

#[tokio::test]
async fn subagents_of_another_team_are_unknown() {
    let scene = Scene::new().await;
    let started = scene.started().await;
    let other = stranger(&scene.context).await;
    let database = scene.context.database();
    // What belongs together moves together.
    database.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    for table in ["subagents", "subagent_runs"] {
        let sql = format!("UPDATE {table} SET team_id = ?1, gateway_id = ?2");
        database.execute(&sql, params![other.team_id, other.gateway_id]).unwrap();
    }
    let (subagent, run) = (id(&started.subagent), id(&started.run));
    let prompt = json!({"prompt": "go on"});
    for (method, path, body, code) in [
        (Method::GET, format!("subagents/{subagent}"), json!({}), "subagent_not_found"),
        (Method::GET, format!("subagents/{subagent}/runs"), json!({}), "subagent_not_found"),
        (Method::POST, format!("subagents/{subagent}/runs"), prompt, "subagent_not_found"),
        (Method::POST, format!("subagents/{subagent}/cancel"), json!({}), "subagent_not_found"),
        (Method::GET, format!("subagent-runs/{run}"), json!({}), "run_not_found"),
        (Method::GET, format!("subagent-runs/{run}/events"), json!({}), "run_not_found"),
    ] {
        let request = scene.context.admin_request(method.clone(), &path).json(&body);
        let answer = tokio::time::timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        assert_eq!(answer.status(), 404, "{method} {path}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"]["code"], code, "{method} {path}");
    }
    assert!(scene.context.admin().subagents(None).await.unwrap().is_empty());
    assert_eq!(scene.context.count("gateway_jobs"), 1);
}
