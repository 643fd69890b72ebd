use super::*;
use crate::jobs::Target;
use crate::runtime::health::Health;
use crate::runtime::status::{FailedUpgrade, ProviderState};

fn stopped() -> Report {
    Report {
        running: false,
        version: "1.2.3".into(),
        pid: None,
        stale_pid: Some(77),
        started_at: None,
        uptime_ms: None,
        paired: true,
        device_name: "box".into(),
        gateway_id: Some("g".into()),
        team_id: Some("t".into()),
        supabase_url: Some("https://x.example".into()),
        full_control_enabled: false,
        vm: None,
        paths: ReportPaths {
            config_dir: "/c".into(),
            config_file: "/c/gateway.json".into(),
            log_file: "/c/gateway.log".into(),
            pid_file: "/c/gateway.pid".into(),
            socket: "/c/gateway.sock".into(),
        },
        gateway: None,
    }
}

fn live() -> LiveStatus {
    LiveStatus {
        guest: None,
        drive_sync: None,
        pid: 42,
        version: "1.2.3".into(),
        started_at: "2026-01-01T00:00:00.000Z".into(),
        uptime_ms: 3_720_000,
        phase: Phase::Up,
        detail: None,
        reported_status: Some("ready".into()),
        health: Health {
            ok: true,
            ready: false,
            reasons: vec![Reason {
                code: "backend_away".into(),
                message: "the backend has not answered a poll for 21 s".into(),
            }],
        },
        heartbeat: Contact {
            last_ok_at: Some("2026-01-01T01:01:58.000Z".into()),
            last_ok_age_ms: Some(2_000),
            succeeded: 120,
            failed: 3,
            error: None,
        },
        poll: Contact {
            error: Some("could not reach the backend".into()),
            failed: 9,
            ..Contact::default()
        },
        ingress: "polling".into(),
        realtime: RealtimeState {
            state: "joining".into(),
            since: Some("2026-01-01T01:01:00.000Z".into()),
            reconnects: 1,
            missed_jobs: 2,
            error: Some("a heartbeat was not answered".into()),
        },
        session: "valid".into(),
        session_refreshes: 4,
        requests_sent: 900,
        full_control_enabled: true,
        concurrency: 10,
        queued_jobs: 2,
        active_jobs: vec![
            ActiveJob {
                id: "j1".into(),
                job_type: "shell_exec".into(),
                started_at: "2026-01-01T01:01:00.000Z".into(),
                phase: JobPhase::Reporting,
                target: Target::default(),
            },
            ActiveJob {
                id: "j2".into(),
                job_type: "subagent_run".into(),
                started_at: "2026-01-01T00:02:00.000Z".into(),
                phase: JobPhase::Running,
                target: Target { subagent_id: Some("s1".into()), run_id: Some("r1".into()) },
            },
        ],
        finished_jobs: 5,
        journal: JournalState { records: 1, bytes: 400, trouble: Some("full".into()) },
        providers: vec![ProviderState {
            id: "codex".into(),
            available: false,
            version: None,
            error: Some("not found".into()),
        }],
        supervisors: vec![SupervisorState {
            name: "heartbeat".into(),
            state: "waiting".into(),
            restarts: 2,
        }],
        log: LogState {
            dropped_lines: 17,
            failed_writes: 1,
            lost_lines: 1,
            trouble: Some("the file could not be used".into()),
        },
        audit: AuditState { lost_lines: 3, trouble: Some("the disk was full".into()) },
        config_trouble: Some("/c/gateway.json is damaged".into()),
        metrics_listen: Some(ListenState {
            address: "127.0.0.1:9464".into(),
            listening: false,
            error: Some("Address already in use".into()),
        }),
        upgrade: UpgradeState {
            state: "watching".into(),
            last_failed: Some(FailedUpgrade {
                version: Some("1.2.4".into()),
                reason: "it ended with exit code 1".into(),
                at: "2026-01-01T01:00:00.000Z".into(),
            }),
            ..UpgradeState::default()
        },
    }
}

fn now() -> Timestamp {
    "2026-01-01T01:02:00Z".parse().unwrap()
}

#[test]
fn a_stopped_gateway() {
    insta::assert_snapshot!("stopped", render(&stopped(), false, now()));
    insta::assert_snapshot!("stopped_verbose", render(&stopped(), true, now()));
}

#[test]
fn a_running_gateway() {
    let report = Report {
        running: true,
        pid: Some(42),
        stale_pid: None,
        gateway: Some(Box::new(live())),
        ..stopped()
    };
    insta::assert_snapshot!("running", render(&report, false, now()));
    insta::assert_snapshot!("running_verbose", render(&report, true, now()));
    let value = serde_json::to_value(&report).unwrap();
    insta::assert_snapshot!("running_json", table::json(&value));
}

#[test]
fn a_gateway_of_another_version_is_understood() {
    let mut value = serde_json::to_value(live()).unwrap();
    let fields = value.as_object_mut().unwrap();
    // What was added since the first version, and what a later one may add.
    for added in [
        "health",
        "session_refreshes",
        "requests_sent",
        "log",
        "audit",
        "config_trouble",
        "metrics_listen",
    ] {
        fields.remove(added).unwrap();
    }
    for added in ["last_ok_age_ms", "succeeded", "failed"] {
        fields["poll"].as_object_mut().unwrap().remove(added).unwrap();
    }
    fields.insert("later".to_owned(), 1.into());
    let old: LiveStatus = serde_json::from_value(value).unwrap();
    assert_eq!((old.poll.failed, old.log), (0, LogState::default()));
    assert_eq!(old.audit, AuditState::default());
}

#[test]
fn one_that_hands_over() {
    let upgrade = UpgradeState {
        state: "draining".into(),
        version: Some("1.2.4".into()),
        ..UpgradeState::default()
    };
    let live = LiveStatus {
        phase: Phase::Draining,
        detail: Some("1 jobs in hand".into()),
        upgrade,
        ..live()
    };
    let gateway = Some(Box::new(live));
    let report = Report { running: true, pid: Some(42), gateway, ..stopped() };
    let shown = render(&report, false, now());
    assert!(shown.contains("finishing its work before an upgrade: 1 jobs in hand"), "{shown}");
    assert!(shown.contains("version 1.2.4 is ready and waits for the jobs in hand"), "{shown}");
}

#[test]
fn one_that_does_not_answer() {
    let report = Report { running: true, pid: Some(42), ..stopped() };
    assert!(render(&report, false, now()).contains("does not answer (pid 42)"));
}

#[test]
fn every_field_is_in_the_json() {
    let value = serde_json::to_value(stopped()).unwrap();
    insta::assert_snapshot!("json", table::json(&value));
}
