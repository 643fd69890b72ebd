use std::collections::BTreeSet;

use super::*;
use crate::model::JobStatus;
use crate::runtime::status::{AuditState, ProviderState, SupervisorState};

const DOCUMENT: &str = include_str!("../../../docs/METRICS.md");

/// A status with a sample of everything.
fn full() -> LiveStatus {
    let (shared, _dir) = Shared::for_tests();
    let mut status = shared.live_status();
    (status.started_at, status.uptime_ms) = ("2026-01-01T00:00:00.000Z".to_owned(), 61_500);
    status.heartbeat =
        Contact { last_ok_age_ms: Some(1_500), succeeded: 7, failed: 2, ..Contact::default() };
    status.poll = Contact { last_ok_age_ms: Some(250), succeeded: 40, ..Contact::default() };
    status.providers =
        vec![ProviderState { id: "codex".to_owned(), available: true, version: None, error: None }];
    status.supervisors = vec![SupervisorState {
        name: "heartbeat".to_owned(),
        state: "waiting".to_owned(),
        restarts: 3,
    }];
    status.audit = AuditState { lost_lines: 4, trouble: Some("the disk was full".to_owned()) };
    status.log.lost_lines = 5;
    status
}

fn text() -> String {
    let jobs = JobMetrics::default();
    jobs.claimed("shell_exec");
    jobs.ended("shell_exec", JobStatus::Completed, std::time::Duration::from_millis(20));
    let process = ProcessFacts {
        resident_bytes: Some(12_000_000),
        open_descriptors: Some(30),
        most_descriptors: Some(1024),
        cpu: Some(std::time::Duration::from_millis(1250)),
    };
    render(&full(), 61, &jobs, &process)
}

/// The rows of a table of what is registered, as the document has them.
fn rows(text: &str) -> BTreeSet<String> {
    let words = |line: &str, kind: &str| {
        let (name, rest) = line.strip_prefix(kind)?.split_once(' ')?;
        Some((name.to_owned(), rest.to_owned()))
    };
    let helps = text.lines().filter_map(|line| words(line, "# HELP ")).collect::<Vec<_>>();
    let types = text.lines().filter_map(|line| words(line, "# TYPE ")).collect::<Vec<_>>();
    assert_eq!(helps.len(), types.len());
    let row = |(name, help): &(String, String), metric_type: &str| {
        let suffix = match metric_type {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let mut labels = BTreeSet::new();
        for line in text.lines().filter(|line| line.starts_with(name.as_str())) {
            let Some((_, inside)) = line.split_once('{') else { continue };
            let inside = inside.rsplit_once('}').unwrap().0;
            labels.extend(inside.split(',').map(|label| label.split_once('=').unwrap().0));
        }
        labels.remove("le");
        let labels: Vec<_> = labels.into_iter().map(|label| format!("`{label}`")).collect();
        let help = help.trim_end_matches('.');
        format!("| `{name}{suffix}` | {metric_type} | {} | {help} |", labels.join(", "))
    };
    helps.iter().zip(&types).map(|(help, (_, metric_type))| row(help, metric_type)).collect()
}

#[test]
fn the_document_lists_what_is_registered() {
    let registered = rows(&text());
    let documented: BTreeSet<_> =
        DOCUMENT.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    let table = registered.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(registered == documented, "docs/METRICS.md has to have these rows:\n{table}");
}

#[test]
fn names_follow_the_conventions() {
    for row in rows(&text()) {
        let name = row.split('`').nth(1).unwrap();
        assert!(name.starts_with("panorama_gateway_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{name}");
        assert!(!name.ends_with("_ms") && !name.ends_with("_seconds_bytes"), "{name}");
    }
}

#[test]
fn values_are_those_of_the_status() {
    let text = text();
    for line in [
        "panorama_gateway_phase{phase=\"starting\"} 1",
        "panorama_gateway_phase{phase=\"up\"} 0",
        "panorama_gateway_ready 0",
        "panorama_gateway_uptime_seconds 61.5",
        "panorama_gateway_pulse_total 61",
        "panorama_gateway_heartbeats_total{result=\"failed\"} 2",
        "panorama_gateway_heartbeat_age_seconds 1.5",
        "panorama_gateway_realtime_state{state=\"off\"} 1",
        "panorama_gateway_session_state{state=\"valid\"} 0",
        "panorama_gateway_provider_available{provider=\"codex\"} 1",
        "panorama_gateway_supervisor_running{supervisor=\"heartbeat\"} 0",
        "panorama_gateway_supervisor_restarts_total{supervisor=\"heartbeat\"} 3",
        "panorama_gateway_jobs_claimed_total{type=\"shell_exec\"} 1",
        "panorama_gateway_log_lost_lines_total 5",
        "panorama_gateway_audit_lost_lines_total 4",
        "panorama_gateway_audit_trouble 1",
        "process_resident_memory_bytes 12000000",
        "process_cpu_seconds_total 1.25",
        "process_start_time_seconds 1767225600.0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_scrape_of_a_fresh_gateway_leaves_out_what_is_not_known() {
    let (shared, _dir) = Shared::for_tests();
    let text = scrape(&shared);
    assert!(!text.contains("heartbeat_age"), "{text}");
    assert!(text.ends_with("# EOF\n") && text.contains("jobs_ended_total"), "{text}");
}
