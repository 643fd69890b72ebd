//! Work that a command leaves on purpose.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use panorama_gateway::config::Environment;
use panorama_gateway::process::{Ended, Exit, RunSpec};
use tokio::time::Instant;

use super::{PATIENCE, Reported, Tree, allowing_background, bash, eventually, run, stat};

/// Leaves a writer behind that fills its stdout (and counts what it wrote in a file, and says there
/// when a write failed) until a file appears.
fn leaving_a_writer(folder: &Path) -> RunSpec {
    let script = r#"
        python3 -S -E -c '
import os, sys, time
folder = sys.argv[1]
stat = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
open(folder + "/log", "a").write("leader %d %s\n" % (os.getpid(), stat[19]))
chunk, total = b"x" * 4096, 0
while not os.path.exists(folder + "/enough"):
    try:
        total += os.write(1, chunk)
    except OSError as error:
        open(folder + "/failed", "w").write(str(error))
        sys.exit(1)
    open(folder + "/total.new", "w").write(str(total))
    os.rename(folder + "/total.new", folder + "/total")
open(folder + "/done", "w").close()
' "$F" &
        while [ ! -s "$F/log" ]; do :; done
        echo started"#;
    let mut spec = allowing_background(bash(script));
    spec.env.push(("F".into(), folder.into()));
    spec
}

fn written(folder: &Path) -> u64 {
    let text = std::fs::read_to_string(folder.join("total")).unwrap_or_default();
    text.parse().unwrap_or_default()
}

/// It goes on writing well past what a pipe holds, and ends as it wants.
async fn goes_on_and_ends(tree: &Tree, folder: &Path) {
    let before = written(folder);
    eventually("the writer goes on", PATIENCE, || {
        (written(folder) > before + 1_000_000).then_some(())
    })
    .await;
    std::fs::write(folder.join("enough"), "").unwrap();
    eventually("the writer ended by itself", PATIENCE, || {
        folder.join("done").exists().then_some(())
    })
    .await;
    assert!(!folder.join("failed").exists());
    assert_eq!(tree.reported().len(), 1);
    tree.is_gone().await;
}

#[tokio::test]
async fn it_outlives_its_run_and_may_go_on_writing() {
    let tree = Tree::new(&[]);
    let folder = tree.folder.path();
    let begun = Instant::now();
    let outcome = run(leaving_a_writer(folder)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "a flood holds the result for 2 s at most");
    assert_eq!((outcome.ended, outcome.exit), (Ended::ByItself, Exit::Code(0)));
    assert!(outcome.left_background);
    assert!(outcome.stdout.text().contains("started\n"));
    goes_on_and_ends(&tree, folder).await;
}

/// The role of the gateway in [`it_outlives_the_gateway`].
#[tokio::test]
#[ignore = "is started by another test"]
async fn plays_the_gateway() {
    let environment = Environment::of_process();
    let folder: &Path = environment.get("WORK_FOLDER").unwrap().as_ref();
    run(leaving_a_writer(folder)).await.unwrap();
    std::fs::write(folder.join("result"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn it_outlives_the_gateway() {
    let tree = Tree::new(&[]);
    let folder = tree.folder.path();
    let mut gateway = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "background::plays_the_gateway", "--ignored"])
        .env("WORK_FOLDER", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the run has its result", PATIENCE, || folder.join("result").exists().then_some(()))
        .await;
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    goes_on_and_ends(&tree, folder).await;
}

#[tokio::test]
async fn who_only_holds_the_pipes_does_not_hold_the_result() {
    let begun = Instant::now();
    let outcome = run(allowing_background(bash("sleep 60 & echo $!; echo done"))).await.unwrap();
    let took = begun.elapsed();
    let text = outcome.stdout.text();
    let pid: u32 = text.lines().next().unwrap().parse().unwrap();
    let sleeper = Reported { label: "sleep".into(), pid, start: stat(pid).unwrap().1 };
    assert!(text.ends_with("done\n"));
    assert!(outcome.left_background);
    assert!(took < Duration::from_secs(1), "{took:?}");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    eventually("its shim reaps it", PATIENCE, || sleeper.state().is_none().then_some(())).await;
}

#[tokio::test]
async fn the_shim_stays_as_long_as_the_work_and_leaves_no_zombie() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let script = "echo $PPID; (while [ ! -e \"$G\" ]; do sleep 0.01; done) >/dev/null 2>&1 &";
    let mut spec = allowing_background(bash(script));
    spec.env.push(("G".into(), gate.clone().into()));
    let outcome = run(spec).await.unwrap();
    assert!(outcome.left_background);
    let shim: u32 = outcome.stdout.text().trim().parse().unwrap();
    let (state, start) = stat(shim).unwrap();
    assert_ne!(state, 'Z');
    std::fs::write(gate, "").unwrap();
    eventually("the shim has ended and was reaped", PATIENCE, || {
        stat(shim).is_none_or(|(_, now)| now != start).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_left_is_nothing_left() {
    let outcome = run(allowing_background(bash("sleep 0 & wait; echo done"))).await.unwrap();
    assert!(!outcome.left_background);
    assert_eq!(outcome.stdout.text(), "done\n");
}
