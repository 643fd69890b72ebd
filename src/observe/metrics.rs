//! What jobs did, counted where it happens and read when somebody scrapes.
//!
//! Labels have few values: whatever a backend sends as a job type, there is one series for all that
//! this version does not know.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::model::JobStatus;

/// The job types that have a series of their own.
const KNOWN_TYPES: [&str; 6] =
    ["diagnostic", "model_run", "shell_exec", "shell_session", "subagent_cancel", "subagent_run"];
/// Every other type.
const OTHER: &str = "other";
/// How a job ends.
const ENDS: [JobStatus; 3] = [JobStatus::Completed, JobStatus::Failed, JobStatus::Cancelled];
/// Upper bounds in seconds: from a shell command that does nothing to an agent that works for hours.
const DURATIONS: [f64; 13] =
    [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0];

type Label = (&'static str, &'static str);

/// Counts of one process. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct JobMetrics {
    claimed: Family<[Label; 1], Counter>,
    ended: Family<[Label; 2], Counter>,
    durations: Family<[Label; 1], Histogram>,
}

impl Default for JobMetrics {
    /// All counters at zero, so that the first job already shows as an increase.
    fn default() -> Self {
        let metrics = Self {
            claimed: Family::default(),
            ended: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
        };
        for job_type in KNOWN_TYPES.into_iter().chain([OTHER]) {
            drop(metrics.claimed.get_or_create(&[("type", job_type)]));
            for status in ENDS {
                drop(metrics.ended.get_or_create(&ended(job_type, status)));
            }
        }
        metrics
    }
}

impl JobMetrics {
    /// A job is ours now.
    pub fn claimed(&self, job_type: &str) {
        self.claimed.get_or_create(&[("type", known(job_type))]).inc();
    }

    /// A claimed job's handler is done; `took` is the time since the claim.
    pub fn ended(&self, job_type: &str, status: JobStatus, took: Duration) {
        let job_type = known(job_type);
        self.ended.get_or_create(&ended(job_type, status)).inc();
        self.durations.get_or_create(&[("type", job_type)]).observe(took.as_secs_f64());
    }

    /// Puts them into a registry that is about to be written.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("jobs_claimed", "Jobs claimed since the start", self.claimed.clone());
        registry.register(
            "jobs_ended",
            "Claimed jobs that ended since the start, by the status they ended with",
            self.ended.clone(),
        );
        registry.register_with_unit(
            "job_duration",
            "Time from the claim of a job to the end of its work; reporting it is not included",
            Unit::Seconds,
            self.durations.clone(),
        );
    }
}

fn ended(job_type: &'static str, status: JobStatus) -> [Label; 2] {
    [("type", job_type), ("status", status.as_str())]
}

fn known(job_type: &str) -> &'static str {
    KNOWN_TYPES.into_iter().find(|known| *known == job_type).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &JobMetrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn whatever_types_come_the_series_stay_few() {
        let metrics = JobMetrics::default();
        for number in 0..1_000 {
            let job_type = format!("made-up-{number}\n\"");
            metrics.claimed(&job_type);
            metrics.ended(&job_type, JobStatus::Failed, Duration::from_secs(number));
        }
        let text = text(&metrics);
        assert!(text.contains("jobs_claimed_total{type=\"other\"} 1000\n"), "{text}");
        assert!(!text.contains("made-up"), "{text}");
        let series = text.lines().filter(|line| line.starts_with("jobs_")).count();
        assert_eq!(series, 7 + 7 * 3);
    }

    #[test]
    fn an_end_is_counted_by_type_and_status_and_timed() {
        let metrics = JobMetrics::default();
        metrics.clone().ended("shell_exec", JobStatus::Completed, Duration::from_millis(60));
        let text = text(&metrics);
        for line in [
            "jobs_ended_total{type=\"shell_exec\",status=\"completed\"} 1",
            "jobs_ended_total{type=\"shell_exec\",status=\"failed\"} 0",
            "job_duration_seconds_bucket{le=\"0.05\",type=\"shell_exec\"} 0",
            "job_duration_seconds_bucket{le=\"0.1\",type=\"shell_exec\"} 1",
            "job_duration_seconds_count{type=\"shell_exec\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
