//! The task that owns the queue: takes offers, starts jobs, learns of their ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::handlers::Host;
use super::journal::Record;
use super::journal::replay::replay;
use super::late_claims::{self, LateClaims};
use super::life;
use super::machine_control::HEARTBEAT_FRESH;
use super::queue::{Entry, Gate, Offered, Queue, Slots, Work};
use super::stop::{JobStop, StopReason};
use super::view::{self, ActiveJob, JobList, JobPhase, QueuedJob, Target};
use super::{run_events, subagent_dirs};
use crate::clock::Moment;
use crate::model::{Job, JobId, JobStatus, RunId, time};
use crate::providers::Standings;
use crate::task::{Ending, Group, Pulse};

/// Rows that came with one page of a poll, or by realtime.
#[derive(Debug)]
pub struct Offer {
    /// Raw rows: one that does not decode must not hide the others.
    pub rows: Vec<Value>,
    /// When the poll began. What ended since then is not new.
    pub seen_at: Instant,
}

/// What the controller is told from outside.
#[derive(Debug)]
pub enum News {
    /// Queued jobs.
    Queued(Offer),
    /// This job's row is not `running` any more, somebody says: if the job is in hand, the row is
    /// read.
    NotRunning(JobId),
    /// Rows may have changed unheard: that of every job in hand is read.
    MayHaveChanged,
    /// Somebody asks what waits and runs; whoever has gone meanwhile gets no answer.
    List(oneshot::Sender<JobList>),
}

/// How much the gateway still does. Goes up, but for a drain for an upgrade that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Takes jobs.
    Accepting,
    /// Takes cancel jobs only; finishes what runs.
    Draining,
    /// Cancels what runs.
    Cancelling,
}

/// What the controller is doing, for status and for shutdown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activity {
    /// Wait in the queue.
    pub queued: usize,
    /// Started (being claimed, running, or being reported).
    pub active: usize,
    /// Those of them that are claimed.
    pub jobs: Vec<ActiveJob>,
    /// Ended since the start.
    pub finished: u64,
    /// The level that the controller has taken over.
    pub draining: bool,
}

/// See the module.
pub struct Controller {
    host: Arc<Host>,
    queue: Queue,
    jobs: Group,
    /// Jobs of an earlier gateway. They do not hold a drain: their records stay.
    replays: Group,
    late: Arc<LateClaims>,
    stops: HashMap<JobId, JobStop>,
    in_hand: BTreeMap<JobId, ActiveJob>,
    steps: (mpsc::Sender<life::Step>, mpsc::Receiver<life::Step>),
    finished: u64,
    level: watch::Receiver<Level>,
    heard: watch::Receiver<Option<Moment>>,
    providers: watch::Receiver<Standings>,
    activity: watch::Sender<Activity>,
    refused: HashSet<String>,
}

/// How often a journal that takes nothing is tried again.
const JOURNAL_TRY_EVERY: Duration = Duration::from_secs(5);
/// Most ids of refused rows that are remembered so that each is logged once.
const REFUSED_REMEMBERED: usize = 1_000;

impl Controller {
    /// `heard` is when the backend last accepted a heartbeat: nothing is claimed without a recent
    /// one. `activity` is told of every change.
    pub fn new(
        host: Arc<Host>,
        slots: Slots,
        level: watch::Receiver<Level>,
        heard: watch::Receiver<Option<Moment>>,
        activity: watch::Sender<Activity>,
    ) -> Self {
        Self {
            providers: host.providers.subscribe(),
            host,
            queue: Queue::new(slots),
            jobs: Group::new(CancellationToken::new()),
            replays: Group::new(CancellationToken::new()),
            late: Arc::default(),
            stops: HashMap::new(),
            in_hand: BTreeMap::new(),
            steps: mpsc::channel(slots.jobs.max(1) * 2),
            finished: 0,
            level,
            heard,
            activity,
            refused: HashSet::new(),
        }
    }

    /// Runs until `stop`; jobs that are still running then are aborted with the group (their
    /// processes end with them), so cancel or drain first.
    pub async fn run(
        mut self,
        mut news: mpsc::Receiver<News>,
        pulse: &Pulse,
        stop: CancellationToken,
    ) {
        self.replay_journal().await;
        let mut look = tokio::time::interval(late_claims::LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // It may have risen before this one was there to see it.
        self.change_level();
        let mut beat = pulse.beat("jobs");
        loop {
            self.start_jobs();
            self.tell();
            tokio::select! {
                // Cancel safe, each arm: channel receives, watch changes, join of a group, timers.
                () = stop.cancelled() => return,
                () = beat.asked() => {}
                news = news.recv() => match news {
                    Some(news) => self.hear(news),
                    None => return,
                },
                Some(ended) = self.jobs.next(), if !self.jobs.is_empty() => self.ended(&ended),
                Some(ended) = self.replays.next(), if !self.replays.is_empty() => {
                    self.replayed(&ended);
                }
                Some(done) = self.steps.1.recv() => self.stepped(done),
                Ok(()) = self.level.changed() => self.change_level(),
                Ok(()) = self.heard.changed() => {}
                Ok(()) = self.providers.changed() => {}
                _ = look.tick(), if !self.late.is_empty() => self.look_at_late_claims(),
                () = tokio::time::sleep(JOURNAL_TRY_EVERY), if self.in_trouble() => {
                    self.host.journal.try_again().await;
                }
            }
        }
    }

    /// Before the first offer is taken, so that no record is older than a claim of ours.
    async fn replay_journal(&mut self) {
        let found = self.host.journal.found().await;
        if !found.is_empty() {
            tracing::info!(records = found.len(), "finishing what an earlier gateway left");
        }
        let runs = found.iter().filter_map(|record| Some(record.subagent.as_ref()?.run_id.clone()));
        self.send_left_events(runs.collect()).await;
        for record in found {
            self.replay(record);
        }
        let host = Arc::clone(&self.host);
        self.replays.spawn("kept folders", move |_| async move {
            subagent_dirs::bound(&host).await;
        });
    }

    fn replay(&mut self, record: Record) {
        let id = record.id.clone();
        self.queue.adopt(id.clone());
        let (host, late) = (Arc::clone(&self.host), Arc::clone(&self.late));
        let span = tracing::info_span!("job", id = %id, r#type = %record.job_type);
        self.replays.spawn(id.as_str(), move |_| {
            async move { replay(&host, record, &late).await }.instrument(span)
        });
    }

    fn look_at_late_claims(&mut self) {
        for record in self.late.take_but(|id| self.queue.knows(id)) {
            self.replay(record);
        }
    }

    /// Events of runs whose records are gone; the others' are sent with these.
    async fn send_left_events(&mut self, recorded: Vec<RunId>) {
        for left in run_events::left(&self.host, recorded.clone()).await {
            if !recorded.contains(&left.run_id) {
                let host = Arc::clone(&self.host);
                self.replays.spawn(format!("events of {}", left.run_id), move |stop| async move {
                    run_events::finish(&host, &left, stop).await;
                });
            }
        }
    }

    fn replayed(&mut self, ended: &crate::task::Ended) {
        log_panic(ended);
        self.queue.ended(&JobId::new(ended.name.as_str()), Instant::now());
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Queued(offer) => self.take(&offer),
            News::NotRunning(id) => {
                if let Some(stop) = self.stops.get(&id) {
                    stop.look();
                }
            }
            News::MayHaveChanged => self.stops.values().for_each(JobStop::look),
            News::List(asked_by) => {
                let _gone = asked_by.send(self.list());
            }
        }
    }

    fn take(&mut self, offer: &Offer) {
        for row in &offer.rows {
            let entry = match Job::decode(row) {
                Ok(job) if !self.is_ours(&job) => continue,
                Ok(job) => Entry { id: job.id.clone(), work: Work::Run(Box::new(job)) },
                Err(error) => {
                    self.log_refused(error.id.as_ref(), &error.reason);
                    let Some(id) = error.id else { continue };
                    Entry { id, work: Work::Refuse(error.reason) }
                }
            };
            if self.queue.offer(entry, offer.seen_at) == Offered::Full {
                // Those behind it are looked at all the same: one may be a cancel job.
                tracing::debug!("the queue is full; the rest comes with a later poll");
            }
        }
    }

    fn is_ours(&self, job: &Job) -> bool {
        job.status == JobStatus::Queued
            && job.gateway_id == *self.host.api.gateway()
            && job.team_id == *self.host.api.team()
    }

    fn log_refused(&mut self, id: Option<&JobId>, reason: &str) {
        let key = id.map_or_else(String::new, ToString::to_string);
        if self.refused.len() >= REFUSED_REMEMBERED {
            self.refused.clear();
        }
        if self.refused.insert(key.clone()) {
            tracing::warn!(job_id = %key, reason, "a job's row cannot be read");
        }
    }

    fn start_jobs(&mut self) {
        let gate = self.gate();
        while let Some(entry) = self.queue.start_next(&gate) {
            let id = entry.id.clone();
            let stop = JobStop::default();
            self.stops.insert(id.clone(), stop.clone());
            let host = Arc::clone(&self.host);
            let steps = life::Steps::new(id.clone(), self.steps.0.clone());
            let job_type = entry.job_type().to_owned();
            let target = match &entry.work {
                Work::Run(job) => Target::of(job),
                Work::Refuse(_) => Target::default(),
            };
            let active = ActiveJob {
                id: id.to_string(),
                job_type: job_type.clone(),
                started_at: time::now_wire(),
                phase: JobPhase::Claiming,
                target,
            };
            self.in_hand.insert(id.clone(), active);
            let earlier = self.late.take(&id);
            let span = tracing::info_span!("job", id = %id, r#type = %job_type);
            self.jobs.spawn(id.as_str(), move |_| {
                life::live(host, entry, earlier, stop, steps).instrument(span)
            });
        }
    }

    fn in_trouble(&self) -> bool {
        self.host.journal.trouble().borrow().is_some()
    }

    fn gate(&mut self) -> Gate {
        let heard = *self.heard.borrow();
        let team_knows = self.host.providers.is_known_to_team();
        let standings = self.providers.borrow_and_update();
        let undecided = standings.iter().filter(|(_, standing)| standing.health.is_undecided());
        Gate {
            may_claim: heard.is_some_and(|at| self.host.api.clock().since(at) <= HEARTBEAT_FRESH),
            undecided: undecided.map(|(id, _)| *id).collect(),
            team_knows,
        }
    }

    fn stepped(&mut self, step: life::Step) {
        // A short job may have ended before its steps were read here.
        let Some(job) = self.in_hand.get_mut(&step.id) else { return };
        match step.what {
            life::What::Claimed { job_type, started_at, target } => {
                job.phase = JobPhase::Running;
                (job.job_type, job.started_at, job.target) = (job_type, started_at, target);
            }
            life::What::Reporting => job.phase = JobPhase::Reporting,
        }
    }

    fn list(&self) -> JobList {
        JobList {
            active: self.in_hand.values().cloned().collect(),
            queued: self
                .queue
                .waiting_entries()
                .take(view::MOST_QUEUED)
                .map(QueuedJob::from)
                .collect(),
            queued_total: self.queue.waiting(),
        }
    }

    fn ended(&mut self, ended: &crate::task::Ended) {
        log_panic(ended);
        let id = JobId::new(ended.name.as_str());
        self.queue.ended(&id, Instant::now());
        self.stops.remove(&id);
        self.in_hand.remove(&id);
        self.finished += 1;
    }

    fn change_level(&mut self) {
        let level = *self.level.borrow_and_update();
        if level >= Level::Draining {
            self.queue.stop_accepting();
        } else {
            self.queue.accept_again();
        }
        if level >= Level::Cancelling {
            for stop in self.stops.values() {
                stop.stop(StopReason::Shutdown);
            }
        }
    }

    fn tell(&self) {
        let now = Activity {
            queued: self.queue.waiting(),
            active: self.stops.len(),
            jobs: self
                .in_hand
                .values()
                .filter(|job| job.phase != JobPhase::Claiming)
                .cloned()
                .collect(),
            finished: self.finished,
            draining: !self.queue.is_accepting(),
        };
        self.activity.send_if_modified(|activity| {
            let changed = *activity != now;
            *activity = now;
            changed
        });
    }
}

fn log_panic(ended: &crate::task::Ended) {
    if let Ending::Panicked(text) = &ended.ending {
        tracing::error!(job_id = %ended.name, panic = %text, "a job's task panicked");
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("queue", &self.queue).finish_non_exhaustive()
    }
}
