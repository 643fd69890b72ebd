//! Subagents from the operator's side; the test plays the gateway.

mod admin;
mod command_line;

use std::time::Duration;

use panorama_gateway::sandbox::client::{NewRun, NewSubagent, StartedRun};
use reqwest::Method;
use serde_json::{Value, json};

use crate::context::{Context, Paired};

/// Far longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A control plane, and a gateway that does what the test says.
struct Scene {
    context: Context,
    ours: Paired,
}

fn id(row: &Value) -> &str {
    row["id"].as_str().unwrap()
}

fn do_it() -> NewSubagent {
    NewSubagent {
        subagent_type: "claude_code_gateway".into(),
        prompt: "do it".into(),
        config: json!({"model": "m", "timeout_ms": 5}).as_object().unwrap().clone(),
        ..NewSubagent::default()
    }
}

fn go_on() -> NewRun {
    NewRun { prompt: "go on".into(), ..NewRun::default() }
}

impl Scene {
    async fn new() -> Self {
        let context = Context::new().await;
        let ours = context.pair().await;
        Self { context, ours }
    }

    async fn started(&self) -> StartedRun {
        self.context.admin().create_subagent(&do_it()).await.unwrap()
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.context.signed(method, path, &self.ours.access);
        let answer = request.header("prefer", "return=representation").json(body).send().await;
        let answer = answer.unwrap();
        let (status, body) = (answer.status(), answer.json().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    async fn patch(&self, table: &str, id: &str, body: Value) -> Value {
        let rows = self.call(Method::PATCH, &format!("/rest/v1/{table}?id=eq.{id}"), &body).await;
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{table} {body}");
        rows[0].clone()
    }

    /// The oldest job of this type that is queued, once there is one; it is running then.
    async fn claim(&self, job_type: &str) -> Value {
        let path = format!(
            "/rest/v1/gateway_jobs?status=eq.queued&job_type=eq.{job_type}&order=created_at.asc"
        );
        let poll = async {
            loop {
                let request = self.context.signed(Method::GET, &path, &self.ours.access);
                let rows: Value = request.send().await.unwrap().json().await.unwrap();
                if let Some(job) = rows.get(0) {
                    return job.clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let job = tokio::time::timeout(PATIENCE, poll).await.unwrap();
        let claim = json!({"status": "running", "started_at": "2026-01-01T00:00:00.000Z"});
        self.patch("gateway_jobs", id(&job), claim).await
    }

    async fn end_job(&self, job: &Value, status: &str, result: Value) {
        let end = json!({"status": status, "result": result,
                         "completed_at": "2026-01-01T00:00:00.000Z"});
        self.patch("gateway_jobs", id(job), end).await;
    }

    /// An event of the run that a `subagent_run` job is about.
    async fn event(&self, job: &Value, sequence: i64, kind: &str, payload: Value) {
        let event = json!({
            "run_id": job["payload"]["run_id"], "subagent_id": job["payload"]["subagent_id"],
            "team_id": self.ours.team_id, "gateway_id": self.ours.gateway_id,
            "sequence": sequence, "event_type": kind, "payload": payload,
        });
        self.call(Method::POST, "/rest/v1/subagent_run_events", &event).await;
    }

    /// Ends a run by the edge function.
    async fn finalize(&self, job: &Value, status: &str) {
        let mut body = json!({
            "subagent_id": job["payload"]["subagent_id"], "run_id": job["payload"]["run_id"],
            "final_status": status, "metadata_patch": {"session_id": "s-1"},
        });
        let completed = status == "completed";
        let (field, content) =
            if completed { ("output", "done") } else { ("failure_output", "no") };
        body[field] = json!({"schema_version": 1, "content": content, "content_type": "text"});
        if !completed {
            body["final_error"] = json!("it broke");
        }
        self.call(Method::POST, "/functions/v1/finalize-gateway-subagent-run", &body).await;
    }

    /// A run of one message, from claim to end.
    async fn play(&self, status: &str) -> Value {
        let job = self.claim("subagent_run").await;
        self.finalize(&job, status).await;
        self.event(&job, 0, &format!("run_{status}"), json!({"reason": "it broke"})).await;
        let output = json!({"schema_version": 1, "content": "done", "content_type": "text"});
        let result = json!({"subagent_id": job["payload"]["subagent_id"], "status": status,
                            "output": output, "error": null});
        let job_status = if status == "failed" { "failed" } else { "completed" };
        self.end_job(&job, job_status, result).await;
        job
    }
}
