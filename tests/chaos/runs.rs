//! What must hold of subagents after all faults are over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::agents::{Rows, Run};
use super::lane::{Lane, Submitted};
use super::plan::{Called, Does, Kind};
use super::verdict::died_over;

/// Why a run is refused before it starts: whether agents can run is not known yet again, or one that
/// failed made that doubtful.
const NOT_READY: &str = "has not reported that an agent can run";

type Kills = [(Timestamp, Timestamp)];

pub(crate) fn judge(lane: &Lane<'_>) {
    let counts = lane.marks.counts();
    let kills = lane.kills.lock().unwrap();
    for job in lane.jobs.lock().unwrap().iter() {
        let (Some(run), Some(row)) = (&job.run, &job.row) else { continue };
        let ran = counts.get(&run.name).copied().unwrap_or(0);
        if job.planned.kind == Kind::Cancels {
            match of_cancel(row, &kills) {
                Ok(result) => lane.saw(&format!("cancels of runs: {result}"), 1),
                Err(reason) => lane.violation(&format!("{:?}: {reason}: {row}", job.planned)),
            }
            continue;
        }
        let rows = run.rows(lane.control);
        let verdict = of_run(job, run, row, &rows, ran, &kills);
        match verdict.and_then(|outcome| of_events(run, &rows).map(|()| outcome)) {
            Ok(outcome) => lane.outcome(outcome),
            Err(reason) => {
                let text: String = format!("{row} {rows}").chars().take(6_000).collect();
                lane.outcome("VIOLATION");
                lane.violation(&format!("{:?}: {reason}; ran {ran}: {text}", job.planned));
            }
        }
    }
    judge_what_is_left(lane);
}

/// Neither events that wait nor records of jobs.
fn judge_what_is_left(lane: &Lane<'_>) {
    let jobs = lane.machine.dir().join("jobs");
    for dir in [jobs.join("events"), jobs] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_file() {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let text: String = text.chars().take(1_000).collect();
                lane.violation(&format!("{} is left: {text}", entry.path().display()));
            }
        }
    }
}

fn is_restarted(row: &Value) -> bool {
    row["status"] == "failed" && row["result"]["error_code"] == "gateway_restarted"
}

fn of_cancel(row: &Value, kills: &Kills) -> Result<String, String> {
    if is_restarted(row) {
        let died = died_over(row, kills)?.then(|| "gateway_restarted".to_owned());
        return died.ok_or_else(|| "no gateway died over it".to_owned());
    }
    let result = row["result"]["cancel_result"].as_str().unwrap_or_default();
    let known = ["accepted", "already_terminal", "no_active_run"].contains(&result);
    match row["status"].as_str() {
        Some("completed") if known => Ok(result.to_owned()),
        // It has half a minute for a backend that is away.
        Some("failed") => Ok(format!("failed: {}", row["error"])),
        _ => Err("it ended in no way that a fault explains".to_owned()),
    }
}

/// How a run ended, or what is wrong with that.
fn of_run(
    job: &Submitted,
    run: &Run,
    row: &Value,
    rows: &Rows,
    ran: usize,
    kills: &Kills,
) -> Result<&'static str, String> {
    let Kind::Agent(_, called) = job.planned.kind else { return Err("it is no run".to_owned()) };
    let status = consistent(rows)?;
    if ran > 1 {
        return Err("run more than once".to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by_row = row["status"] == "cancelled" && called == Called::ByRow;
    if is_restarted(row) {
        if status != "failed" || rows.run["metadata"]["gateway_error"].is_null() {
            return Err("gateway_restarted, but its run ended otherwise".to_owned());
        }
        return match (died_over(row, kills)?, ran) {
            (false, _) => Err("no gateway died over it".to_owned()),
            (true, 0) => Ok("run: gateway_restarted before it ran"),
            (true, _) => Ok("run: gateway_restarted, ran once"),
        };
    }
    // A row that was cancelled says nothing of the run.
    if !by_row && row["result"]["subagent_id"] != run.subagent.as_str() {
        return Err("the result names another subagent".to_owned());
    }
    match (text(&row["status"]).as_str(), status) {
        ("completed", "completed") if ran == 1 => {
            of_completed(run, row, rows)?;
            Ok("run: completed, ran once")
        }
        ("completed", "cancelled") if called != Called::Never => {
            let is = row["result"]["status"] == "cancelled"
                && row["result"]["output"] == rows.run["output"];
            if !is {
                return Err("the result does not say that it was cancelled".to_owned());
            }
            Ok(if ran == 0 { "run: cancelled before it ran" } else { "run: cancelled, ran once" })
        }
        ("cancelled", "cancelled") if by_row => Ok("run: cancelled by its job's row"),
        // Its gateway died after the row was cancelled.
        ("cancelled", "failed") if by_row => Ok("run: cancelled by its job's row, failed"),
        ("failed", "failed") if ran == 0 && text(&row["error"]).contains(NOT_READY) => {
            Ok("run: failed, the CLI was not ready")
        }
        ("failed", "failed") if ran == 1 && fails(run.does) => Ok("run: failed by itself"),
        _ => Err("it ended in no way that a fault explains".to_owned()),
    }
}

fn fails(does: Does) -> bool {
    matches!(does, Does::SaysError | Does::Fails(_))
}

/// Run and subagent have ended alike; how.
fn consistent(rows: &Rows) -> Result<&str, String> {
    let status = rows.run["status"].as_str().unwrap_or_default();
    if !["completed", "failed", "cancelled"].contains(&status) {
        return Err("the run has not ended".to_owned());
    }
    for name in ["status", "output", "error"] {
        if rows.run[name] != rows.subagent[name] {
            return Err(format!("run and subagent do not agree on {name}"));
        }
    }
    for row in [&rows.run, &rows.subagent] {
        if !row["output"]["content"].is_string() || !row["completed_at"].is_number() {
            return Err("it has no output or no end".to_owned());
        }
        if row["error"].is_null() != (status == "completed") {
            return Err("its error is not what its status says".to_owned());
        }
        if row["metadata"]["runner"] != "gateway" && row["metadata"]["cancelled"] != true {
            return Err("its metadata does not name the gateway".to_owned());
        }
    }
    if rows.subagent["metadata"]["theirs"] != "kept" {
        return Err("metadata of others is lost".to_owned());
    }
    Ok(status)
}

/// Output and metadata are what the CLI told.
fn of_completed(run: &Run, row: &Value, rows: &Rows) -> Result<(), String> {
    let output = json!({"schema_version": 1, "content": run.answer(), "content_type": "markdown"});
    if rows.run["output"] != output || row["result"]["output"] != output {
        return Err("the output is not what the CLI wrote".to_owned());
    }
    let told = json!({
        "session_id": run.name, "total_cost_usd": 0.25, "usage": {"output_tokens": 7},
        "model_usage": {"claude-x": {"outputTokens": 7}}, "exit_code": 0, "cancelled": false,
        "run_id": run.id, "cancel_run_id": null,
    });
    for (name, value) in told.as_object().unwrap() {
        for row in [&rows.run, &rows.subagent] {
            if row["metadata"].get(name) != Some(value) {
                return Err(format!("{name} is not what the CLI wrote"));
            }
        }
    }
    let said = said(rows).count();
    if said != run.says().len() {
        return Err(format!("{said} of what it said is there, not {}", run.says().len()));
    }
    Ok(())
}

/// What the CLI said, as kind and content.
fn said(rows: &Rows) -> impl Iterator<Item = (&str, &str)> {
    rows.events.iter().filter_map(|(_, event_type, payload)| {
        let content = match event_type.as_str() {
            "message" | "tool_result" => &payload["content"],
            "tool_call" => &payload["summary"],
            _ => return None,
        };
        Some((event_type.as_str(), content.as_str().unwrap_or_default()))
    })
}

/// The events have no gap, and none is missing, doubled or in the wrong place.
fn of_events(run: &Run, rows: &Rows) -> Result<(), String> {
    let events = &rows.events;
    if !events.iter().zip(0..).all(|((sequence, ..), index)| *sequence == index) {
        return Err("the events have a gap".to_owned());
    }
    let status = rows.run["status"].as_str().unwrap_or_default();
    let last = events.last().map(|(_, event_type, _)| event_type.as_str());
    if last != Some(&format!("run_{status}")) {
        return Err(format!("the last event of a run that is {status} is {last:?}"));
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, event_type, _) in events {
        *counts.entry(event_type).or_default() += 1;
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    if count("run_completed") + count("run_failed") + count("run_cancelled") != 1 {
        return Err("the run has more than one end".to_owned());
    }
    for once in ["run_started", "run_progress", "cancellation_acknowledged"] {
        if count(once) > 1 {
            return Err(format!("more than one {once}"));
        }
    }
    let began = events.first().is_some_and(|(_, event_type, _)| event_type == "run_started");
    if count("run_started") == 1 && !began && count("cancellation_requested") == 0 {
        return Err("something came before run_started".to_owned());
    }
    if status == "completed" && (count("run_started"), count("run_progress")) != (1, 1) {
        return Err("a completed run does not say that it started".to_owned());
    }
    // In order and each once: what is there is where what the CLI says begins.
    let says = run.says();
    for (index, (kind, content)) in said(rows).enumerate() {
        if says.get(index).is_none_or(|says| (says.0, says.1.as_str()) != (kind, content)) {
            return Err(format!("{kind} {index} is not what the CLI said: {content}"));
        }
    }
    Ok(())
}
