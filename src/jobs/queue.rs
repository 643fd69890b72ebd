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
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn entry(id: &str, job_type: &str, subagent: Option<&str>) -> Entry {
        let row = json!({"id": id, "team_id": "t", "gateway_id": "g", "job_type": job_type,
            "status": "queued", "created_at": "2025-11-03T09:32:55Z",
            "payload": subagent.map(|s| json!({"subagent_id": s}))});
        Entry { id: JobId::new(id), work: Work::Run(Box::new(Job::decode(&row).unwrap())) }
    }

    fn queue(jobs: usize) -> Queue {
        Queue::new(Slots { jobs, agents: jobs })
    }

    fn open() -> Gate {
        Gate { may_claim: true, undecided: Vec::new(), team_knows: true }
    }

    fn start(queue: &mut Queue) -> Option<String> {
        queue.start_next(&open()).map(|entry| entry.id.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn first_in_first_out_within_the_slots() {
        let now = Instant::now();
        let mut queue = queue(2);
        for id in ["a", "b", "c"] {
            assert_eq!(queue.offer(entry(id, "shell_exec", None), now), Offered::Queued);
        }
        assert_eq!(queue.offer(entry("a", "shell_exec", None), now), Offered::Known);
        assert_eq!(start(&mut queue).as_deref(), Some("a"));
        assert_eq!(start(&mut queue).as_deref(), Some("b"));
        assert_eq!(start(&mut queue), None);
        queue.ended(&JobId::new("a"), now);
        assert_eq!(start(&mut queue).as_deref(), Some("c"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_subagent_runs_once_and_others_overtake() {
        let now = Instant::now();
        let mut queue = queue(10);
        queue.offer(entry("a", "subagent_run", Some("s1")), now);
        queue.offer(entry("b", "subagent_run", Some("s1")), now);
        queue.offer(entry("c", "subagent_run", Some("s2")), now);
        assert_eq!(start(&mut queue).as_deref(), Some("a"));
        assert_eq!(start(&mut queue).as_deref(), Some("c"));
        assert_eq!(start(&mut queue), None);
        queue.ended(&JobId::new("a"), now);
        assert_eq!(start(&mut queue).as_deref(), Some("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn agents_wait_for_memory_and_others_overtake() {
        let now = Instant::now();
        let mut queue = Queue::new(Slots { jobs: 3, agents: 1 });
        queue.offer(entry("a", "model_run", None), now);
        queue.offer(entry("b", "model_run", None), now);
        queue.offer(entry("c", "subagent_run", Some("s")), now);
        queue.offer(entry("d", "shell_exec", None), now);
        assert_eq!(start(&mut queue).as_deref(), Some("a"));
        assert_eq!(start(&mut queue).as_deref(), Some("d"));
        queue.offer(entry("x", "subagent_cancel", None), now);
        assert_eq!(start(&mut queue).as_deref(), Some("x"), "a cancel job is no agent");
        assert_eq!(start(&mut queue), None);
        queue.ended(&JobId::new("d"), now);
        assert_eq!(start(&mut queue), None);
        queue.ended(&JobId::new("a"), now);
        assert_eq!(start(&mut queue).as_deref(), Some("b"));
        queue.ended(&JobId::new("b"), now);
        assert_eq!(start(&mut queue).as_deref(), Some("c"));
    }

    #[tokio::test(start_paused = true)]
    async fn cancel_jobs_pass_by_slots_gate_and_drain() {
        let now = Instant::now();
        let mut queue = queue(1);
        queue.offer(entry("a", "shell_exec", None), now);
        queue.offer(entry("b", "shell_exec", None), now);
        assert_eq!(start(&mut queue).as_deref(), Some("a"));
        queue.offer(entry("x", "subagent_cancel", None), now);
        let closed = Gate::default();
        assert_eq!(queue.start_next(&closed).map(|e| e.id.to_string()).as_deref(), Some("x"));
        queue.stop_accepting();
        queue.ended(&JobId::new("a"), now);
        assert_eq!(start(&mut queue), None, "b was dropped");
        queue.offer(entry("y", "subagent_cancel", None), now);
        assert_eq!(start(&mut queue).as_deref(), Some("y"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_drain_dropped_may_come_again_after_it() {
        let now = Instant::now();
        let mut queue = queue(1);
        queue.offer(entry("a", "shell_exec", None), now);
        queue.stop_accepting();
        queue.offer(entry("a", "shell_exec", None), now);
        assert_eq!(start(&mut queue), None);
        queue.accept_again();
        queue.offer(entry("a", "shell_exec", None), now);
        assert_eq!(start(&mut queue).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_starts_while_the_backend_has_not_heard_of_us() {
        let now = Instant::now();
        let mut queue = queue(1);
        queue.offer(entry("a", "shell_exec", None), now);
        assert_eq!(queue.start_next(&Gate::default()), None);
        assert_eq!(start(&mut queue).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_wait_for_their_providers_verdict_and_others_overtake() {
        use ProviderId::{ClaudeCode, Codex, Gemini};
        let model_run = |id: &str, payload: serde_json::Value| {
            let mut entry = entry(id, "model_run", None);
            if let Work::Run(job) = &mut entry.work {
                job.payload = serde_json::from_value(payload).unwrap();
            }
            entry
        };
        let now = Instant::now();
        let mut queue = queue(10);
        queue.offer(model_run("codex", json!({"provider": "codex", "model": "sonnet"})), now);
        queue.offer(model_run("gemini", json!({"model": "gemini-3-pro"})), now);
        queue.offer(model_run("claude", json!({"model": "__default__"})), now);
        queue.offer(entry("sub", "subagent_run", Some("s")), now);
        queue.offer(model_run("bad", json!({"provider": "nobody", "model": "sonnet"})), now);
        queue.offer(entry("shell", "shell_exec", None), now);
        let mut started = |undecided: &[ProviderId], team_knows| {
            let gate = Gate { may_claim: true, undecided: undecided.to_vec(), team_knows };
            let mut started = Vec::new();
            while let Some(entry) = queue.start_next(&gate) {
                started.push(entry.id.to_string());
            }
            started
        };
        assert_eq!(started(&[ClaudeCode, Codex, Gemini], true), ["shell"]);
        assert_eq!(started(&[ClaudeCode, Gemini], true), ["codex"]);
        assert_eq!(started(&[Gemini], true), ["claude", "bad"]);
        assert_eq!(started(&[], false), ["gemini"]);
        assert_eq!(started(&[], true), ["sub"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_that_began_before_the_end_does_not_bring_a_job_back() {
        let poll_began = Instant::now();
        let mut queue = queue(1);
        queue.offer(entry("a", "shell_exec", None), poll_began);
        start(&mut queue);
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.ended(&JobId::new("a"), Instant::now());
        assert_eq!(queue.offer(entry("a", "shell_exec", None), poll_began), Offered::Known);
        tokio::time::advance(Duration::from_secs(1)).await;
        // Put back to `queued` by somebody: a later poll may bring it again.
        assert_eq!(queue.offer(entry("a", "shell_exec", None), Instant::now()), Offered::Queued);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_gateway_left_uses_no_slot_and_is_not_started_again() {
        let now = Instant::now();
        let mut queue = queue(1);
        queue.adopt(JobId::new("old"));
        assert_eq!(queue.offer(entry("old", "shell_exec", None), now), Offered::Known);
        queue.offer(entry("a", "shell_exec", None), now);
        assert_eq!(start(&mut queue).as_deref(), Some("a"));
        queue.ended(&JobId::new("old"), now);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(queue.offer(entry("old", "shell_exec", None), Instant::now()), Offered::Queued);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_still_takes_cancel_jobs() {
        let now = Instant::now();
        let mut queue = queue(1);
        for n in 0..MAX_WAITING {
            queue.offer(entry(&n.to_string(), "shell_exec", None), now);
        }
        assert_eq!(queue.offer(entry("late", "shell_exec", None), now), Offered::Full);
        assert_eq!(queue.offer(entry("x", "subagent_cancel", None), now), Offered::Queued);
        assert_eq!(start(&mut queue).as_deref(), Some("x"));
    }

    proptest! {
        #[test]
        fn slots_and_exclusion_hold_whatever_comes(
            steps in proptest::collection::vec((0u8..4, 0u8..20, 0u8..3), 1..200),
            concurrency in 1usize..5,
            agents in 1usize..5,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _entered = runtime.enter();
            let now = Instant::now();
            let mut queue = Queue::new(Slots { jobs: concurrency, agents });
            let mut active: Vec<Entry> = Vec::new();
            for (step, id, subagent) in steps {
                let kind = ["shell_exec", "subagent_run", "subagent_cancel"][usize::from(id) % 3];
                match step {
                    0 | 1 => {
                        queue.offer(
                            entry(&id.to_string(), kind, Some(&subagent.to_string())),
                            now + Duration::from_secs(1),
                        );
                    }
                    2 => active.extend(queue.start_next(&open())),
                    _ => if let Some(entry) = active.pop() { queue.ended(&entry.id, now); }
                }
                let slots = active.iter().filter(|entry| !entry.is_cancel()).count();
                prop_assert!(slots <= concurrency);
                let running = active.iter().filter(|entry| entry.is_agent()).count();
                prop_assert!(running <= agents);
                let mut subagents: Vec<_> = active.iter().filter_map(Entry::subagent).collect();
                subagents.sort_unstable();
                let all = subagents.len();
                subagents.dedup();
                prop_assert_eq!(all, subagents.len());
                let mut ids: Vec<_> = active.iter().map(|entry| &entry.id).collect();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(ids.len(), active.len());
                prop_assert_eq!(queue.active(), active.len());
            }
        }
    }
}
