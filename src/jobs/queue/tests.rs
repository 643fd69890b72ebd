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
