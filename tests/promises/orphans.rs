//! No process of a job is left, however the job, its supervisor or the gateway ends. Each member of
//! the tree reports its own pid and start time, and by these it is looked for.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::tree::{GONE_WITHIN, Member, Tree, all_gone, parent, started};
use crate::common::{ControlPlane, Machine, Paired, say, wait_until};

/// Besides the leader: who holds the pipes, forks twice, has a session of its own, is deaf to
/// SIGTERM, has an empty environment, is stopped, and all of these at once.
const MEMBERS: &[&str] =
    &["child", "double", "session", "deaf", "bare", "silent", "stopped", "escaped", "escaped-bare"];
/// A shim that is itself killed leaves out of reach who has left its session and its parents and
/// has an empty environment as well.
const MEMBERS_WITHIN_REACH: &[&str] = &["child", "double", "session", "deaf", "bare", "escaped"];

/// A gateway that runs a job which has grown its tree.
struct Grown {
    /// Dropped first, while its log is there.
    _tree: Tree,
    control: ControlPlane,
    paired: Paired,
    job: String,
    members: Vec<Member>,
}

impl Grown {
    async fn new(members: &'static [&'static str], limit_ms: u64) -> Self {
        let control = ControlPlane::start().await;
        let paired = Paired::start(&control).await;
        let tree = Tree::new(paired.machine.home(), members);
        let command = format!("exec {}", tree.command());
        let job = paired.submit_shell(&control, &command, json!({"timeout_ms": limit_ms})).await;
        let members = tree.grown().await;
        Self { _tree: tree, control, paired, job, members }
    }

    fn leader(&self) -> &Member {
        self.members.iter().find(|member| member.label == "leader").unwrap()
    }

    async fn status(&self) -> String {
        self.control.ended(&self.job).await["status"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_time_limit() {
    let limit = Duration::from_secs(4);
    let grown = Grown::new(MEMBERS, 4_000).await;
    let due = started(&grown.leader().process) + limit;
    assert!(Instant::now() < due, "the tree had grown before the limit");
    let (row, ()) = tokio::join!(grown.control.ended(&grown.job), async {
        all_gone("after the time limit", &grown.members, due, GONE_WITHIN).await;
    });
    assert_eq!((&row["status"], &row["result"]["timed_out"]), (&json!("completed"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_second_signal() {
    let mut grown = Grown::new(MEMBERS, 600_000).await;
    grown.paired.gateway.signal(Signal::SIGTERM);
    let first = Instant::now();
    wait_until("the gateway to drain", || async {
        (grown.paired.machine.status().await?["phase"] == "draining").then_some(())
    })
    .await;
    assert!(grown.members.iter().all(|member| member.process.is_alive()), "it drains");
    // Signals within a second count once.
    wait_until("a signal to count again", || async {
        (first.elapsed() > Duration::from_millis(1_100)).then_some(())
    })
    .await;
    grown.paired.gateway.signal(Signal::SIGTERM);
    all_gone("after a second SIGTERM", &grown.members, Instant::now(), GONE_WITHIN).await;
    assert!(grown.paired.gateway.ended().await.success());
    assert_eq!(grown.status().await, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_stop_force() {
    let mut grown = Grown::new(MEMBERS, 600_000).await;
    let since = Instant::now();
    let ((), ran) = tokio::join!(
        all_gone("after `stop --force`", &grown.members, since, GONE_WITHIN),
        grown.paired.machine.run_async(&["stop", "--force", "--wait=30"]),
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(grown.paired.gateway.ended().await.success());
    assert_eq!(grown.status().await, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_row_was_cancelled() {
    let grown = Grown::new(MEMBERS, 600_000).await;
    let row = grown.control.admin.cancel_job(&grown.job).await.unwrap();
    let what = "after the row was cancelled (realtime tells of it)";
    all_gone(what, &grown.members, Instant::now(), GONE_WITHIN).await;
    wait_until("the gateway to be done with it", || async {
        let status = grown.paired.machine.status().await?;
        status["active_jobs"].as_array()?.is_empty().then_some(())
    })
    .await;
    let now = grown.control.admin.job(&grown.job).await.unwrap();
    assert_eq!(now, row, "nothing more is written to a cancelled row");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_gateways_sigkill() {
    let mut grown = Grown::new(MEMBERS, 600_000).await;
    grown.paired.gateway.signal(Signal::SIGKILL);
    let what = "after the gateway's SIGKILL (it is not started again)";
    all_gone(what, &grown.members, Instant::now(), GONE_WITHIN).await;
    grown.paired.gateway.ended().await;
    let row = grown.control.admin.job(&grown.job).await.unwrap();
    assert_eq!(row["status"], "running", "nobody was there to report it");
    // The next gateway knows of it.
    let _again = grown.paired.machine.start().await;
    let row = grown.control.ended(&grown.job).await;
    assert_eq!(row["status"], "failed", "{row}");
    assert_eq!(row["result"]["error_code"], "gateway_restarted", "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_shims_sigkill() {
    let grown = Grown::new(MEMBERS_WITHIN_REACH, 600_000).await;
    let shim = nix::unistd::Pid::from_raw(parent(grown.leader().process.pid).unwrap());
    nix::sys::signal::kill(shim, Signal::SIGKILL).unwrap();
    let since = Instant::now();
    all_gone("after the shim's SIGKILL", &grown.members, since, GONE_WITHIN).await;
    assert_eq!(grown.status().await, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_sigkill_of_gateway_and_shim_at_once() {
    let mut grown = Grown::new(MEMBERS_WITHIN_REACH, 600_000).await;
    let shim = nix::unistd::Pid::from_raw(parent(grown.leader().process.pid).unwrap());
    grown.paired.gateway.signal(Signal::SIGSTOP);
    nix::sys::signal::kill(shim, Signal::SIGKILL).unwrap();
    grown.paired.gateway.kill().await;
    // Nobody is left who could: the next gateway does it, by its journal.
    let _again = grown.paired.machine.spawn(&[]);
    let what = "after the SIGKILL of gateway and shim, since the next gateway's start";
    all_gone(what, &grown.members, Instant::now(), GONE_WITHIN).await;
    assert_eq!(grown.status().await, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_normal_exit_of_what_may_leave_nothing() {
    let control = ControlPlane::start().await;
    let machine = Machine::new();
    let tree = Tree::new(machine.home(), MEMBERS);
    let claude = machine.home().join("claude");
    // Only for the job: the gateway has asked for the version before, and goes on to check.
    let grow = machine.home().join("grow");
    let (command, await_grown) = (tree.command(), tree.await_grown());
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = --version ] || exit 1\n\
         if [ -e '{}' ]; then\n{command} &\n{await_grown}\nfi\necho 9.9.9\n",
        grow.display(),
    );
    std::fs::write(&claude, script).unwrap();
    std::fs::set_permissions(&claude, PermissionsExt::from_mode(0o755)).unwrap();
    let machine = machine.with("PANORAMA_CLAUDE_CLI", claude.display().to_string());
    let paired = Paired::start_on(machine, &control).await;
    wait_until("the gateway to know its Claude", || async {
        let status = paired.machine.status().await?;
        (status["providers"][0]["version"] == "9.9.9").then_some(())
    })
    .await;
    std::fs::write(&grow, "").unwrap();
    let job = control.submit(&paired.gateway_id, "diagnostic", json!({})).await;
    let row = control.ended(&job).await;
    let since = Instant::now();
    assert_eq!(row["result"]["version"], "9.9.9", "{row}");
    let members = tree.reported();
    assert_eq!(members.len(), MEMBERS.len() + 1);
    all_gone("after the normal exit of a `diagnostic`", &members, since, GONE_WITHIN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shell_exec_left_on_purpose_survives_the_gateways_death_and_next_start() {
    let control = ControlPlane::start().await;
    let mut paired = Paired::start(&control).await;
    let tree = Tree::new(paired.machine.home(), &["child", "double", "session", "bare"]);
    let command = format!("{} &\n{}\necho done", tree.command(), tree.await_grown());
    let row = paired.shell(&control, &command).await;
    assert_eq!(row["result"]["stdout"], "done\n", "{row}");
    let members = tree.reported();
    let alive = || members.iter().filter(|member| member.process.is_alive()).count();
    assert_eq!((members.len(), alive()), (5, 5), "after the job's end");
    paired.gateway.kill().await;
    let after_death = alive();
    let _again = paired.machine.start().await;
    // A whole job later, whatever the new gateway sweeps is swept.
    let row = paired.shell(&control, "echo again").await;
    assert_eq!(row["result"]["stdout"], "again\n", "{row}");
    let after_start = alive();
    say(&format!(
        "background work of a plain shell_exec: 5 alive at its end, {after_death} after the \
         gateway's SIGKILL, {after_start} after the next gateway's start and first job"
    ));
    assert_eq!((after_death, after_start), (5, 5));
}
