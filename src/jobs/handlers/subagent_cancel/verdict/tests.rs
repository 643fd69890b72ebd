use super::*;

fn request(payload: Value) -> Option<Request> {
    Request::of(&serde_json::from_value(payload).unwrap())
}

fn asked(run: Option<&str>) -> Request {
    request(json!({"subagent_id": "s", "run_id": run, "reason": "why"})).unwrap()
}

fn subagent(gateway: &str, subagent_type: &str, status: &str) -> Value {
    json!({"id": "s", "gateway_id": gateway, "subagent_type": subagent_type, "status": status})
}

fn refused(request: &Request, subagent: Option<&Value>, run: Option<&Value>) -> Value {
    of_subagent(&GatewayId::new("g"), subagent)
        .and_then(|()| of_run(request, run).map(|_| ()))
        .unwrap_err()
        .to_result(request)
}

#[test]
fn the_payload_is_read_in_both_spellings() {
    let full = Request {
        subagent_id: SubagentId::new("s"),
        run_id: Some(RunId::new("r")),
        reason: "why".to_owned(),
    };
    let snake = json!({"subagent_id": " s ", "run_id": "r", "reason": " why "});
    let camel = json!({"subagentId": "s", "runId": "r", "reason": "why", "more": 1});
    assert_eq!((request(snake), request(camel)), (Some(full.clone()), Some(full)));
    let bare = request(json!({"subagent_id": "", "subagentId": "s", "run_id": null})).unwrap();
    assert_eq!((bare.run_id, bare.reason.as_str()), (None, "Cancelled"));
    let odd = request(json!({"subagent_id": "s", "run_id": 7, "reason": " "})).unwrap();
    assert_eq!((odd.run_id, odd.reason.as_str()), (None, "Cancelled"));
    let id = "0199B1B0-0000-7000-8000-00000000ABCD";
    let upper = request(json!({"subagent_id": id, "run_id": id})).unwrap();
    assert_eq!(upper.subagent_id.as_str(), id.to_lowercase());
    assert_eq!(upper.run_id.unwrap().as_str(), id.to_lowercase());
    for missing in [json!({}), json!({"subagent_id": 7}), json!({"subagent_id": " "})] {
        assert_eq!(request(missing.clone()), None, "{missing}");
    }
}

#[test]
fn every_refusal_has_its_result() {
    let codex = |status: &str| Some(subagent("g", "codex_gateway", status));
    let (terminal, gone, no, none) = ("already_terminal", "no_active_run", "rejected", "none");
    let run = json!({"id": "r1"});
    // (subagent, its running run, cancel_result, cancel_state, cancel_supported, status)
    let not_here = [
        (None, None, (gone, none, false, "not_found")),
        (Some(subagent("h", "codex_gateway", "idle")), None, (gone, none, false, "running")),
        (Some(subagent("h", "other", "running")), None, (gone, none, false, "running")),
    ];
    let here = [
        (Some(subagent("g", "other", "running")), None, (no, no, false, "running")),
        (Some(subagent("g", "other", "idle")), None, (no, no, false, "idle")),
        (codex("completed"), None, (terminal, none, true, "completed")),
        (codex("failed"), None, (terminal, none, true, "failed")),
        (codex("cancelled"), None, (terminal, none, true, "cancelled")),
        (codex("idle"), None, (gone, none, true, "idle")),
        (codex("queued"), None, (no, none, true, "queued")),
        (codex("strange"), None, (no, none, true, "strange")),
        (codex("running"), None, (gone, none, true, "running")),
        (codex("running"), Some(&run), (gone, none, true, "running")),
    ];
    let is_here = std::iter::repeat_n(false, not_here.len()).chain(std::iter::repeat(true));
    for ((subagent, run, wanted), is_here) in not_here.into_iter().chain(here).zip(is_here) {
        let request = asked(Some("r9"));
        let result = refused(&request, subagent.as_ref(), run);
        let (cancel_result, cancel_state, supported, status) = wanted;
        assert!(!result["message"].as_str().unwrap().is_empty());
        let mut wanted = json!({
            "subagent_id": "s", "run_id": "r9", "cancelled_active_run": false, "reason": "why",
            "cancel_result": cancel_result, "cancel_state": cancel_state,
            "cancel_supported": supported, "status": status, "message": result["message"],
        });
        if is_here {
            wanted["run_id"] = Value::Null;
            wanted["active_run_id"] = run.map_or(Value::Null, |run| run["id"].clone());
        }
        assert_eq!(result, wanted, "{subagent:?}");
    }
    let result = refused(&asked(None), None, None);
    assert_eq!(result["run_id"], Value::Null);
}

#[test]
fn the_run_that_runs_is_cancelled_named_or_not() {
    for subagent_type in ["claude_code_gateway", "codex_gateway", "gemini_gateway"] {
        let row = subagent("g", subagent_type, "running");
        assert_eq!(of_subagent(&GatewayId::new("g"), Some(&row)), Ok(()));
    }
    let run = json!({"id": "r1"});
    for named in [None, Some("r1")] {
        assert_eq!(of_run(&asked(named), Some(&run)), Ok(RunId::new("r1")));
    }
    let request = asked(None);
    for active in [true, false] {
        let result = accepted(&request, &RunId::new("r1"), active);
        let wanted = json!({
            "subagent_id": "s", "run_id": "r1", "cancelled_active_run": active, "reason": "why",
            "cancel_result": "accepted", "cancel_state": "requested", "cancel_supported": true,
            "status": "running", "message": result["message"],
        });
        assert_eq!(result, wanted);
        let payload = json!({
            "reason": "why", "source": "gateway_cancel_job", "active_process": active,
            "cancel_state": "requested",
        });
        assert_eq!(event(&request, active), payload);
    }
}

#[test]
fn metadata_keeps_what_was_there() {
    let row = json!({"metadata": {"session_id": "x", "cancel_state": "none"}});
    let wanted = json!({
        "session_id": "x", "cancel_run_id": "r", "cancel_requested_at": "now",
        "cancel_reason": "why", "cancel_state": "requested", "cancel_support": "gateway",
        "cancellation_scope": "gateway",
    });
    assert_eq!(Value::Object(marked(&row, &RunId::new("r"), "why", "now")), wanted);
    assert_eq!(marked(&json!({"metadata": null}), &RunId::new("r"), "why", "now").len(), 6);
}
