//! Which run a `subagent_run` is for, by its payload and the rows of subagent and run. Pure.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::jobs::handlers::Finished;
use crate::model::{GatewayId, JobStatus, RunId, SubagentId};
use crate::providers::{self, Provider, ProviderId};

/// What the payload names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) subagent_id: String,
    pub(super) run_id: Option<String>,
}

/// A run that is to be carried out here, as far as the subagent's row tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub(super) subagent_id: SubagentId,
    pub(super) run_id: RunId,
    pub(super) run_sequence: i64,
    pub(super) provider: ProviderId,
    /// As the row has it.
    pub(super) subagent_type: String,
    /// Trimmed, not empty.
    pub(super) prompt: String,
    /// The session that an earlier run began.
    pub(super) session: Option<String>,
    /// `config`.
    pub(super) config: Map<String, Value>,
    /// The subagent's own `metadata`.
    pub(super) metadata: Map<String, Value>,
}

/// Ends the job before anything of the subagent was touched.
pub(super) fn refuse(status: JobStatus, message: &str, fields: Value) -> Finished {
    let mut result = json!({ "message": message });
    if let Value::Object(fields) = fields {
        for (name, value) in fields {
            result[name] = value;
        }
    }
    Finished { status, result, error: Some(message.to_owned()) }
}

/// What the payload asks for, in either spelling; an error is the job's end.
pub(super) fn asked(payload: &Map<String, Value>) -> Result<Asked, Finished> {
    let text = |snake: &str, camel: &str| {
        let named = [payload.get(snake), payload.get(camel)];
        named.into_iter().flatten().find_map(text_of)
    };
    let Some(subagent_id) = text("subagent_id", "subagentId") else {
        return Err(refuse(JobStatus::Failed, "subagent_id is missing", json!({})));
    };
    Ok(Asked { subagent_id, run_id: text("run_id", "runId") })
}

impl Asked {
    /// The id as the table has it; what is no UUID names no row.
    pub(super) fn subagent(&self) -> Option<SubagentId> {
        uuid(&self.subagent_id).map(SubagentId::new)
    }

    /// Checks the subagent's row; an error is the job's end.
    pub(super) fn target(
        &self,
        row: Option<&Value>,
        gateway: &GatewayId,
    ) -> Result<Target, Finished> {
        let cancelled = |message: &str, fields: Value| {
            let mut refusal = refuse(JobStatus::Cancelled, message, fields);
            refusal.result["subagent_id"] = json!(self.subagent_id);
            refusal
        };
        let (Some(row), Some(subagent_id)) = (row, self.subagent()) else {
            return Err(cancelled("The subagent does not exist", json!({})));
        };
        let assigned = row.get("gateway_id").and_then(Value::as_str);
        if assigned != Some(gateway.as_str()) {
            let fields = json!({"assigned_gateway_id": assigned, "gateway_id": gateway});
            return Err(cancelled("The subagent is assigned to another gateway", fields));
        }
        let metadata = object(row.get("metadata"));
        let current = metadata.get("current_run_id").and_then(text_of);
        let is_running = row.get("status").and_then(Value::as_str) == Some("running");
        let is_other = match (&self.run_id, &current) {
            (Some(expected), Some(current)) => !expected.eq_ignore_ascii_case(current),
            (Some(_) | None, _) => false,
        };
        if !is_running || is_other {
            let message = if is_running {
                "The subagent's current run is another one"
            } else {
                "The subagent is not running"
            };
            let fields = json!({"expected_run_id": self.run_id, "current_run_id": current});
            return Err(cancelled(message, fields));
        }
        let (provider, subagent_type) = provider_of(row)?;
        let input = object(row.get("input"));
        let prompt = ["prompt", "query", "task"]
            .into_iter()
            .find_map(|name| input.get(name).and_then(text_of));
        let failed = |message: &str| refuse(JobStatus::Failed, message, json!({}));
        let prompt = prompt.ok_or_else(|| failed("The subagent's input has no prompt"))?;
        let session = metadata.get("session_id").and_then(text_of);
        let continues = providers::by_id(provider).is_some_and(Provider::continues_sessions);
        if session.is_some() && !continues {
            let title = provider.title();
            return Err(failed(&format!("{title} cannot go on with an earlier session")));
        }
        let named = self.run_id.as_deref().and_then(uuid);
        let named = named.or_else(|| uuid(&input.get("run_id").and_then(text_of)?));
        let Some(run_id) = named else {
            return Err(cancelled("The job names no run", json!({})));
        };
        let Some(run_sequence) = input.get("run_sequence").and_then(whole_number) else {
            let fields = json!({"run_id": run_id});
            return Err(cancelled("The subagent's input has no run_sequence", fields));
        };
        Ok(Target {
            subagent_id,
            run_id: RunId::new(run_id),
            run_sequence,
            provider,
            subagent_type,
            prompt,
            session,
            config: object(row.get("config")),
            metadata,
        })
    }
}

impl Target {
    /// Whether the run's own row agrees; an error is the job's end.
    pub(super) fn accept(&self, run: Option<&Value>) -> Result<(), Finished> {
        let status = run.and_then(|run| run.get("status")).and_then(Value::as_str);
        let refused = |message: &str| {
            let fields = json!({
                "subagent_id": self.subagent_id, "run_id": self.run_id, "run_status": status,
            });
            Err(refuse(JobStatus::Cancelled, message, fields))
        };
        let Some(run) = run else { return refused("The run does not exist") };
        let text = |name: &str| run.get(name).and_then(Value::as_str).map(str::trim);
        if status != Some("running") {
            return refused("The run is not running");
        }
        if text("subagent_id") != Some(self.subagent_id.as_str()) {
            return refused("The run belongs to another subagent");
        }
        if run.get("run_sequence").and_then(whole_number) != Some(self.run_sequence) {
            return refused("The run has another run_sequence than the subagent's input");
        }
        if text("prompt") != Some(self.prompt.as_str()) {
            return refused("The run has another prompt than the subagent's input");
        }
        Ok(())
    }

    /// Why the run was to be cancelled before it began, if it was.
    pub(super) fn pending_cancel(&self) -> Option<String> {
        let text = |name: &str| self.metadata.get(name).and_then(text_of);
        let is_ours = text("cancel_run_id")?.eq_ignore_ascii_case(self.run_id.as_str());
        is_ours.then(|| text("cancel_reason").unwrap_or_else(|| CANCELLED.to_owned()))
    }
}

/// A reason for those who gave none.
pub(super) const CANCELLED: &str = "Cancelled";

fn provider_of(row: &Value) -> Result<(ProviderId, String), Finished> {
    let named = row.get("subagent_type").and_then(Value::as_str).unwrap_or_default();
    let Some(provider) = ProviderId::of_subagent_type(named) else {
        let message = format!("This gateway does not know the subagent type {named:?}");
        return Err(refuse(JobStatus::Failed, &message, json!({"subagent_type": named})));
    };
    Ok((provider, named.to_owned()))
}

/// A text that says something, trimmed.
pub(super) fn text_of(value: &Value) -> Option<String> {
    let text = value.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number or a numeric text.
fn whole_number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn object(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// In the form in which tables have it.
fn uuid(text: &str) -> Option<String> {
    Uuid::parse_str(text.trim()).ok().map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBAGENT: &str = "11111111-1111-4111-8111-111111111111";
    const RUN: &str = "22222222-2222-4222-8222-22222222abcd";

    fn asked_for(payload: &Value) -> Result<Asked, Finished> {
        asked(payload.as_object().unwrap())
    }

    fn row() -> Value {
        json!({
            "id": SUBAGENT, "gateway_id": "g", "status": "running",
            "subagent_type": "claude_code_gateway",
            "config": {"model": "sonnet"},
            "input": {"prompt": " Hello \n", "run_sequence": "3", "run_id": RUN},
            "metadata": {"current_run_id": RUN, "session_id": "s-1"},
        })
    }

    fn target(payload: &Value, row: &Value) -> Result<Target, Finished> {
        asked_for(payload).unwrap().target(Some(row), &GatewayId::new("g"))
    }

    #[test]
    fn a_run_is_found_by_either_spelling_and_without_its_id() {
        for payload in [
            json!({"subagent_id": SUBAGENT, "run_id": RUN}),
            json!({"subagentId": SUBAGENT, "runId": RUN}),
            json!({"subagent_id": SUBAGENT.to_uppercase(), "run_id": RUN.to_uppercase()}),
            json!({"subagent_id": SUBAGENT}),
            json!({"subagent_id": SUBAGENT, "run_id": null}),
        ] {
            let found = target(&payload, &row()).unwrap();
            assert_eq!(found.subagent_id.as_str(), SUBAGENT, "{payload}");
            assert_eq!((found.run_id.as_str(), found.run_sequence), (RUN, 3), "{payload}");
            assert_eq!((found.prompt.as_str(), found.provider), ("Hello", ProviderId::ClaudeCode));
            assert_eq!(found.session.as_deref(), Some("s-1"));
        }
    }

    #[test]
    fn a_payloads_id_that_is_no_uuid_gives_way_to_the_inputs() {
        let mut row = row();
        row["metadata"] = Value::Null;
        let found = target(&json!({"subagent_id": SUBAGENT, "run_id": "x"}), &row).unwrap();
        assert_eq!(found.run_id.as_str(), RUN);
        row["input"]["run_id"] = json!("y");
        let refusal = target(&json!({"subagent_id": SUBAGENT, "run_id": "x"}), &row).unwrap_err();
        assert_eq!(refusal.status, JobStatus::Cancelled);
    }

    #[test]
    fn the_prompt_is_the_first_that_says_something() {
        for (input, prompt) in [
            (json!({"prompt": " ", "query": "q", "task": "t"}), "q"),
            (json!({"prompt": null, "task": " t "}), "t"),
            (json!({"prompt": "p", "query": "q"}), "p"),
        ] {
            let mut row = row();
            row["input"] = input;
            row["input"]["run_sequence"] = json!(1);
            let payload = json!({"subagent_id": SUBAGENT, "run_id": RUN});
            assert_eq!(target(&payload, &row).unwrap().prompt, prompt);
        }
    }

    #[test]
    fn each_branch_ends_the_job_its_own_way() {
        use JobStatus::{Cancelled, Failed};
        let payload = json!({"subagent_id": SUBAGENT, "run_id": RUN});
        for (pointer, value, status, key) in [
            ("/gateway_id", json!("other"), Cancelled, "assigned_gateway_id"),
            ("/gateway_id", Value::Null, Cancelled, "gateway_id"),
            ("/status", json!("idle"), Cancelled, "expected_run_id"),
            ("/status", json!("completed"), Cancelled, "current_run_id"),
            ("/metadata/current_run_id", json!("other"), Cancelled, "current_run_id"),
            ("/subagent_type", json!("cursor_gateway"), Failed, "subagent_type"),
            ("/subagent_type", Value::Null, Failed, "subagent_type"),
            ("/input/prompt", json!("  "), Failed, "message"),
            ("/input", Value::Null, Failed, "message"),
            ("/subagent_type", json!("codex_gateway"), Failed, "message"),
            ("/input/run_sequence", json!("soon"), Cancelled, "subagent_id"),
            ("/input/run_sequence", json!(1.5), Cancelled, "subagent_id"),
            ("/input/run_sequence", Value::Null, Cancelled, "subagent_id"),
        ] {
            let mut changed = row();
            *changed.pointer_mut(pointer).unwrap() = value.clone();
            let refusal = target(&payload, &changed).unwrap_err();
            assert_eq!(refusal.status, status, "{pointer} {value}: {refusal:?}");
            assert!(refusal.result.get(key).is_some(), "{pointer} {value}: {refusal:?}");
            let message = refusal.result["message"].as_str();
            assert_eq!(message, refusal.error.as_deref(), "{pointer}");
        }
        for asked in [payload.clone(), json!({"subagent_id": "no uuid"})] {
            let gone = asked_for(&asked).unwrap().target(None, &GatewayId::new("g")).unwrap_err();
            assert_eq!(
                (gone.status, &gone.result["subagent_id"]),
                (Cancelled, &asked["subagent_id"])
            );
        }
        for asked in [json!({}), json!({"subagent_id": " "}), json!({"subagent_id": 7})] {
            assert_eq!(asked_for(&asked).unwrap_err().status, Failed, "{asked}");
        }
    }

    #[test]
    fn the_runs_row_must_agree() {
        let target = target(&json!({"subagent_id": SUBAGENT, "run_id": RUN}), &row()).unwrap();
        let run = json!({
            "subagent_id": SUBAGENT, "run_sequence": 3, "status": "running", "prompt": "Hello",
        });
        assert!(target.accept(Some(&run)).is_ok());
        assert!(target.accept(None).is_err());
        for (name, value) in [
            ("status", json!("cancelled")),
            ("subagent_id", json!(RUN)),
            ("run_sequence", json!(4)),
            ("prompt", json!("Hello?")),
            ("prompt", Value::Null),
        ] {
            let mut other = run.clone();
            other[name] = value;
            let refusal = target.accept(Some(&other)).unwrap_err();
            assert_eq!(refusal.status, JobStatus::Cancelled, "{other}");
            assert_eq!(refusal.result["run_status"], other["status"], "{other}");
            assert_eq!(refusal.result["run_id"], RUN, "{other}");
        }
    }

    #[test]
    fn a_cancel_that_came_first_is_for_one_run_only() {
        let payload = json!({"subagent_id": SUBAGENT, "run_id": RUN});
        let mut row = row();
        assert_eq!(target(&payload, &row).unwrap().pending_cancel(), None);
        row["metadata"]["cancel_run_id"] = json!(SUBAGENT);
        assert_eq!(target(&payload, &row).unwrap().pending_cancel(), None);
        row["metadata"]["cancel_run_id"] = json!(RUN);
        assert_eq!(target(&payload, &row).unwrap().pending_cancel().as_deref(), Some("Cancelled"));
        row["metadata"]["cancel_reason"] = json!("not needed");
        let reason = target(&payload, &row).unwrap().pending_cancel();
        assert_eq!(reason.as_deref(), Some("not needed"));
    }
}
