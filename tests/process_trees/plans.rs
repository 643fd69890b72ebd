//! Plans of agent CLIs, carried out with shell scripts in the place of the CLI.

use std::path::PathBuf;
use std::time::Duration;

use panorama_gateway::config::Environment;
use panorama_gateway::process::{Ended, Exit, FirstSignal, set_shim_binary};
use panorama_gateway::providers::{
    OUTPUT_LIMIT, OutputMode, Place, Plan, PlanFile, PlanRun, PlanRunError, RefusedFile, run_plan,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, eventually, stat};

/// A gateway's state dir, and the environment of who started it.
struct Home {
    dir: tempfile::TempDir,
    environment: Environment,
}

impl Home {
    fn new() -> Self {
        set_shim_binary(env!("CARGO_BIN_EXE_panorama-gateway"));
        let dir = tempfile::tempdir().unwrap();
        let pairs = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("SUPABASE_URL", "gateways-own")];
        Self { dir, environment: Environment::from_pairs(pairs) }
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work/model")
    }

    async fn run(&self, plan: &Plan, cancel: &CancellationToken) -> Result<PlanRun, PlanRunError> {
        let place = Place {
            work: self.work(),
            environment: &self.environment,
            umask: 0o022,
            guest: None,
            grace: Duration::from_millis(600),
        };
        let run = run_plan(&place, "job", plan, cancel, async |_| ());
        timeout(PATIENCE, run).await.unwrap()
    }

    /// To the end; nothing is left on disk.
    async fn ran(&self, plan: &Plan) -> PlanRun {
        let ran = self.run(plan, &CancellationToken::new()).await.unwrap();
        assert!(!self.dir.path().join("work").exists(), "the work dir is removed");
        ran
    }
}

fn plan(script: &str) -> Plan {
    Plan {
        program: "/bin/bash".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: Vec::new(),
        files: Vec::new(),
        stdin: "the prompt".to_owned(),
        output: OutputMode::Stdout,
        time_limit: PATIENCE,
        stop: FirstSignal::Interrupt,
    }
}

fn with_file(script: &str) -> Plan {
    Plan { output: OutputMode::File("output.json".to_owned()), ..plan(script) }
}

#[tokio::test]
async fn a_cli_has_its_prompt_its_files_and_an_environment_of_its_own() {
    let home = Home::new();
    let file = PlanFile { path: "deep/settings.json".to_owned(), contents: "{}".to_owned() };
    let script = "cat; echo; find . | sort; stat -c %a . deep deep/settings.json; \
                  echo $TERM $SUPABASE_URL; [ $TMPDIR = $PWD/.tmp ] && echo own; umask; \
                  echo bad >&2; exit 3";
    let plan = Plan {
        env: vec![("TERM".to_owned(), "xterm-256color".to_owned())],
        files: vec![file],
        ..plan(script)
    };
    let ran = home.ran(&plan).await;
    assert_eq!(
        ran.left.stdout,
        "the prompt\n.\n./.tmp\n./deep\n./deep/settings.json\n700\n700\n600\nxterm-256color\nown\n\
         0022\n"
    );
    assert_eq!((ran.left.stderr.as_str(), ran.left.exit), ("bad\n", Exit::Code(3)));
    assert_eq!((ran.left.ended, ran.left.file.as_deref()), (Ended::ByItself, None));
    assert_eq!((ran.stderr_bytes, ran.stderr_truncated), (4, false));
}

#[tokio::test]
async fn the_output_file_is_read_and_a_missing_one_is_none() {
    let home = Home::new();
    let ran = home.ran(&with_file("echo '{\"n\": 1}' > output.json")).await;
    assert_eq!((ran.left.file.as_deref(), ran.refused_file), (Some("{\"n\": 1}\n"), None));
    let ran = home.ran(&with_file("true")).await;
    assert_eq!((ran.left.file, ran.refused_file), (None, None));
    let ran = home.ran(&with_file("printf 'a\\xffb' > output.json")).await;
    assert_eq!(ran.left.file.as_deref(), Some("a\u{fffd}b"));
}

#[tokio::test]
async fn an_output_file_that_is_something_else_is_refused_at_once() {
    let home = Home::new();
    for (script, reason) in [
        ("ln -s /etc/passwd output.json", "a symbolic link"),
        ("ln -s $PWD/nothing output.json", "a symbolic link"),
        ("mkfifo output.json", "a named pipe"),
        ("mkdir output.json", "a directory"),
        ("ln -s /dev/zero output.json", "a symbolic link"),
    ] {
        let ran = home.ran(&with_file(script)).await;
        let Some(RefusedFile::Unusable(why)) = ran.refused_file else {
            panic!("{script}: {:?} {:?}", ran.refused_file, ran.left)
        };
        assert!(why.contains(reason), "{script}: {why}");
        assert_eq!(ran.left.file, None, "{script}");
    }
    for script in ["truncate -s 1T output.json", "head -c 5000001 /dev/zero > output.json"] {
        let ran = home.ran(&with_file(script)).await;
        assert_eq!(ran.refused_file, Some(RefusedFile::TooLarge), "{script}");
    }
    let ran = home.ran(&with_file("head -c 5000000 /dev/zero > output.json")).await;
    assert_eq!(ran.left.file.map(|text| text.len()), Some(OUTPUT_LIMIT));
}

#[tokio::test]
async fn a_gigabyte_of_output_is_counted_and_dropped() {
    let home = Home::new();
    let ran = home.ran(&plan("head -c 1000000000 /dev/zero | tr '\\0' x")).await;
    assert_eq!((ran.left.stdout.len(), ran.left.stdout_truncated), (OUTPUT_LIMIT, true));
    assert_eq!((ran.stdout_bytes, ran.left.exit), (1_000_000_000, Exit::Code(0)));
}

#[tokio::test]
async fn a_cli_that_never_ends_is_stopped_with_all_that_it_started() {
    let home = Home::new();
    let pids = home.dir.path().join("pids");
    let script = format!(
        "trap '' INT TERM; setsid bash -c 'trap \"\" TERM INT; echo $$ >> {0}; sleep 1000' & \
         echo $$ >> {0}; while :; do sleep 1000; done",
        pids.display()
    );
    let ran = home.ran(&Plan { time_limit: Duration::from_secs(1), ..plan(&script) }).await;
    assert_eq!((ran.left.ended, ran.left.exit), (Ended::TimeLimit, Exit::Signal(9)));
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2, "{pids}");
    assert!(pids.lines().all(|pid| stat(pid.parse().unwrap()).is_none()), "{pids}");
}

#[tokio::test]
async fn a_cli_that_forks_and_leaves_leaves_nobody() {
    let home = Home::new();
    let pid = home.dir.path().join("pid");
    let script = format!("(setsid sleep 1000 & echo $! > {}) ; echo answer", pid.display());
    let ran = home.ran(&plan(&script)).await;
    assert_eq!((ran.left.stdout.as_str(), ran.left.exit), ("answer\n", Exit::Code(0)));
    let pid = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    assert!(stat(pid).is_none(), "{pid}");
}

#[tokio::test]
async fn a_cancelled_run_and_a_dropped_one_leave_no_work_dir() {
    let home = Home::new();
    let up = home.work().join("job/up");
    let plan = plan("touch up; sleep 1000 & wait");
    let cancel = CancellationToken::new();
    let (ran, ()) = tokio::join!(home.run(&plan, &cancel), async {
        eventually("it is up", PATIENCE, || up.exists().then_some(())).await;
        cancel.cancel();
    });
    assert_eq!(ran.unwrap().left.ended, Ended::Cancelled);
    assert!(!up.exists());
    let never = CancellationToken::new();
    tokio::select! {
        ran = home.run(&plan, &never) => panic!("{ran:?}"),
        () = eventually("it is up", PATIENCE, || up.exists().then_some(())) => {}
    }
    assert!(!home.dir.path().join("work").exists());
}

#[tokio::test]
async fn what_cannot_be_started_says_so_and_leaves_nothing() {
    let home = Home::new();
    let missing = Plan { program: "/nowhere/claude".into(), ..plan("") };
    let error = home.run(&missing, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "could not start /nowhere/claude");
    let long = plan(&"x".repeat(200_000));
    assert!(home.run(&long, &CancellationToken::new()).await.is_err());
    assert!(!home.dir.path().join("work").exists());
}
