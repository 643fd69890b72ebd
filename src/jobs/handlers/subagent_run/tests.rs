use std::time::Duration;

use serde_json::{Map, Value, json};

use super::finalise::{
    Ran, Verdict, cancelled_before, failed_before, failure_text, finished, finished_before, judge,
    run_end, shut_down_end,
};
use super::metadata::{About, shut_down};
use super::policy::FullControl;
use super::target::Target;
use crate::model::{JobStatus, RunId, SubagentId};
use crate::observe::Redactor;
use crate::process::{Ended, Exit};
use crate::providers::agent::{AgentOutcome, AgentRun, ContentType, Envelope};
use crate::providers::{ErrorCode, Failure, ProviderId};

const NOW: &str = "2026-11-21T22:00:00.000Z";

fn target() -> Target {
    Target {
        subagent_id: SubagentId::new("s"),
        run_id: RunId::new("r"),
        run_sequence: 3,
        provider: ProviderId::ClaudeCode,
        subagent_type: "claude_code_gateway".into(),
        prompt: "Hello".into(),
        session: None,
        config: Map::new(),
        metadata: fields(json!({"theirs": 1, "current_run_id": "before"})),
    }
}

fn fields(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn with_about<T>(check: impl FnOnce(About<'_>) -> T) -> T {
    let full_control = FullControl { requested: true, denied: Some("no".into()) };
    check(About { target: &target(), full_control: &full_control })
}

fn context() -> Value {
    json!({
        "execution_lane": "cloud", "execution_bridge": "gateway",
        "execution_substrate": "gateway_host", "trust_zone": "user_delegated_host",
        "delegate_kind": "gateway_cli",
    })
}

fn over(base: Value, more: Value) -> Value {
    let mut base = fields(base);
    base.extend(fields(more));
    Value::Object(base)
}

fn run_metadata() -> Value {
    over(
        context(),
        json!({
            "schema_version": 1, "runner": "gateway", "adapter_id": "claude_code",
            "subagent_type": "claude_code_gateway", "run_id": "r", "run_sequence": 3,
            "cancel_state": "none", "full_control_requested": true,
            "full_control_effective": false, "full_control_denied_reason": "no",
        }),
    )
}

fn ran() -> Ran {
    Ran {
        command: Some("claude -p".into()),
        exit_code: Some(0),
        duration: Duration::from_millis(1234),
        output_format: "json",
        adapter: fields(json!({"adapter_id": "theirs", "session_id": "i", "total_cost_usd": 0.1})),
        stderr: Some("warning".into()),
        ..Ran::default()
    }
}

#[test]
fn metadata_of_each_stage_has_exactly_its_keys() {
    with_about(|about| {
        assert_eq!(Value::Object(about.run()), run_metadata());
        assert_eq!(
            Value::Object(about.started()),
            over(
                context(),
                json!({
                    "runner": "gateway", "adapter_id": "claude_code",
                    "subagent_type": "claude_code_gateway", "run_id": "r", "run_sequence": 3,
                })
            )
        );
        let start = json!({"theirs": 1, "current_run_id": "r", "current_run_sequence": 3});
        assert_eq!(Value::Object(about.at_start()), start);
        assert_eq!(Value::Object(about.over_own()), over(start, run_metadata()));
        let cancelled = json!({
            "cancel_reason": "why", "cancel_support": "gateway", "cancellation_scope": "gateway",
            "cancel_state": "acknowledged", "cancelled": true,
        });
        assert_eq!(Value::Object(about.cancelled_before("why")), over(run_metadata(), cancelled));
    });
    assert_eq!(
        Value::Object(shut_down("r", "why", NOW)),
        json!({
            "cancel_run_id": "r", "cancel_requested_at": NOW, "cancel_reason": "why",
            "cancel_state": "acknowledged", "cancel_support": "gateway",
            "cancellation_scope": "gateway", "cancelled": true, "last_run_at": NOW,
        })
    );
}

#[test]
fn a_patch_has_exactly_its_keys_over_the_adapters() {
    let expected = over(
        run_metadata(),
        json!({
            "session_id": "i", "total_cost_usd": 0.1, "last_run_at": NOW, "command": "claude -p",
            "exit_code": 0, "duration_ms": 1234, "timed_out": false, "stdout_truncated": false,
            "stderr_truncated": false, "output_format": "json", "parse_error": null,
            "retry_count": 0, "retry_reasons": [], "retry_max_attempts": 1, "cancel_run_id": null,
            "cancel_requested_at": null, "cancel_reason": null, "cancelled": false,
            "cancel_support": "gateway", "cancellation_scope": "gateway",
        }),
    );
    with_about(|about| {
        assert_eq!(Value::Object(about.ended(&ran(), None, NOW)), expected);
        let cancelled = json!({
            "cancel_reason": "why", "cancelled": true, "cancel_state": "acknowledged",
        });
        let patch = Value::Object(about.ended(&ran(), Some("why"), NOW));
        assert_eq!(patch, over(expected, cancelled));
    });
}

#[test]
fn a_completed_run_is_told_without_an_error() {
    let envelope = Envelope::new("hi".into(), ContentType::Markdown);
    let redactor = Redactor::default();
    let (end, events) = with_about(|about| {
        run_end(about, &redactor, &ran(), &Verdict::Completed(envelope.clone()), NOW)
    });
    assert_eq!(
        (end.final_status, end.output.clone()),
        (JobStatus::Completed, Some(envelope.to_value()))
    );
    assert_eq!((&end.failure_output, &end.final_error), (&None, &None));
    assert_eq!((end.stderr.as_deref(), end.completed_at.as_str()), (Some("warning"), NOW));
    let payload = json!({"duration_ms": 1234, "parse_error": null, "retry_count": 0});
    assert_eq!(events, [("run_completed", fields(payload))]);
    let stored = json!({"content": "hi", "overflow": "key"});
    let job = finished(end.clone(), Some(stored.clone()));
    assert_eq!((job.status, job.error), (JobStatus::Completed, None));
    let result = |output| json!({"subagent_id": "s", "status": "completed", "output": output, "error": null});
    assert_eq!(job.result, result(stored));
    assert_eq!(finished(end, None).result, result(envelope.to_value()));
}

#[test]
fn a_failed_run_is_a_failed_job_without_output() {
    let redactor = Redactor::default();
    let verdict = Verdict::Failed("broken".into());
    let (end, events) = with_about(|about| run_end(about, &redactor, &ran(), &verdict, NOW));
    assert_eq!((end.final_status, &end.output), (JobStatus::Failed, &None));
    assert_eq!(end.failure_output, Some(Envelope::error("broken").to_value()));
    assert_eq!(end.final_error.as_deref(), Some("broken"));
    let payload = json!({"reason": "broken", "duration_ms": 1234, "parse_error": null});
    assert_eq!(events, [("run_failed", fields(payload))]);
    let job = finished(end.clone(), end.failure_output);
    assert_eq!((job.status, job.error.as_deref()), (JobStatus::Failed, Some("broken")));
    let result = json!({"subagent_id": "s", "status": "failed", "output": null, "error": "broken"});
    assert_eq!(job.result, result);
    with_about(|about| assert_eq!(finished_before(about, "broken").result, result));
    let payload = json!({"reason": "no", "source": "gateway", "stage": "pre_execution"});
    assert_eq!(failed_before("no"), ("run_failed", fields(payload)));
}

#[test]
fn a_cancelled_run_is_a_completed_job_whoever_cancelled_it() {
    let redactor = Redactor::default();
    let payload = |source: &str| {
        fields(json!({"reason": "why", "source": source, "cancellation_scope": "gateway"}))
    };
    let verdict = Verdict::Cancelled("why".into());
    let (end, events) = with_about(|about| run_end(about, &redactor, &ran(), &verdict, NOW));
    let mut with_duration = payload("gateway");
    with_duration.insert("duration_ms".into(), 1234.into());
    let expected =
        [("cancellation_acknowledged", payload("gateway")), ("run_cancelled", with_duration)];
    assert_eq!(events, expected);
    let job = finished(end, None);
    assert_eq!((job.status, job.error), (JobStatus::Completed, None));
    let envelope = Envelope::error("why").to_value();
    assert_eq!(
        job.result,
        json!({"subagent_id": "s", "status": "cancelled", "output": envelope, "error": "why"})
    );

    let (end, events) = with_about(|about| cancelled_before(about, &redactor, "why", NOW));
    assert_eq!((&end.output, &end.stderr), (&None, &None));
    assert_eq!(end.metadata_patch["cancel_state"], "acknowledged");
    let requested = json!({"reason": "why", "source": "pending_cancel", "stage": "before_start"});
    assert_eq!(
        events,
        [
            ("cancellation_requested", fields(requested)),
            ("cancellation_acknowledged", payload("gateway")),
            ("run_cancelled", payload("gateway")),
        ]
    );

    let (end, events) = with_about(|about| shut_down_end(about, &redactor, "why", NOW));
    assert_eq!(end.final_status, JobStatus::Cancelled);
    let source = "gateway_shutdown";
    let expected =
        [("cancellation_acknowledged", payload(source)), ("run_cancelled", payload(source))];
    assert_eq!(events, expected);
}

#[test]
fn only_our_own_secrets_leave_an_envelope_and_all_kinds_a_failures_stderr() {
    let redactor = Redactor::default();
    redactor.add_secret("correct-horse-battery");
    let text = "password=hunter22 correct-horse-battery";
    let mut run = agent_run(Ok(Envelope::new(text.into(), ContentType::Markdown)));
    run.stderr = text.into();
    run.outcome.metadata = fields(json!({"session_id": "i", "note": text}));
    let ran = Ran::default().of(&redactor, &run);
    let verdict = Verdict::Completed(judge(&run).unwrap());
    let (end, _) = with_about(|about| run_end(about, &redactor, &ran, &verdict, NOW));
    assert_eq!(end.output.unwrap()["content"], "password=hunter22 [REDACTED]");
    assert_eq!(end.stderr.as_deref(), Some("password=[REDACTED] [REDACTED]"));
    assert_eq!(end.metadata_patch["session_id"], "i");
    assert_eq!(end.metadata_patch["note"], "password=hunter22 [REDACTED]");
}

fn agent_run(result: Result<Envelope, Failure>) -> AgentRun {
    AgentRun {
        outcome: AgentOutcome { result, metadata: Map::new(), parse_error: None },
        exit: Exit::Code(0),
        ended: Ended::ByItself,
        duration: Duration::from_millis(1500),
        stderr: String::new(),
        stdout_truncated: false,
        stderr_truncated: false,
        ignored_lines: 0,
    }
}

#[test]
fn a_run_that_the_limit_ended_is_a_timeout_unless_the_cli_told_more() {
    let envelope = || Envelope::new("x".into(), ContentType::Text);
    let failure = |code| Failure { code, message: "theirs".into(), summary: None };
    assert!(judge(&agent_run(Ok(envelope()))).is_ok());
    for (result, code, message) in [
        (Ok(envelope()), ErrorCode::ProviderTimeout, "1500 ms"),
        (Err(failure(ErrorCode::ProviderFailed)), ErrorCode::ProviderTimeout, "1500 ms"),
        (Err(failure(ErrorCode::ProviderRateLimited)), ErrorCode::ProviderRateLimited, "theirs"),
    ] {
        let run = AgentRun { ended: Ended::TimeLimit, ..agent_run(result) };
        let found = judge(&run).unwrap_err();
        assert_eq!(found.code, code);
        assert!(found.message.contains(message), "{found:?}");
        assert!(Ran::default().of(&Redactor::default(), &run).timed_out);
    }
    let found = judge(&agent_run(Err(failure(ErrorCode::ProviderFailed)))).unwrap_err();
    assert_eq!(*found, failure(ErrorCode::ProviderFailed));
}

#[test]
fn a_failure_names_the_provider_and_what_helps() {
    insta::assert_snapshot!(
        failure_text(ProviderId::ClaudeCode, "Not logged in.\n"),
        @"Claude Code failed: Not logged in. Run `panorama-gateway doctor` to check it."
    );
}
