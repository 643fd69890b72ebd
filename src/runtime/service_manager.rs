//! Keeps the service manager told: ready, reloading, stopping, how it is, and that it lives.
//!
//! "Ready" for the manager is not "up": a gateway that waits for its backend is in order, and to
//! start it again would not help. So it says `READY=1` when it is up, and without that after
//! [`START_PATIENCE`], well within any limit on starts: a refused start is still seen as one, and a
//! boot is not held up. Its status line says what it waits for.
//!
//! A drain takes as long as its jobs, so the limit on stops is extended again and again. That, and
//! the watchdog, are fed from here alone, and only while the loops that matter answer (see
//! [`crate::task::Pulse`]). This task takes the same locks and runs on the same threads as they do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::notify::ServiceManager;
use super::shared::Shared;
use super::status::Phase;

/// How long `systemctl start` may wait for the backend.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How often the loops are asked when the manager has set no watchdog.
const DEFAULT_TICK: Duration = Duration::from_secs(10);
/// A burst of jobs is one change of the status line.
const STATUS_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// By how much longer than a tick a drain is granted: loops count as alive for a few ticks.
const DRAIN_TICKS: u32 = 6;

/// Runs until `stop`.
pub(super) async fn run(shared: Arc<Shared>, manager: ServiceManager, stop: CancellationToken) {
    if !manager.is_there() {
        stop.cancelled().await;
        return;
    }
    let mut teller = Teller::new(&shared, &manager);
    let (mut phase, mut stops) = (shared.phase.subscribe(), shared.stops.subscribe());
    let (mut activity, mut notes) = (shared.activity.subscribe(), shared.login.subscribe());
    let (mut reload, mut reloaded) = (shared.reload.subscribe(), shared.reloaded.subscribe());
    let start_patience = Instant::now() + START_PATIENCE;
    let mut ticks = interval(tick(&manager));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        teller.tell_phase();
        teller.tell_status();
        tokio::select! {
            // Cancel safe, each arm: watches and timers.
            () = stop.cancelled() => return,
            _ = phase.changed() => {}
            _ = stops.changed() => {}
            _ = activity.changed() => {}
            _ = notes.changed() => {}
            _ = reload.changed() => teller.begin_reload(),
            _ = reloaded.changed() => teller.end_reload(),
            _ = ticks.tick() => teller.feed(),
            () = sleep_until(start_patience), if !teller.ready => teller.say_ready(),
            () = sleep_until(teller.status_due), if teller.status_waits => {}
        }
    }
}

fn tick(manager: &ServiceManager) -> Duration {
    // Two in the time in which the manager wants to hear one.
    manager.watchdog_interval().map_or(DEFAULT_TICK, |interval| interval / 2)
}

/// What was told already.
struct Teller<'a> {
    shared: &'a Shared,
    manager: &'a ServiceManager,
    ready: bool,
    stopping: bool,
    reloading: bool,
    hung: bool,
    status: String,
    status_due: Instant,
    status_waits: bool,
}

impl<'a> Teller<'a> {
    fn new(shared: &'a Shared, manager: &'a ServiceManager) -> Self {
        Self {
            shared,
            manager,
            ready: false,
            stopping: false,
            reloading: false,
            hung: false,
            status: String::new(),
            status_due: Instant::now(),
            status_waits: false,
        }
    }

    fn tell_phase(&mut self) {
        if *self.shared.phase.borrow() == Phase::Up && !self.ready {
            self.say_ready();
        }
        // Draining alone is not stopping: a new identity drains the old one's work.
        if *self.shared.stops.borrow() > 0 && !self.stopping {
            self.stopping = true;
            self.manager.stopping();
            self.extend();
        }
    }

    fn say_ready(&mut self) {
        self.ready = true;
        self.status = self.line();
        self.manager.ready(&self.status);
    }

    fn tell_status(&mut self) {
        let line = self.line();
        let now = Instant::now();
        self.status_waits = line != self.status && now < self.status_due;
        if line != self.status && !self.status_waits {
            self.manager.status(&line);
            self.status = line;
            self.status_due = now + STATUS_AT_MOST_EVERY;
        }
    }

    /// Before it is ready, the manager would take the end of a reload for the end of the start.
    fn begin_reload(&mut self) {
        if self.ready && !self.stopping {
            self.reloading = true;
            self.manager.reloading();
        }
    }

    fn end_reload(&mut self) {
        if self.reloading && *self.shared.reloaded.borrow() >= *self.shared.reload.borrow() {
            self.reloading = false;
            self.say_ready();
        }
    }

    fn feed(&mut self) {
        let hung = self.shared.pulse.hung();
        self.shared.pulse.ask();
        if hung.is_empty() {
            self.manager.watchdog();
            if self.stopping {
                self.extend();
            }
        } else if !self.hung {
            tracing::error!(loops = ?hung, "hung; the service manager is not told that all is well");
        }
        self.hung = !hung.is_empty();
    }

    fn extend(&self) {
        self.manager.extend_timeout(tick(self.manager) * DRAIN_TICKS);
    }

    fn line(&self) -> String {
        let active = self.shared.activity.borrow().active;
        let jobs = match active {
            0 => "no jobs in hand".to_owned(),
            1 => "1 job in hand".to_owned(),
            _ => format!("{active} jobs in hand"),
        };
        let trouble = {
            let notes = self.shared.notes();
            notes.session_error.clone().or_else(|| notes.heartbeat.error.clone())
        };
        match (*self.shared.phase.borrow(), trouble) {
            (Phase::Starting, None) => "Starting".to_owned(),
            (Phase::Starting, Some(why)) => format!("Waits for the backend: {why}"),
            (Phase::Up, None) => format!("Up, {jobs}"),
            (Phase::Up, Some(why)) => format!("Up, {jobs}; the backend is away: {why}"),
            (Phase::Draining, _) => format!("Draining, {jobs}"),
            (Phase::Stopped, _) => "Stopped".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
