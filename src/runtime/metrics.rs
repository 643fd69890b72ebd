//! What a scrape gets: the live status and the counts of jobs as Prometheus text (`OpenMetrics`).
//!
//! The registry is made anew for each scrape from facts that are kept anyway, so that nothing is
//! counted twice and nobody pays for metrics that nobody reads. Labels have few values, all of them
//! ours. `docs/METRICS.md` lists every metric; a test compares.

mod drive_sync;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process_facts::ProcessFacts;
use super::shared::Shared;
use super::status::{Contact, LiveStatus, Phase};
use crate::drive_sync::keeper::Monitor;
use crate::model::time;
use crate::observe::JobMetrics;

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PREFIX: &str = "panorama_gateway";
const REALTIME_STATES: [&str; 5] = ["off", "disconnected", "joining", "ready", "unavailable"];
const SESSION_STATES: [&str; 4] = ["unchecked", "valid", "retrying", "ended"];
const PHASES: [(&str, Phase); 4] = [
    ("starting", Phase::Starting),
    ("up", Phase::Up),
    ("draining", Phase::Draining),
    ("stopped", Phase::Stopped),
];

/// All metrics now.
pub(super) fn scrape(shared: &Shared) -> String {
    let process = ProcessFacts::read();
    let beats = shared.liveness.beats();
    render(&shared.live_status(), beats, &shared.job_metrics, &shared.drives, &process)
}

fn render(
    status: &LiveStatus,
    beats: u64,
    jobs: &JobMetrics,
    drives: &Monitor,
    process: &ProcessFacts,
) -> String {
    let mut registry = Registry::default();
    let own = registry.sub_registry_with_prefix(PREFIX);
    gateway(own, status, beats);
    jobs.register(own);
    work(own, status);
    backend(own, status);
    parts(own, status);
    if let Some(report) = drives.report() {
        drive_sync::register(own, &report, &drives.tally(), jiff::Timestamp::now());
    }
    of_process(&mut registry, status, process);
    let mut written = String::with_capacity(16 * 1024);
    // Writing to a string does not fail.
    let _ = text::encode(&mut written, &registry);
    written
}

fn gateway(registry: &mut Registry, status: &LiveStatus, beats: u64) {
    let build = Info::new(vec![("version", status.version.clone())]);
    registry.register("build", "The version that runs", build);
    let phases = PHASES.map(|(name, phase)| ([("phase", name)], u64::from(phase == status.phase)));
    registry.register("phase", "1 for how far the gateway is, 0 for the others", gauges(phases));
    gauge(registry, "ready", "1 while the gateway takes new jobs", u64::from(status.health.ready));
    registry.register_with_unit(
        "uptime",
        "Time since the start",
        Unit::Seconds,
        ConstGauge::new(seconds(status.uptime_ms)),
    );
    counter(registry, "pulse", "Grows by one each second as long as tasks get their turn", beats);
    gauge(
        registry,
        "host_control_enabled",
        "1 while machine control is allowed on this host",
        u64::from(status.full_control_enabled),
    );
}

fn work(registry: &mut Registry, status: &LiveStatus) {
    gauge(registry, "jobs_queued", "Jobs that wait here", status.queued_jobs);
    gauge(registry, "jobs_active", "Claimed jobs in hand", status.active_jobs.len());
    gauge(registry, "job_slots", "Most jobs in hand at a time", status.concurrency);
    gauge(
        registry,
        "journal_records",
        "Records of claims and results that the backend does not have yet",
        status.journal.records,
    );
    registry.register_with_unit(
        "journal",
        "Size of these records",
        Unit::Bytes,
        ConstGauge::new(status.journal.bytes),
    );
    gauge(
        registry,
        "journal_trouble",
        "1 while the journal takes nothing new, so that no job is claimed",
        u64::from(status.journal.trouble.is_some()),
    );
}

fn backend(registry: &mut Registry, status: &LiveStatus) {
    counter(
        registry,
        "backend_requests",
        "Requests sent to the backend, repetitions included",
        status.requests_sent,
    );
    for (name, what, contact) in
        [("heartbeat", "heartbeat", &status.heartbeat), ("poll", "poll for jobs", &status.poll)]
    {
        exchange(registry, name, what, contact);
    }
    registry.register(
        "realtime_state",
        "1 for how the channel for new jobs is, 0 for the others",
        states(REALTIME_STATES, &status.realtime.state),
    );
    counter(
        registry,
        "realtime_reconnects",
        "How often the channel for new jobs was connected anew",
        status.realtime.reconnects,
    );
    counter(
        registry,
        "realtime_missed_jobs",
        "Jobs that the channel should have told of, but a poll found",
        status.realtime.missed_jobs,
    );
    registry.register(
        "session_state",
        "1 for how the session is, 0 for the others",
        states(SESSION_STATES, &status.session),
    );
    counter(
        registry,
        "session_refreshes",
        "Refreshes of the session that ended, well or not",
        status.session_refreshes,
    );
}

/// Counts and age of one kind of exchange with the backend.
fn exchange(registry: &mut Registry, name: &str, what: &str, contact: &Contact) {
    let counts = [("ok", contact.succeeded), ("failed", contact.failed)]
        .map(|(result, count)| ([("result", result)], count));
    registry.register(format!("{name}s"), format!("Each {what}, by how it went"), counters(counts));
    if let Some(age) = contact.last_ok_age_ms {
        registry.register_with_unit(
            format!("{name}_age"),
            format!("Time since the last good {what}; absent before the first"),
            Unit::Seconds,
            ConstGauge::new(seconds(age)),
        );
    }
}

fn parts(registry: &mut Registry, status: &LiveStatus) {
    let of = |label: &'static str, name: &str| [(label, name.to_owned())];
    let available =
        status.providers.iter().map(|one| (of("provider", &one.id), u64::from(one.available)));
    registry.register(
        "provider_available",
        "1 while jobs may ask for this agent CLI",
        gauges(available),
    );
    let supervisors = &status.supervisors;
    let running =
        supervisors.iter().map(|s| (of("supervisor", &s.name), u64::from(s.state == "running")));
    registry.register("supervisor_running", "1 while this part runs", gauges(running));
    let restarts = supervisors.iter().map(|s| (of("supervisor", &s.name), u64::from(s.restarts)));
    registry.register(
        "supervisor_restarts",
        "How often this part panicked or returned and was started again",
        counters(restarts),
    );
    counter(
        registry,
        "log_dropped_lines",
        "Log lines that came faster than they could be written",
        status.log.dropped_lines,
    );
    counter(
        registry,
        "log_failed_writes",
        "Log lines that the file system refused",
        status.log.failed_writes,
    );
    counter(
        registry,
        "log_lost_lines",
        "Log lines that are in no file because it could not be written",
        status.log.lost_lines,
    );
    counter(
        registry,
        "audit_lost_lines",
        "Lines of the audit log that could not be written",
        status.audit.lost_lines,
    );
    gauge(
        registry,
        "audit_trouble",
        "1 while the audit log cannot be written",
        u64::from(status.audit.trouble.is_some()),
    );
}

/// Under the names that every exporter gives them.
fn of_process(registry: &mut Registry, status: &LiveStatus, process: &ProcessFacts) {
    if let Some(bytes) = process.resident_bytes {
        registry.register_with_unit(
            "process_resident_memory",
            "Resident memory",
            Unit::Bytes,
            ConstGauge::new(bytes),
        );
    }
    if let Some(open) = process.open_descriptors {
        gauge(registry, "process_open_fds", "Open file descriptors", open);
    }
    if let Some(most) = process.most_descriptors {
        gauge(registry, "process_max_fds", "Most file descriptors that may be open", most);
    }
    if let Some(cpu) = process.cpu {
        registry.register_with_unit(
            "process_cpu",
            "CPU time used, of user and system, children aside",
            Unit::Seconds,
            ConstCounter::new(cpu.as_secs_f64()),
        );
    }
    if let Some(at) = time::parse(&status.started_at) {
        registry.register_with_unit(
            "process_start_time",
            "When the gateway was started, since the Unix epoch",
            Unit::Seconds,
            ConstGauge::new(at.as_duration().as_secs_f64()),
        );
    }
}

fn gauge<N>(registry: &mut Registry, name: &str, help: &str, value: N)
where
    N: EncodeGaugeValue + std::fmt::Debug + Send + Sync + 'static,
{
    registry.register(name, help, ConstGauge::new(value));
}

fn counter<N>(registry: &mut Registry, name: &str, help: &str, value: N)
where
    N: EncodeCounterValue + std::fmt::Debug + Send + Sync + 'static,
{
    registry.register(name, help, ConstCounter::new(value));
}

/// 1 for the state that it is in.
fn states<const N: usize>(
    known: [&'static str; N],
    now: &str,
) -> Gauges<[(&'static str, &'static str); 1]> {
    gauges(known.map(|state| ([("state", state)], u64::from(state == now))))
}

type Gauges<L> = Family<L, Gauge<u64, AtomicU64>>;

trait Labels: EncodeLabelSet + Clone + Eq + std::hash::Hash {}

impl<L: EncodeLabelSet + Clone + Eq + std::hash::Hash> Labels for L {}

fn gauges<L: Labels>(values: impl IntoIterator<Item = (L, u64)>) -> Gauges<L> {
    let family = Gauges::<L>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(value);
    }
    family
}

fn counters<L: Labels>(values: impl IntoIterator<Item = (L, u64)>) -> Family<L, Counter> {
    let family = Family::<L, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    family
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}

#[cfg(test)]
mod tests;
