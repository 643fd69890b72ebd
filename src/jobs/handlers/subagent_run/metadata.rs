//! What runs and subagents keep of a run in their metadata, and what its events say. Pure.

use serde_json::{Map, Value, json};

use super::finalise::Ran;
use super::policy::FullControl;
use super::target::Target;

/// Where the run takes place: the same for all.
pub(in crate::jobs) fn context() -> Value {
    json!({
        "execution_lane": "cloud",
        "execution_bridge": "gateway",
        "execution_substrate": "gateway_host",
        "trust_zone": "user_delegated_host",
        "delegate_kind": "gateway_cli",
    })
}

/// The run that is told of.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) target: &'a Target,
    pub(super) full_control: &'a FullControl,
}

impl About<'_> {
    fn names(&self) -> Value {
        let target = self.target;
        json!({
            "runner": "gateway",
            "adapter_id": target.provider.as_str(),
            "subagent_type": target.subagent_type,
            "run_id": target.run_id,
            "run_sequence": target.run_sequence,
        })
    }

    fn full_control(&self) -> Value {
        json!({
            "full_control_requested": self.full_control.requested,
            "full_control_effective": self.full_control.effective(),
            "full_control_denied_reason": self.full_control.denied,
        })
    }

    /// Payload of `run_started`.
    pub(super) fn started(&self) -> Map<String, Value> {
        merged([self.names(), context()])
    }

    /// What subagent and run get at the start: the subagent's own, and which run is its current one.
    pub(super) fn at_start(&self) -> Map<String, Value> {
        let target = self.target;
        let current = json!({
            "current_run_id": target.run_id, "current_run_sequence": target.run_sequence,
        });
        merged([Value::Object(target.metadata.clone()), current])
    }

    /// What is known of the run before it has a process.
    pub(super) fn run(&self) -> Map<String, Value> {
        let state = json!({"schema_version": 1, "cancel_state": "none"});
        merged([state, self.names(), self.full_control(), context()])
    }

    /// [`Self::run`] over the subagent's own.
    pub(super) fn over_own(&self) -> Map<String, Value> {
        merged([Value::Object(self.at_start()), Value::Object(self.run())])
    }

    /// The patch of a run that was cancelled before it began.
    pub(super) fn cancelled_before(&self, reason: &str) -> Map<String, Value> {
        let cancelled = json!({
            "cancel_reason": reason,
            "cancel_support": "gateway",
            "cancellation_scope": "gateway",
            "cancel_state": "acknowledged",
            "cancelled": true,
        });
        merged([Value::Object(self.run()), cancelled])
    }

    /// The patch of a run that has ended, over what the CLI said of itself. `cancelled` is the
    /// reason, `now` wire time.
    pub(super) fn ended(
        &self,
        ran: &Ran,
        cancelled: Option<&str>,
        now: &str,
    ) -> Map<String, Value> {
        let of_run = json!({
            "schema_version": 1,
            "last_run_at": now,
            "command": ran.command,
            "exit_code": ran.exit_code,
            "duration_ms": ran.duration_ms(),
            "timed_out": ran.timed_out,
            "stdout_truncated": ran.stdout_truncated,
            "stderr_truncated": ran.stderr_truncated,
            "output_format": ran.output_format,
            "parse_error": ran.parse_error,
            "retry_count": 0,
            "retry_reasons": [],
            "retry_max_attempts": 1,
            "cancel_run_id": null,
            "cancel_requested_at": null,
            "cancel_reason": cancelled,
            "cancelled": cancelled.is_some(),
            "cancel_state": if cancelled.is_some() { "acknowledged" } else { "none" },
            "cancel_support": "gateway",
            "cancellation_scope": "gateway",
        });
        let adapter = Value::Object(ran.adapter.clone());
        merged([adapter, of_run, self.names(), self.full_control(), context()])
    }
}

/// What a shutdown that cancels the run lays over the metadata of run and subagent.
pub(super) fn shut_down(run_id: &str, reason: &str, now: &str) -> Map<String, Value> {
    merged([json!({
        "cancel_run_id": run_id,
        "cancel_requested_at": now,
        "cancel_reason": reason,
        "cancel_state": "acknowledged",
        "cancel_support": "gateway",
        "cancellation_scope": "gateway",
        "cancelled": true,
        "last_run_at": now,
    })])
}

/// One object of several; later ones win.
pub(super) fn merged(objects: impl IntoIterator<Item = Value>) -> Map<String, Value> {
    let fields = |value| if let Value::Object(fields) = value { fields } else { Map::new() };
    objects.into_iter().flat_map(fields).collect()
}
