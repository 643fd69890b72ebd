//! 500 jobs, 100 SIGKILLs of the gateway at random moments: nothing lost, nothing doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use panorama_gateway::model::JobStatus;
use serde_json::{Value, json};

use crate::common::marks::Marks;
use crate::common::{ControlPlane, Paired, say, setting, wait_until};

const KILLS: usize = 100;
const JOBS_A_LIFE: usize = 5;

/// A kill: before and after it the clock said.
type Kill = (Timestamp, Timestamp);

/// Where in a gateway's life a kill hit.
#[derive(Debug, Default)]
struct Moments {
    before_up: usize,
    with_jobs_running: usize,
    up_and_idle: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_hundred_kills() {
    let seed = setting("PANORAMA_PROMISES_SEED").unwrap_or_else(|| fastrand::u64(..));
    say(&format!("exactly once: seed {seed} (PANORAMA_PROMISES_SEED={seed} repeats it)"));
    let mut random = fastrand::Rng::with_seed(seed);
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let marks = Marks::in_dir(paired.machine.home());
    paired.gateway.kill().await;
    let start = start_time(&mut paired).await;
    let longest = start + Duration::from_millis(500);

    let mut jobs: BTreeMap<String, String> = BTreeMap::new();
    let mut kills: Vec<Kill> = Vec::new();
    let mut hit: BTreeSet<String> = BTreeSet::new();
    let mut moments = Moments::default();
    for _ in 0..KILLS {
        for _ in 0..JOBS_A_LIFE {
            let name = format!("job-{}", jobs.len());
            let pause = random.u32(0..300);
            let command =
                format!("{}; sleep 0.{pause:03}; echo result of {name}", marks.note(&name));
            let id = paired.submit_shell(&control, &command, json!({})).await;
            jobs.insert(id, name);
        }
        // A third of them while it starts.
        let most = if random.u32(0..3) == 0 { start } else { longest };
        let life = most.mul_f64(random.f64());
        let began = Instant::now();
        paired.gateway = paired.machine.spawn(&[]);
        tokio::time::sleep(life.saturating_sub(began.elapsed())).await;
        let phase = paired.machine.status().await.map(|status| status["phase"].clone());
        let before = Timestamp::now();
        paired.gateway.kill().await;
        kills.push((before, Timestamp::now()));
        let running = control.admin.jobs(Some(JobStatus::Running), Some(1000)).await.unwrap();
        match (phase, running.is_empty()) {
            (_, false) => moments.with_jobs_running += 1,
            (Some(Value::String(phase)), true) if phase == "up" => moments.up_and_idle += 1,
            (_, true) => moments.before_up += 1,
        }
        hit.extend(running.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
    }
    paired.gateway = paired.machine.start().await;
    let rows = all_terminal(&control, jobs.len()).await;
    let counts = marks.counts();

    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let mut violations = Vec::new();
    for row in &rows {
        let id = row["id"].as_str().unwrap();
        let name = &jobs[id];
        let ran = counts.get(name).copied().unwrap_or(0);
        let was_hit = if hit.contains(id) { "hit by a kill" } else { "not hit" };
        match judge(row, name, ran, &kills) {
            Ok(outcome) => {
                *outcomes.entry(format!("{outcome}, {was_hit}, ran {ran} times")).or_default() += 1;
            }
            Err(reason) => violations.push(format!("{name} ({was_hit}): {reason}: {row}")),
        }
    }
    say(&format!(
        "exactly once: {} jobs, {} kills within {} ms of a start ({moments:?}), {} jobs were \
         running at a kill, {} commands ran, {} violations",
        rows.len(),
        kills.len(),
        longest.as_millis(),
        hit.len(),
        counts.values().sum::<usize>(),
        violations.len()
    ));
    for (outcome, count) in &outcomes {
        say(&format!("    {count:>4}  {outcome}"));
    }
    assert_eq!((rows.len(), kills.len()), (KILLS * JOBS_A_LIFE, KILLS));
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
    assert!(moments.with_jobs_running >= KILLS / 4, "the kills must hurt: {moments:?}");
}

/// How long a gateway takes to be up.
async fn start_time(paired: &mut Paired) -> Duration {
    let began = Instant::now();
    paired.gateway = paired.machine.start().await;
    let up = began.elapsed();
    paired.gateway.kill().await;
    up
}

async fn all_terminal(control: &ControlPlane, count: usize) -> Vec<Value> {
    wait_until("all jobs to end", || async {
        let rows = control.admin.jobs(None, Some(1000)).await.unwrap();
        let ended = |row: &Value| row["completed_at"].is_string();
        (rows.len() == count && rows.iter().all(ended)).then_some(rows)
    })
    .await
}

/// How a job ended, or what is wrong with it.
fn judge(row: &Value, name: &str, ran: usize, kills: &[Kill]) -> Result<&'static str, String> {
    let result = &row["result"];
    let time = |field: &str| row[field].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    match row["status"].as_str() {
        Some("completed") if ran != 1 => Err(format!("completed, but ran {ran} times")),
        Some("completed") if result["stdout"] != format!("result of {name}\n") => {
            Err("the result is not what the command wrote".to_owned())
        }
        Some("completed") => Ok("completed"),
        Some("failed") if result["error_code"] == "gateway_restarted" => {
            let (Some(started), Some(completed)) = (time("started_at"), time("completed_at"))
            else {
                return Err("it has no times".to_owned());
            };
            // Wire times have milliseconds.
            let slack = Duration::from_millis(1);
            let died = |kill: &Kill| kill.1 + slack >= started && kill.0 <= completed + slack;
            match (ran, kills.iter().any(died)) {
                (0 | 1, true) => Ok("failed as gateway_restarted"),
                (_, false) => Err("no gateway died over it".to_owned()),
                (_, true) => Err(format!("ran {ran} times")),
            }
        }
        _ => Err("it ended in no way that a kill explains".to_owned()),
    }
}
