//! A subagent's run as its control plane sees it: made by the admin, followed by its rows.

use std::time::Duration;

use panorama_gateway::providers::ProviderId;
use panorama_gateway::sandbox::client::{NewRun, NewSubagent, StartedRun};
use serde_json::{Value, json};

use crate::common::{fields, wait_until};
use crate::scene::{Scene, Site};

/// What the metadata of run and subagent hold once a run has ended.
const METADATA: [&str; 34] = [
    "schema_version",
    "runner",
    "adapter_id",
    "subagent_type",
    "run_id",
    "run_sequence",
    "last_run_at",
    "command",
    "exit_code",
    "duration_ms",
    "timed_out",
    "stdout_truncated",
    "stderr_truncated",
    "output_format",
    "parse_error",
    "retry_count",
    "retry_reasons",
    "retry_max_attempts",
    "cancel_run_id",
    "cancel_requested_at",
    "cancel_reason",
    "cancelled",
    "cancel_state",
    "cancel_support",
    "cancellation_scope",
    "full_control_requested",
    "full_control_effective",
    "full_control_denied_reason",
    "execution_lane",
    "execution_bridge",
    "execution_substrate",
    "trust_zone",
    "delegate_kind",
    "current_run_id",
];

/// What an adapter adds.
fn adapters(cli: ProviderId) -> &'static [&'static str] {
    match cli {
        ProviderId::ClaudeCode => {
            &["session_id", "total_cost_usd", "usage", "model_usage", "permission_denials"]
        }
        ProviderId::Codex | ProviderId::Gemini => &["usage"],
    }
}

/// A run that was queued.
pub(crate) struct Begun<'a> {
    scene: &'a Scene,
    pub(crate) site: &'a Site,
    pub(crate) subagent: String,
    pub(crate) run: String,
    job: String,
}

/// Makes a subagent with its first run; the config's fields over the usual ones.
pub(crate) async fn begin<'a>(
    scene: &'a Scene,
    site: &'a Site,
    cli: ProviderId,
    prompt: &str,
    config: Value,
) -> Begun<'a> {
    let model = match cli {
        ProviderId::ClaudeCode => "claude-sonnet-5",
        ProviderId::Codex => "gpt-5.5",
        ProviderId::Gemini => "gemini-2.5-pro",
    };
    let mut all = fields(json!({ "model": model }));
    all.extend(fields(config));
    let new = NewSubagent {
        gateway_id: Some(site.gateway_id.clone()),
        subagent_type: format!("{}_gateway", cli.as_str()),
        prompt: prompt.to_owned(),
        config: all,
    };
    let started = scene.control.admin.create_subagent(&new).await.unwrap();
    Begun::of(scene, site, &started)
}

impl<'a> Begun<'a> {
    fn of(scene: &'a Scene, site: &'a Site, started: &StartedRun) -> Self {
        let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
        let (subagent, run, job) = (id(&started.subagent), id(&started.run), id(&started.job));
        Self { scene, site, subagent, run, job }
    }

    /// The next run of the same subagent.
    pub(crate) async fn go_on(&self, prompt: &str) -> Self {
        let new = NewRun { prompt: prompt.to_owned(), ..NewRun::default() };
        let started = self.scene.control.admin.continue_subagent(&self.subagent, &new).await;
        Self::of(self.scene, self.site, &started.unwrap())
    }

    /// The run's row.
    pub(crate) async fn row(&self) -> Value {
        self.scene.control.admin.subagent_run(&self.run).await.unwrap()
    }

    /// All events so far.
    pub(crate) async fn events(&self) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let last = events.last().map_or(-1, |event| event["sequence"].as_i64().unwrap());
            let admin = &self.scene.control.admin;
            let more = admin.run_events(&self.run, last, Duration::ZERO).await.unwrap();
            if more.is_empty() {
                return events;
            }
            events.extend(more);
        }
    }

    /// See [`Scene::until`]. Panics with everything that tells why not.
    pub(crate) async fn until<T>(&self, what: &str, ask: impl FnMut() -> Option<T>) -> T {
        match self.scene.until(&self.job, ask).await {
            Ok(answer) => answer,
            Err(job) => {
                let (run, events) = (self.row().await, self.events().await);
                let status = self.site.machine.status().await;
                panic!("in vain for {what}: {job:#} {run:#} {events:#?} {status:#?}");
            }
        }
    }

    /// The first event of this kind, once it is there.
    pub(crate) async fn event(&self, kind: &str) -> Value {
        wait_until(&format!("a {kind} of run {}", self.run), || async {
            self.events().await.into_iter().find(|event| event["event_type"] == kind)
        })
        .await
    }

    /// Everything about it once its job has ended and nothing more is to come.
    pub(crate) async fn end(&self) -> End {
        let job = self.scene.ended(&self.job).await;
        wait_until(&format!("the last event of run {}", self.run), || async {
            let events = self.events().await;
            let last = events.last()?["event_type"].as_str()?.to_owned();
            matches!(last.as_str(), "run_completed" | "run_failed" | "run_cancelled").then_some(())
        })
        .await;
        let subagent = self.scene.control.admin.subagent(&self.subagent).await.unwrap();
        let end = End { job, run: self.row().await, subagent, events: self.events().await };
        end.check();
        end
    }
}

/// A run that is over, by its rows.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) job: Value,
    pub(crate) run: Value,
    pub(crate) subagent: Value,
    pub(crate) events: Vec<Value>,
}

impl End {
    /// What holds however a run ends.
    fn check(&self) {
        let numbers = self.events.iter().map(|event| event["sequence"].as_u64().unwrap());
        assert!(numbers.eq(0..self.events.len() as u64), "numbers are missing: {self:#?}");
        let kinds = self.kinds();
        assert_eq!(kinds[0], "run_started", "{self:#?}");
        let last = format!("run_{}", self.run["status"].as_str().unwrap());
        assert_eq!(kinds.last(), Some(&last.as_str()), "{self:#?}");
        for row in [&self.run, &self.subagent] {
            assert_eq!(row["status"], self.run["status"], "{self:#?}");
            assert_eq!(row["output"], self.run["output"], "{self:#?}");
            assert!(row["started_at"].is_string() && row["completed_at"].is_string(), "{self:#?}");
        }
    }

    /// The kinds of all events, in order.
    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.events.iter().map(|event| event["event_type"].as_str().unwrap()).collect()
    }

    /// What the last event says.
    pub(crate) fn last(&self) -> &Value {
        &self.events.last().unwrap()["payload"]
    }

    /// It succeeded with prose; its answer.
    pub(crate) fn completed(&self) -> &str {
        self.completed_as("markdown").as_str().unwrap()
    }

    /// It succeeded; its answer, of this content type.
    pub(crate) fn completed_as(&self, content_type: &str) -> &Value {
        for row in [&self.job, &self.run, &self.subagent] {
            assert_eq!(
                (&row["status"], &row["error"]),
                (&json!("completed"), &Value::Null),
                "{self:#?}"
            );
        }
        let output = &self.run["output"];
        let told = json!({
            "subagent_id": self.subagent["id"], "status": "completed", "output": output, "error": null,
        });
        assert_eq!(self.job["result"], told, "{self:#?}");
        let known = ["schema_version", "content", "content_type", "summary", "sources", "errors"];
        let mut names = output.as_object().unwrap().keys();
        assert!(names.all(|name| known.contains(&name.as_str())), "{output}");
        assert_eq!(
            (&output["schema_version"], &output["content_type"]),
            (&json!(1), &json!(content_type))
        );
        self.told_all();
        let metadata = &self.run["metadata"];
        let cli = ProviderId::parse(metadata["adapter_id"].as_str().unwrap()).unwrap();
        for name in adapters(cli) {
            assert!(!metadata[name].is_null(), "no {name} in {metadata:#}");
        }
        &output["content"]
    }

    /// It failed, told by every row; why.
    pub(crate) fn failed(&self) -> &str {
        for row in [&self.job, &self.run, &self.subagent] {
            assert_eq!(row["status"], "failed", "{self:#?}");
        }
        let error = self.run["error"].as_str().unwrap_or_else(|| panic!("{self:#?}"));
        assert_eq!(self.subagent["error"], error, "{self:#?}");
        let envelope = json!({"schema_version": 1, "content": error, "content_type": "text", "errors": [error]});
        assert_eq!(self.run["output"], envelope, "{self:#?}");
        error
    }

    /// The metadata tell everything of a run that was finalized.
    pub(crate) fn told_all(&self) {
        for row in [&self.run, &self.subagent] {
            let metadata = row["metadata"].as_object().unwrap();
            let missing: Vec<_> =
                METADATA.iter().filter(|name| !metadata.contains_key(**name)).collect();
            assert!(missing.is_empty(), "{missing:?} of {metadata:#?}");
            assert_eq!(metadata["run_id"], self.run["id"], "{metadata:#?}");
        }
    }
}
