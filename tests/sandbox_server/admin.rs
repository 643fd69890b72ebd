//! The admin API, through its own client where one exists.

use std::time::Duration;

use panorama_gateway::model::JobStatus;
use panorama_gateway::sandbox::client::{NewJob, NewResource};
use panorama_gateway::sandbox::{
    AdminClient, AdminClientError, Server, ServerError, ServerOptions,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::context::Context;
use crate::strangers::stranger;

fn diagnostic() -> NewJob {
    NewJob { job_type: "diagnostic".into(), ..NewJob::default() }
}

fn refusal<T: std::fmt::Debug>(
    result: Result<T, AdminClientError>,
) -> (u16, String, Option<Value>) {
    match result {
        Err(AdminClientError::Refused { status, code, job, .. }) => (status, code, job),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_token_is_needed_and_checked() {
    let context = Context::new().await;
    let url = format!("{}/admin/v1/info", context.server.url());
    let bare = context.http.get(&url);
    let anon = context.http.get(&url).bearer_auth(context.server.anon_key());
    let wrong = context.http.get(&url).bearer_auth("x".repeat(43));
    let empty = context.http.get(&url).header("authorization", "Bearer ");
    for request in [bare, anon, wrong, empty] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "unauthorized");
    }
    let refused = context.http.post(format!("{}/admin/v1/pairing-codes", context.server.url()));
    assert_eq!(refused.json(&json!({})).send().await.unwrap().status(), 401);
    assert_eq!(context.count("pairing_codes"), 0);
    let info = context.admin().info().await.unwrap();
    assert_eq!(info.url, context.server.url());
    assert_eq!(info.anon_key, context.server.anon_key());
    assert_eq!((info.pid, info.version.as_str()), (std::process::id(), panorama_gateway::VERSION));
}

#[tokio::test]
async fn a_server_is_found_by_its_data_dir_while_it_runs() {
    let context = Context::new().await;
    let data_dir = context.data_dir();
    let elsewhere = context.dir.path().join("elsewhere");
    assert!(AdminClient::find(&elsewhere).await.unwrap().is_none());
    let found = AdminClient::find(&data_dir).await.unwrap().unwrap();
    assert_eq!(found.info().await.unwrap().url, context.server.url());
    let again = ServerOptions::new(&data_dir, "127.0.0.1:0".parse().unwrap());
    let error = Server::start(again).await.unwrap_err();
    assert!(matches!(error, ServerError::AlreadyRunning { .. }), "{error:?}");
    let record = std::fs::read(data_dir.join("server.json")).unwrap();
    let Context { server, dir: _dir, .. } = context;
    server.shutdown().await;
    assert!(AdminClient::find(&data_dir).await.unwrap().is_none());
    panorama_gateway::fs::save(&data_dir.join("server.json"), &record).unwrap();
    assert!(AdminClient::find(&data_dir).await.unwrap().is_none(), "a stale record");
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let context = Context::new().await;
    let address = context.server.local_addr();
    let options = ServerOptions::new(context.dir.path().join("second"), address);
    let error = Server::start(options).await.unwrap_err();
    assert!(matches!(error, ServerError::PortBusy { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.hint().contains("--listen"), "{}", error.hint());
}

#[tokio::test]
async fn what_lies_on_disk_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let context = Context::new().await;
    context.pair().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    let data_dir = context.data_dir();
    assert_eq!(mode(&data_dir) & 0o777, 0o700);
    for entry in std::fs::read_dir(&data_dir).unwrap() {
        let path = entry.unwrap().path();
        let private = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path) & 0o777, private, "{path:?}");
    }
}

#[tokio::test]
async fn jobs_go_to_a_paired_gateway() {
    let context = Context::new().await;
    let (status, code, _) = refusal(context.admin().submit_job(&diagnostic()).await);
    assert_eq!((status, code.as_str()), (409, "no_gateway"));
    let first = context.pair().await;
    let second = context.pair().await;
    let job = context.admin().submit_job(&diagnostic()).await.unwrap();
    assert_eq!(job["gateway_id"], second.gateway_id.as_str(), "the newest, when none was seen");
    assert_eq!((&job["status"], &job["attempt"]), (&json!("queued"), &json!(1)));
    let named = NewJob { gateway_id: Some(first.gateway_id.clone()), ..diagnostic() };
    let named = context.admin().submit_job(&named).await.unwrap();
    assert_eq!(named["gateway_id"], first.gateway_id.as_str());
    let unknown = NewJob { gateway_id: Some("nobody".into()), ..diagnostic() };
    assert_eq!(refusal(context.admin().submit_job(&unknown).await).0, 404);
    let jobs = context.admin().jobs(Some(JobStatus::Queued), Some(10)).await.unwrap();
    assert_eq!(jobs.iter().map(|job| &job["id"]).collect::<Vec<_>>(), [&named["id"], &job["id"]]);
    assert_eq!(context.admin().jobs(None, Some(1)).await.unwrap().len(), 1);
    assert!(context.admin().jobs(Some(JobStatus::Failed), None).await.unwrap().is_empty());
    assert_eq!(refusal(context.admin().job("no such/id?").await).1, "job_not_found");
}

#[tokio::test]
async fn a_job_is_cancelled_once() {
    let context = Context::new().await;
    context.pair().await;
    let job = context.admin().submit_job(&diagnostic()).await.unwrap();
    let id = job["id"].as_str().unwrap();
    let cancelled = context.admin().cancel_job(id).await.unwrap();
    assert_eq!(cancelled["status"], "cancelled");
    assert!(cancelled["completed_at"].is_string());
    let (status, code, row) = refusal(context.admin().cancel_job(id).await);
    assert_eq!((status, code.as_str()), (409, "job_is_over"));
    assert_eq!(row.unwrap()["status"], "cancelled");
    assert_eq!(refusal(context.admin().cancel_job("nothing").await).0, 404);
}

#[tokio::test]
async fn a_long_poll_answers_when_the_job_changes() {
    let context = Context::new().await;
    context.pair().await;
    let admin = context.admin();
    let job = admin.submit_job(&diagnostic()).await.unwrap();
    let (id, seen) = (job["id"].as_str().unwrap(), job["updated_at"].as_str().unwrap());
    let started = tokio::time::Instant::now();
    let (watched, cancelled) =
        tokio::join!(admin.job_after(id, seen, Duration::from_secs(25)), admin.cancel_job(id));
    assert_eq!(watched.unwrap()["status"], "cancelled");
    cancelled.unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    let late = admin.job_after(id, seen, Duration::from_secs(25)).await.unwrap();
    assert_eq!(late["status"], "cancelled", "what changed before is told at once");
    let now = late["updated_at"].as_str().unwrap();
    let same = admin.job_after(id, now, Duration::from_millis(50)).await.unwrap();
    assert_eq!(same["updated_at"], late["updated_at"]);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_long_polls() {
    let context = Context::new().await;
    context.pair().await;
    let admin = context.admin();
    let job = admin.submit_job(&diagnostic()).await.unwrap();
    let (id, seen) = (job["id"].as_str().unwrap(), job["updated_at"].as_str().unwrap());
    let Context { server, dir: _dir, .. } = context;
    let started = tokio::time::Instant::now();
    let (watched, ()) = tokio::join!(admin.job_after(id, seen, Duration::from_secs(25)), async {
        // The poll is on its way as soon as the client has written it; a second request over
        // another connection that was answered shows that the server has run since.
        admin.info().await.unwrap();
        server.shutdown().await;
    });
    assert!(started.elapsed() < Duration::from_secs(10));
    if let Ok(row) = watched {
        assert_eq!(row["status"], "queued");
    }
}

#[tokio::test]
async fn the_team_toggle_and_resources() {
    let context = Context::new().await;
    assert_eq!(refusal(context.admin().set_full_control(None, true).await).1, "no_gateway");
    let ours = context.pair().await;
    let on = context.admin().set_full_control(None, true).await.unwrap();
    assert_eq!((&on["id"], &on["full_control_enabled"]), (&json!(ours.gateway_id), &json!(true)));
    let off = context.admin().set_full_control(Some(&ours.gateway_id), false).await.unwrap();
    assert_eq!(off["full_control_enabled"], false);
    let mut resource = NewResource {
        gateway_id: ours.gateway_id.clone(),
        resource_type: "remote_shell".into(),
        max_access_level: "operator".into(),
        metadata: json!({"full_control": true}).as_object().unwrap().clone(),
    };
    let made = context.admin().make_resource(&resource).await.unwrap();
    assert_eq!(made["metadata"], json!({"full_control": true, "gateway_id": ours.gateway_id}));
    assert_eq!(context.admin().resources().await.unwrap(), [made]);
    resource.metadata.insert("gateway_id".into(), json!("somebody else's"));
    assert_eq!(refusal(context.admin().make_resource(&resource).await).0, 400);
    resource.gateway_id = "nobody".into();
    resource.metadata.clear();
    assert_eq!(refusal(context.admin().make_resource(&resource).await).0, 404);
    assert_eq!(context.count("team_resources"), 1);
    assert!(context.admin().events(Some(5)).await.unwrap().is_empty());
}

#[tokio::test]
async fn bad_admin_input_is_refused_and_changes_nothing() {
    let context = Context::new().await;
    context.pair().await;
    for (path, body) in [
        ("jobs", "<html></html>"),
        ("jobs", ""),
        ("jobs", "{}"),
        ("jobs", r#"{"job_type":" "}"#),
        ("jobs", r#"{"job_type":"x","payload":[]}"#),
        ("jobs", r#"{"job_type":"x","unknown":1}"#),
        ("jobs", r#"{"job_type":"x","attempt":-1}"#),
        ("jobs", r#"{"job_type":"x","attempt":2147483648}"#),
        ("jobs", r#"{"job_type":"x\u0000"}"#),
        ("jobs", r#"{"job_type":"x","payload":{"a":["\u0000"]}}"#),
        ("full-control", r#"{"enabled":"yes"}"#),
        ("resources", "{}"),
        ("pairing-codes", r#"{"device_name":7}"#),
    ] {
        let answer = context
            .admin_request(Method::POST, path)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{path} {body}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"]["code"], "invalid_request", "{path} {body}");
    }
    let form = context.admin_request(Method::POST, "pairing-codes").body("{}");
    assert_eq!(form.send().await.unwrap().status(), 415);
    for path in ["jobs?status=asleep", "jobs?limit=-1", "jobs?unknown=1"] {
        let answer = context.admin_request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{path}");
    }
    let nowhere = context.admin_request(Method::GET, "nothing").send().await.unwrap();
    assert_eq!(nowhere.status(), 404);
    assert_eq!((context.count("gateway_jobs"), context.count("team_resources")), (0, 0));
    assert_eq!(context.count("pairing_codes"), 1);
}

#[tokio::test]
async fn damaged_or_newer_files_are_refused_and_left_alone() {
    let context = Context::new().await;
    let data_dir = context.data_dir();
    let Context { server, dir: _keep, .. } = context;
    server.shutdown().await;
    let secrets = data_dir.join("secrets.json");
    let newer =
        std::fs::read_to_string(&secrets).unwrap().replace("\"version\": 1", "\"version\": 2");
    for (contents, part) in [("{", "damaged"), ("null", "damaged"), (&newer, "format 2")] {
        std::fs::write(&secrets, contents).unwrap();
        let options = ServerOptions::new(&data_dir, "127.0.0.1:0".parse().unwrap());
        let error = Server::start(options).await.unwrap_err();
        assert!(matches!(error, ServerError::Secrets(_)), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(std::fs::read_to_string(&secrets).unwrap(), contents);
    }
    panorama_gateway::fs::save(&data_dir.join("server.json"), b"<html>").unwrap();
    let error = AdminClient::find(&data_dir).await.unwrap_err();
    assert!(matches!(error, AdminClientError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn jobs_of_another_team_are_unknown() {
    let context = Context::new().await;
    context.pair().await;
    let job = context.admin().submit_job(&diagnostic()).await.unwrap();
    let id = job["id"].as_str().unwrap();
    let other = stranger(&context).await;
    let sql = "UPDATE gateway_jobs SET team_id = ?1, gateway_id = ?2";
    context.database().execute(sql, [&other.team_id, &other.gateway_id]).unwrap();
    for (method, path) in
        [(Method::GET, format!("jobs/{id}")), (Method::POST, format!("jobs/{id}/cancel"))]
    {
        let answer = context.admin_request(method, &path).json(&json!({})).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "job_not_found");
    }
    let sql = "SELECT status FROM gateway_jobs";
    let status: String = context.database().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(status, "queued");
}
