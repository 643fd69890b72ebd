//! Which jobs realtime told of, and which it should have told of but did not. Pure; time is passed
//! in.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::Instant;

use super::shared::POLL_INTERVAL;
use crate::model::{JobId, time};

/// Clocks of a backend's parts differ, and its `Date` has whole seconds.
const SLACK: SignedDuration = SignedDuration::from_secs(2);
/// A poll may be faster than the event.
const GRACE: Duration = POLL_INTERVAL;
/// Most ids that are remembered.
const REMEMBERED: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// The server's time since which every new job is to be told.
    since: Option<Timestamp>,
    told: VecDeque<JobId>,
    /// Found by a poll then, and not told yet.
    awaited: Vec<(JobId, Instant)>,
    missed: u64,
}

impl Deliveries {
    /// From now (the server's time) on every new job is to be told.
    pub(super) fn begin(&mut self, server_time: Timestamp) {
        self.end();
        self.since = Some(server_time);
    }

    /// Something was told that could not be read: only what comes after it counts.
    pub(super) fn excuse(&mut self, server_time: Timestamp) {
        if self.since.is_some() {
            self.begin(server_time);
        }
    }

    /// Nothing is to be expected any more.
    pub(super) fn end(&mut self) {
        self.since = None;
        self.awaited.clear();
    }

    /// This job was told.
    pub(super) fn told(&mut self, id: JobId) {
        self.awaited.retain(|(awaited, _)| *awaited != id);
        if self.told.len() >= REMEMBERED {
            self.told.pop_front();
        }
        self.told.push_back(id);
    }

    /// A poll found these rows.
    pub(super) fn polled(&mut self, rows: &[Value], now: Instant) {
        let Some(since) = self.since.and_then(|since| since.checked_add(SLACK).ok()) else {
            return;
        };
        for row in rows {
            let text = |name: &str| row.get(name).and_then(Value::as_str);
            let (Some(id), Some(created)) =
                (text("id").map(JobId::new), text("created_at").and_then(time::parse))
            else {
                continue;
            };
            let known =
                self.told.contains(&id) || self.awaited.iter().any(|(other, _)| *other == id);
            // A row that was put back to `queued` is older, and never told again.
            if created > since && !known && self.awaited.len() < REMEMBERED {
                self.awaited.push((id, now));
            }
        }
    }

    /// The jobs that should have been told by now; each is given once.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<JobId> {
        let missed = self
            .awaited
            .extract_if(.., |(_, found)| now.saturating_duration_since(*found) >= GRACE)
            .map(|(id, _)| id)
            .collect::<Vec<_>>();
        self.missed += missed.len() as u64;
        // Not to be counted again by the next poll.
        missed.iter().cloned().for_each(|id| self.told(id));
        missed
    }

    /// How many were missed so far.
    pub(super) fn missed(&self) -> u64 {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn row(id: &str, second: i64) -> Value {
        json!({"id": id, "created_at": at(second).to_string()})
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_job_that_only_polls_find_was_missed() {
        let start = Instant::now();
        let mut deliveries = Deliveries::default();
        deliveries.begin(at(0));
        deliveries.polled(&[row("new", 10), row("late", 10)], start);
        deliveries.told(JobId::new("late"));
        assert_eq!(deliveries.settle(start + GRACE / 2), []);
        // It stays in the queue: found again, counted once.
        deliveries.polled(&[row("new", 10)], start + GRACE);
        assert_eq!(deliveries.settle(start + GRACE), [JobId::new("new")]);
        deliveries.polled(&[row("new", 10)], start + GRACE * 2);
        assert_eq!(deliveries.settle(start + GRACE * 4), []);
        assert_eq!(deliveries.missed(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_or_is_older_or_came_without_readiness_was_not_missed() {
        let start = Instant::now();
        let mut deliveries = Deliveries::default();
        deliveries.polled(&[row("before", 10)], start);
        deliveries.begin(at(20));
        deliveries.told(JobId::new("told"));
        let rows = [row("old", 1), row("close", 21), row("told", 30), json!({"id": 1}), json!(2)];
        deliveries.polled(&rows, start);
        deliveries.polled(&[row("unsettled", 30)], start);
        deliveries.excuse(at(40));
        deliveries.polled(&[row("excused", 41)], start);
        deliveries.end();
        deliveries.excuse(at(50));
        deliveries.polled(&[row("not ready", 60)], start);
        assert_eq!(deliveries.settle(start + GRACE * 2), []);
        assert_eq!(deliveries.missed(), 0);
    }
}
