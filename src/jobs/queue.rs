//! The queue: what waits, what runs, what may start next. Pure; time is passed in.
//!
//! Invariants: a job id is known at most once (waiting or active); no more slots are in use than there
//! are, and no more of them by agents than agents may run; two `subagent_run` jobs of one subagent never run together; a `subagent_cancel` needs no
//! slot and starts even while the queue does not accept.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Job, JobId};
use crate::providers::ProviderId;

/// Most jobs that wait in memory; the rest stay `queued` at the backend and come with a later poll.
const MAX_WAITING: usize = 1_000;

/// How long an ended job is remembered, so that a poll that was already under way when it ended
/// does not bring it back. Longer than any poll may take.
const REMEMBER_ENDED: Duration = Duration::from_secs(30);

/// What is to be done with a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A job.
    Run(Box<Job>),
    /// A row with a readable id that does not decode: it is claimed and failed with this reason,
    /// not left `queued` for ever.
    Refuse(String),
}

/// One row in the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The row's id.
    pub id: JobId,
    /// What to do with it.
    pub work: Work,
}

impl Entry {
    /// The type of the job; empty for a row that does not decode.
    pub(super) fn job_type(&self) -> &str {
        match &self.work {
            Work::Run(job) => &job.job_type,
            Work::Refuse(_) => "",
        }
    }

    /// Cancel jobs pass by the queue.
    fn is_cancel(&self) -> bool {
        self.job_type() == "subagent_cancel"
    }

    /// It runs an agent CLI, which takes hundreds of megabytes.
    fn is_agent(&self) -> bool {
        matches!(self.job_type(), "model_run" | "subagent_run")
    }

    /// Whether it needs a provider that has no verdict yet, as far as the row tells: which provider
    /// a subagent is for does not stand in it. A subagent also needs the team to know of it.
    fn waits_for(&self, gate: &Gate) -> bool {
        let Work::Run(job) = &self.work else { return false };
        let text = |name: &str| job.payload.get(name).and_then(serde_json::Value::as_str);
        match job.job_type.as_str() {
            "subagent_run" => !gate.undecided.is_empty() || !gate.team_knows,
            "model_run" => text("model")
                .map(|model| ProviderId::of_request(text("provider"), model))
                .is_some_and(|id| gate.undecided.contains(&id)),
            _ => false,
        }
    }

    /// The subagent that must not run twice at a time.
    fn subagent(&self) -> Option<&str> {
        match &self.work {
            Work::Run(job) if job.job_type == "subagent_run" => job
                .payload
                .get("subagent_id")
                .or_else(|| job.payload.get("subagentId"))
                .and_then(serde_json::Value::as_str),
            Work::Run(_) | Work::Refuse(_) => None,
        }
    }
}

/// What, beside the queue itself, decides what may start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// The backend has heard of us lately.
    pub may_claim: bool,
    /// Providers without a verdict: jobs for them wait, so that a gateway that was just started
    /// fails none that it could run.
    pub undecided: Vec<ProviderId>,
    /// The team has been told which providers are ready now: what is told there decides whether a
    /// subagent may run, so that its jobs wait for that, too.
    pub team_knows: bool,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// Waits now.
    Queued,
    /// Waits, runs, or ended after the poll that brought it began.
    Known,
    /// No room; it comes again with a later poll.
    Full,
}

/// How many jobs run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// In all, at least one.
    pub jobs: usize,
    /// How many of them may run an agent CLI, at least one.
    pub agents: usize,
}

#[derive(Debug)]
struct Slot {
    counts: bool,
    is_agent: bool,
    subagent: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    slots: Slots,
    accepting: bool,
    waiting: VecDeque<Entry>,
    waiting_ids: HashSet<JobId>,
    active: HashMap<JobId, Slot>,
    /// Oldest first. Hashes, because thousands of short jobs end within a minute; a row that only
    /// shares a hash with one of them comes again with a later poll.
    ended: VecDeque<(u64, Instant)>,
    hasher: RandomState,
}

impl Queue {
    /// An empty queue that accepts.
    pub fn new(slots: Slots) -> Self {
        Self {
            slots: Slots { jobs: slots.jobs.max(1), agents: slots.agents.max(1) },
            accepting: true,
            waiting: VecDeque::new(),
            waiting_ids: HashSet::new(),
            active: HashMap::new(),
            ended: VecDeque::new(),
            hasher: RandomState::new(),
        }
    }

    /// Offers a row that a poll which began at `seen_at` brought.
    pub fn offer(&mut self, entry: Entry, seen_at: Instant) -> Offered {
        let hash = self.hasher.hash_one(&entry.id);
        let since = self.ended.iter().rev().take_while(|(_, ended_at)| *ended_at >= seen_at);
        let ended_since = since.map(|(id, _)| id).any(|id| *id == hash);
        if self.waiting_ids.contains(&entry.id)
            || self.active.contains_key(&entry.id)
            || ended_since
        {
            return Offered::Known;
        }
        if self.waiting.len() >= MAX_WAITING && !entry.is_cancel() {
            return Offered::Full;
        }
        self.waiting_ids.insert(entry.id.clone());
        self.waiting.push_back(entry);
        Offered::Queued
    }

    /// Takes the next row that may start now and makes it active. Cancel jobs are exempt from the
    /// gate too.
    pub fn start_next(&mut self, gate: &Gate) -> Option<Entry> {
        let slot_free = self.accepting
            && gate.may_claim
            && self.active.values().filter(|slot| slot.counts).count() < self.slots.jobs;
        let may_start = |entry: &Entry| slot_free && self.is_free(entry) && !entry.waits_for(gate);
        let index = self
            .waiting
            .iter()
            .position(Entry::is_cancel)
            .or_else(|| self.waiting.iter().position(may_start))?;
        let entry = self.waiting.remove(index)?;
        self.waiting_ids.remove(&entry.id);
        let slot = Slot {
            counts: !entry.is_cancel(),
            is_agent: entry.is_agent(),
            subagent: entry.subagent().map(str::to_owned),
        };
        self.active.insert(entry.id.clone(), slot);
        Some(entry)
    }

    fn is_free(&self, entry: &Entry) -> bool {
        self.has_room_for(entry) && !self.is_running_subagent_of(entry)
    }

    /// Agents that find no room wait, and others overtake them.
    fn has_room_for(&self, entry: &Entry) -> bool {
        let agents = self.active.values().filter(|slot| slot.is_agent).count();
        !entry.is_agent() || agents < self.slots.agents
    }

    fn is_running_subagent_of(&self, entry: &Entry) -> bool {
        entry.subagent().is_some_and(|subagent| {
            self.active.values().any(|slot| slot.subagent.as_deref() == Some(subagent))
        })
    }

    /// Whether the row waits or is active.
    pub fn knows(&self, id: &JobId) -> bool {
        self.active.contains_key(id) || self.waiting.iter().any(|entry| entry.id == *id)
    }

    /// A row that an earlier gateway claimed is being brought to its end: it uses no slot, and is
    /// not started again meanwhile.
    pub fn adopt(&mut self, id: JobId) {
        self.active.insert(id, Slot { counts: false, is_agent: false, subagent: None });
    }

    /// An active row ended (or was not ours to claim).
    pub fn ended(&mut self, id: &JobId, now: Instant) {
        if self.active.remove(id).is_some() {
            while self.ended.front().is_some_and(|(_, at)| now.duration_since(*at) > REMEMBER_ENDED)
            {
                self.ended.pop_front();
            }
            self.ended.push_back((self.hasher.hash_one(id), now));
        }
    }

    /// Drops what waits and takes nothing but cancel jobs from now on. What was dropped is still
    /// `queued` at the backend.
    pub fn stop_accepting(&mut self) {
        self.accepting = false;
        let (cancels, dropped): (VecDeque<_>, VecDeque<_>) =
            self.waiting.drain(..).partition(Entry::is_cancel);
        self.waiting = cancels;
        for entry in dropped {
            self.waiting_ids.remove(&entry.id);
        }
    }

    /// Takes everything again. What was dropped comes with the next poll.
    pub fn accept_again(&mut self) {
        self.accepting = true;
    }

    /// False once draining.
    pub fn is_accepting(&self) -> bool {
        self.accepting
    }

    /// Those that wait, in their order.
    pub fn waiting_entries(&self) -> impl Iterator<Item = &Entry> {
        self.waiting.iter()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many run.
    pub fn active(&self) -> usize {
        self.active.len()
    }
}

#[cfg(test)]
mod tests;
