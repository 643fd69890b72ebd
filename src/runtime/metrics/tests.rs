use std::collections::BTreeSet;

use super::*;
use crate::drive_sync::engine::Deed;
use crate::drive_sync::keeper::report::{Counts, DriveReport, DriveState, Report};
use crate::drive_sync::keeper::tally::Tally;
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

/// Drives with something of everything.
fn drives() -> Monitor {
    let monitor = Monitor::default();
    let tally = |tally: &mut Tally| {
        tally.done[Deed::Fetch.index()] = 5;
        tally.refused[Deed::Send.index()] = 2;
        tally.stale[Deed::Delete.index()] = 1;
        (tally.fetched_bytes, tally.sent_bytes) = (5000, 70);
        (tally.rescued, tally.conflicts, tally.watch_overflows) = (1, 2, 3);
        tally.ticks[1] = 4;
        tally.retries = [3, 4, 0];
        tally.full_looks = 9;
    };
    let drive = DriveReport {
        drive_id: "0a1b-2c".into(),
        name: "Secret plans".into(),
        path: "/drives/secret-plans".into(),
        state: DriveState::Waiting,
        cursor: 7,
        head: 10,
        pending: Counts { uploads: 2, upload_bytes: 90, ..Counts::default() },
        held_deletions: 12,
        watched: true,
        audited_at: Some("2026-01-01T00:00:00Z".into()),
        conflicts: vec!["Secret plans/copy".into()],
        ..DriveReport::default()
    };
    monitor.set_for_tests(Report { drives: vec![drive], ..Report::default() }, tally);
    monitor
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
    render(&full(), 61, &jobs, &drives(), &process)
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
fn drives_are_told_by_their_ids_and_nothing_else_of_theirs() {
    let text = text();
    for line in [
        "drive_sync_operations_total{kind=\"fetch\",result=\"ok\"} 5",
        "drive_sync_operations_total{kind=\"send\",result=\"refused\"} 2",
        "drive_sync_operations_total{kind=\"delete\",result=\"stale\"} 1",
        "drive_sync_operations_total{kind=\"make_folder\",result=\"ok\"} 0",
        "drive_sync_transferred_bytes_total{direction=\"fetch\"} 5000",
        "drive_sync_transferred_bytes_total{direction=\"send\"} 70",
        "drive_sync_ticks_total{result=\"unavailable\"} 4",
        "drive_sync_rescued_writes_total 1",
        "drive_sync_conflict_copies_total 2",
        "drive_sync_watch_overflows_total 3",
        "drive_sync_retries_total{what=\"drive\"} 4",
        "drive_sync_full_looks_total 9",
        "drive_sync_trouble 0",
        "drive_sync_state{drive=\"0a1b-2c\",state=\"waiting\"} 1",
        "drive_sync_state{drive=\"0a1b-2c\",state=\"up_to_date\"} 0",
        "drive_sync_pending_files{drive=\"0a1b-2c\",direction=\"send\"} 2",
        "drive_sync_pending_bytes{drive=\"0a1b-2c\",direction=\"send\"} 90",
        "drive_sync_pending_bytes{drive=\"0a1b-2c\",direction=\"fetch\"} 0",
        "drive_sync_lag_changes{drive=\"0a1b-2c\"} 3",
        "drive_sync_held_deletions{drive=\"0a1b-2c\"} 12",
        "drive_sync_watched{drive=\"0a1b-2c\"} 1",
    ] {
        let line = format!("panorama_gateway_{line}");
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("panorama_gateway_drive_sync_full_look_age_seconds{drive="), "{text}");
    assert!(!text.to_ascii_lowercase().contains("secret"), "{text}");
}

#[test]
fn however_many_drives_there_are_the_series_stay_few() {
    let monitor = Monitor::default();
    let drive = |number: usize| DriveReport {
        drive_id: if number == 0 { "no id\n\"".into() } else { format!("d{number}") },
        held_deletions: 1,
        ..DriveReport::default()
    };
    let report = Report { drives: (0..1000).map(drive).collect(), ..Report::default() };
    monitor.set_for_tests(report, |_| {});
    let jobs = JobMetrics::default();
    let text = render(&full(), 61, &jobs, &monitor, &ProcessFacts::default());
    let series = "panorama_gateway_drive_sync_held_deletions{";
    assert_eq!(text.lines().filter(|line| line.starts_with(series)).count(), 17);
    let rest = format!("{series}drive=\"other\"}} 984");
    assert!(text.lines().any(|line| line == rest), "{text}");
    assert!(!text.contains("no id"), "{text}");
}

#[test]
fn a_scrape_of_a_fresh_gateway_leaves_out_what_is_not_known() {
    let (shared, _dir) = Shared::for_tests();
    let text = scrape(&shared);
    assert!(!text.contains("heartbeat_age") && !text.contains("drive_sync"), "{text}");
    assert!(text.ends_with("# EOF\n") && text.contains("jobs_ended_total"), "{text}");
}
