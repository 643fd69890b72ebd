//! However a run ends, nothing of its tree is left.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use panorama_gateway::config::Environment;
use panorama_gateway::process::{
    Ended, Exit, FirstSignal, Run, RunError, RunSpec, StopSequence, sweep,
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, Tree, bash, eventually, run, stat, tree_spec};

const HARD: &[&str] = &[
    "child",
    "group",
    "double",
    "session",
    "deaf",
    "bare",
    "silent",
    "stopped",
    "escaped",
    "escaped-bare",
];

fn sigkill(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn by_the_time_limit() {
    let tree = Tree::new(HARD);
    let limit = Duration::from_secs(2);
    let run = Run::spawn(tree.spec()).await.unwrap();
    let outcome = run.wait(Some(limit), &CancellationToken::new()).await.unwrap();
    assert_eq!((outcome.ended, outcome.exit), (Ended::TimeLimit, Exit::Signal(15)));
    assert!(!outcome.left_background);
    assert!(outcome.duration >= limit, "{:?}", outcome.duration);
    tree.is_gone().await;
}

#[tokio::test]
async fn by_cancellation() {
    let tree = Tree::new(HARD);
    let cancel = CancellationToken::new();
    let run = Run::spawn(tree.spec()).await.unwrap();
    let (outcome, ()) = tokio::join!(run.wait(None, &cancel), async {
        tree.grown().await;
        cancel.cancel();
    });
    assert_eq!(outcome.unwrap().ended, Ended::Cancelled);
    // No grace after the outcome: it says that all of them are gone.
    assert!(tree.reported().iter().all(|member| member.state().is_none()));
    tree.is_gone().await;
}

#[tokio::test]
async fn by_being_dropped() {
    let tree = Tree::new(HARD);
    let run = Run::spawn(tree.spec()).await.unwrap();
    tree.grown().await;
    let shim = run.ids().clone();
    drop(run);
    tree.is_gone().await;
    eventually("the shim is reaped", PATIENCE, || {
        stat(shim.shim_pid).is_none_or(|(_, start)| start != shim.shim_start).then_some(())
    })
    .await;
}

#[tokio::test]
async fn by_dropping_the_wait() {
    let tree = Tree::new(HARD);
    let run = Run::spawn(tree.spec()).await.unwrap();
    let cancel = CancellationToken::new();
    tokio::select! {
        outcome = run.wait(None, &cancel) => panic!("{outcome:?}"),
        _ = tree.grown() => {}
    }
    tree.is_gone().await;
}

/// The role of the gateway in [`by_the_gateways_death`]: holds a run until it is killed.
#[tokio::test]
#[ignore = "is started by another test"]
async fn plays_the_gateway() {
    let environment = Environment::of_process();
    let log = environment.get("TREE_LOG").unwrap();
    let background = environment.get("TREE_BACKGROUND").is_some();
    let mut spec = tree_spec(log.as_ref(), HARD);
    if background {
        spec = super::allowing_background(spec);
    }
    run(spec).await.unwrap();
}

#[tokio::test]
async fn by_the_gateways_death() {
    for background in [false, true] {
        let tree = Tree::new(HARD);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "ending::plays_the_gateway", "--ignored"])
            .env("TREE_LOG", tree.log())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if background {
            // What a command may leave is what is there when it has ended, not while it runs.
            command.env("TREE_BACKGROUND", "1");
        }
        let mut gateway = command.spawn().unwrap();
        tree.grown().await;
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        tree.is_gone().await;
    }
}

#[tokio::test]
async fn by_the_shims_death() {
    // Without its shim, who has neither parents nor session nor marker is out of reach.
    let tree = Tree::new(&["child", "group", "double", "session", "deaf", "bare", "escaped"]);
    let run = Run::spawn(tree.spec()).await.unwrap();
    let shim = run.ids().shim_pid;
    let cancel = CancellationToken::new();
    let (outcome, ()) = tokio::join!(run.wait(None, &cancel), async {
        tree.grown().await;
        sigkill(shim);
    });
    assert!(matches!(outcome, Err(RunError::ShimLost)), "{outcome:?}");
    // Orphans are reaped by somebody else now, in their own time.
    eventually("nobody lives", Duration::from_secs(5), || {
        let gone = |state: Option<char>| state.is_none_or(|state| state == 'Z');
        tree.reported().iter().all(|member| gone(member.state())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn by_a_sweep_for_an_earlier_gateway() {
    let tree = Tree::new(&["child", "session", "escaped"]);
    let run = Run::spawn(tree.spec()).await.unwrap();
    let ids = run.ids().clone();
    let cancel = CancellationToken::new();
    let (outcome, swept) = tokio::join!(run.wait(None, &cancel), async {
        tree.grown().await;
        let other = panorama_gateway::process::RunIds {
            run_id: "00000000-0000-4000-8000-000000000000".into(),
            shim_pid: ids.shim_pid,
            shim_start: ids.shim_start + 1,
        };
        assert!(sweep(other).await);
        assert!(tree.reported().iter().all(|member| member.state().is_some()), "not theirs");
        sweep(ids).await
    });
    assert!(matches!(outcome, Err(RunError::ShimLost)), "{outcome:?}");
    assert!(swept);
}

#[tokio::test]
async fn by_cancellation_of_a_shim_that_was_stopped() {
    let mut spec = bash("kill -STOP $PPID; sleep 1000");
    spec.stop = StopSequence::Shell { grace: Duration::ZERO };
    let run = match timeout(PATIENCE, Run::spawn(spec)).await.unwrap() {
        Ok(run) => run,
        // Stopped before it could say that the command runs.
        Err(RunError::ShimLost) => return,
        Err(error) => panic!("{error}"),
    };
    let shim = run.ids().clone();
    let cancel = CancellationToken::new();
    let (outcome, ()) = tokio::join!(timeout(PATIENCE, run.wait(None, &cancel)), async {
        eventually("the shim is stopped", PATIENCE, || {
            stat(shim.shim_pid).is_some_and(|(state, _)| state == 'T').then_some(())
        })
        .await;
        cancel.cancel();
    });
    assert!(matches!(outcome.unwrap(), Err(RunError::ShimLost)));
}

#[tokio::test]
async fn who_never_stays_the_same_process_is_caught() {
    for comet in ["comet", "comet-session"] {
        let tree = Tree::new(&[comet]);
        let cancel = CancellationToken::new();
        let run = Run::spawn(tree.spec()).await.unwrap();
        let (outcome, ()) = tokio::join!(run.wait(None, &cancel), async {
            tree.grown().await;
            cancel.cancel();
        });
        assert_eq!(outcome.unwrap().ended, Ended::Cancelled);
        tree.is_gone().await;
    }
}

#[tokio::test]
async fn what_grows_while_it_is_killed_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("bomb");
    // Bounded: 2^7 processes at a time, each of which starts over when one of its own ends.
    let script = format!(
        "f() {{ local n=$1; while :; do [ $n -gt 0 ] && {{ f $((n-1)) & f $((n-1)) & wait; }} \
         || exec -a {} sleep 1000; done; }}; f 6 & wait",
        name.display()
    );
    let run = Run::spawn(bash(&script)).await.unwrap();
    let count = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let named = |path: std::path::PathBuf| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(name.to_str().unwrap())
        };
        entries.filter(|entry| named(entry.path())).count()
    };
    let cancel = CancellationToken::new();
    let (outcome, ()) = tokio::join!(run.wait(None, &cancel), async {
        eventually("it has grown", PATIENCE, || (count() >= 100).then_some(())).await;
        cancel.cancel();
    });
    assert_eq!(outcome.unwrap().ended, Ended::Cancelled);
    assert_eq!(count(), 0);
}

#[tokio::test]
async fn by_the_leaders_own_exit_unless_background_is_allowed() {
    let tree = Tree::new(&[]);
    let log = tree.log();
    let script = "s() { read -r l </proc/$BASHPID/stat; f=(${l##*) }); \
                  echo \"$1 $BASHPID ${f[19]}\" >>$L; }; s leader; \
                  (s child; trap '' TERM; while :; do sleep 1; done) & \
                  while [ $(wc -l <$L) -lt 2 ]; do :; done; exit 3";
    let mut spec: RunSpec = bash(script);
    spec.env.push(("L".into(), log.into()));
    let outcome = run(spec).await.unwrap();
    assert_eq!((outcome.ended, outcome.exit), (Ended::ByItself, Exit::Code(3)));
    assert!(!outcome.left_background);
    assert_eq!(tree.reported().len(), 2);
    assert!(tree.reported().iter().all(|member| member.state().is_none()));
}

#[tokio::test]
async fn the_polite_have_the_whole_grace_and_no_more_is_waited_than_needed() {
    let mut polite = bash("trap 'sleep 0.2; echo bye; exit 7' TERM; echo up; sleep 1000 & wait");
    polite.stop = StopSequence::Shell { grace: Duration::from_secs(15) };
    let begun = Instant::now();
    let run = Run::spawn(polite).await.unwrap();
    let outcome =
        run.wait(Some(Duration::from_millis(500)), &CancellationToken::new()).await.unwrap();
    assert_eq!((outcome.ended, outcome.exit), (Ended::TimeLimit, Exit::Code(7)));
    assert_eq!(outcome.stdout.text(), "up\nbye\n");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_limit_ends_a_shell_with_its_command() {
    let begun = Instant::now();
    let run = Run::spawn(bash("sleep 60; echo went on")).await.unwrap();
    let outcome = run.wait(Some(Duration::from_secs(1)), &CancellationToken::new()).await.unwrap();
    assert_eq!((outcome.ended, outcome.exit), (Ended::TimeLimit, Exit::Signal(15)));
    assert_eq!(outcome.stdout.text(), "");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_end_of_its_own_wins_over_a_later_stop() {
    let cancel = CancellationToken::new();
    let run = Run::spawn(bash("exit 4")).await.unwrap();
    let shim = run.ids().clone();
    eventually("the shim is done", PATIENCE, || {
        stat(shim.shim_pid).is_some_and(|(state, _)| state == 'Z').then_some(())
    })
    .await;
    cancel.cancel();
    let outcome = run.wait(Some(Duration::ZERO), &cancel).await.unwrap();
    assert_eq!((outcome.ended, outcome.exit), (Ended::ByItself, Exit::Code(4)));
}

fn agent(script: &str, first: FirstSignal, grace: Duration) -> RunSpec {
    RunSpec { stop: StopSequence::Agent { first, grace }, ..bash(script) }
}

/// Runs until it has said `up`, then stops it.
async fn stopped_when_up(
    spec: RunSpec,
    up: &std::path::Path,
) -> panorama_gateway::process::Outcome {
    let mut spec = spec;
    spec.env.push(("UP".into(), up.into()));
    let cancel = CancellationToken::new();
    let run = Run::spawn(spec).await.unwrap();
    let (outcome, ()) = tokio::join!(run.wait(None, &cancel), async {
        eventually("it is up", PATIENCE, || up.exists().then_some(())).await;
        cancel.cancel();
    });
    let outcome = outcome.unwrap();
    assert_eq!(outcome.ended, Ended::Cancelled);
    outcome
}

#[tokio::test]
async fn an_agent_cleans_up_after_its_first_signal() {
    let folder = tempfile::tempdir().unwrap();
    for (first, signal) in [(FirstSignal::Interrupt, "INT"), (FirstSignal::TerminateGroup, "TERM")]
    {
        // Its command has a session of its own: only the agent knows it, or who holds the tree.
        let script = format!(
            "setsid sleep 1000 & child=$!; \
             trap 'kill $child; wait $child; echo cleaned; exit 7' {signal}; touch $UP; wait"
        );
        let begun = Instant::now();
        let agent = agent(&script, first, Duration::from_secs(30));
        let outcome = stopped_when_up(agent, &folder.path().join(signal)).await;
        assert_eq!((outcome.exit, outcome.stdout.text()), (Exit::Code(7), "cleaned\n".into()));
        assert!(begun.elapsed() < Duration::from_secs(15), "no more is waited than needed");
    }
}

#[tokio::test]
async fn an_agent_that_does_not_hear_the_first_signal_hears_sigterm_after_half_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap '' INT; trap 'echo bye; exit 8' TERM; touch $UP; sleep 1000 & wait";
    let begun = Instant::now();
    let agent = agent(script, FirstSignal::Interrupt, Duration::from_secs(2));
    let outcome = stopped_when_up(agent, &folder.path().join("up")).await;
    assert_eq!((outcome.exit, outcome.stdout.text()), (Exit::Code(8), "bye\n".into()));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_agent_that_hears_nothing_is_killed_when_the_grace_is_over() {
    let folder = tempfile::tempdir().unwrap();
    for first in [FirstSignal::Interrupt, FirstSignal::TerminateGroup] {
        let begun = Instant::now();
        let script = "trap '' INT TERM; touch $UP; while :; do sleep 1000; done";
        let agent = agent(script, first, Duration::from_millis(800));
        let up = folder.path().join(format!("{first:?}"));
        let outcome = stopped_when_up(agent, &up).await;
        assert_eq!(outcome.exit, Exit::Signal(9));
        assert!(begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn nothing_of_an_agents_tree_is_left() {
    for first in [FirstSignal::Interrupt, FirstSignal::TerminateGroup] {
        let tree = Tree::new(HARD);
        let cancel = CancellationToken::new();
        let mut spec = tree.spec();
        spec.stop = StopSequence::Agent { first, grace: Duration::from_millis(600) };
        let run = Run::spawn(spec).await.unwrap();
        let (outcome, ()) = tokio::join!(run.wait(None, &cancel), async {
            tree.grown().await;
            cancel.cancel();
        });
        assert_eq!(outcome.unwrap().ended, Ended::Cancelled);
        assert!(tree.reported().iter().all(|member| member.state().is_none()));
    }
}
