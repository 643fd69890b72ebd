//! The story of two terminals: `sandbox up --drive-sync` in one, a person in the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::common::{Gateway, Machine, Ran, wait_until};

/// Terminal 1, and the home that both share.
struct Terminals {
    machine: Machine,
    server: Option<Gateway>,
}

impl Terminals {
    fn new() -> Self {
        let machine = Machine::new()
            .with("PANORAMA_DRIVE_SYNC_DEBOUNCE_MS", "100")
            .with("PANORAMA_DRIVE_SYNC_POLL_INTERVAL_MS", "300");
        Self { machine, server: None }
    }

    /// Terminal 1 runs this until it is interrupted.
    fn run_in_first(&mut self, args: &[&str]) {
        let mut command = self.machine.command(args);
        self.server = Some(Gateway::silent(&mut command));
    }

    async fn up(&mut self, entries: u64) {
        self.run_in_first(&["sandbox", "up", "--listen", "127.0.0.1:0", "--drive-sync", "drives"]);
        self.says_up_to_date(entries).await;
    }

    /// Ctrl-C in terminal 1.
    async fn interrupt(&mut self) {
        let mut server = self.server.take().unwrap();
        server.signal(Signal::SIGINT);
        assert!(server.ended().await.success());
    }

    /// A command in terminal 2.
    async fn second(&self, args: &[&str]) -> Ran {
        self.machine.run_async(args).await
    }

    async fn status(&self, more: &[&str]) -> Ran {
        let state = self.machine.dir().join("sandbox/gateway/drive-sync");
        let mut args = vec!["drive-sync", "status", "--state-dir", state.to_str().unwrap()];
        args.extend(more);
        self.second(&args).await
    }

    /// Until the status says what it says of a drive that is well, has so many entries, and is kept
    /// by this process: what is told may be half a second old.
    async fn says_up_to_date(&mut self, entries: u64) -> String {
        let pid = u64::try_from(self.server.as_ref().unwrap().pid()).unwrap();
        wait_until("the drive to be up to date", || async {
            let told = self.status(&["--json"]).await;
            let report: serde_json::Value = serde_json::from_str(&told.stdout).ok()?;
            let drive = &report["drives"][0];
            let well = report["pid"] == pid
                && drive["state"] == "up_to_date"
                && drive["entries"] == entries;
            if well { Some(self.status(&[]).await.stdout) } else { None }
        })
        .await
    }

    fn at(&self, name: &str) -> PathBuf {
        self.machine.home().join("drives/team").join(name)
    }

    /// Puts a text to the server, as a file of this name.
    async fn put(&self, name: &str, text: &str) {
        let file = self.machine.home().join("upload");
        fs::write(&file, text).unwrap();
        let put = self.second(&["sandbox", "drive", "put", file.to_str().unwrap(), name]).await;
        assert_eq!(put.code, 0, "{put:?}");
    }

    /// What the server has under this name.
    async fn got(&self, name: &str) -> Option<String> {
        let got = self.second(&["sandbox", "drive", "get", name, "-"]).await;
        (got.code == 0).then_some(got.stdout)
    }

    async fn server_has(&self, name: &str, text: &str) {
        let what = format!("the server to have {text:?} at {name}");
        wait_until(&what, || async { (self.got(name).await? == text).then_some(()) }).await;
    }

    async fn folder_has(&self, name: &str, text: &str) {
        let file = self.at(name);
        let what = format!("the folder to have {text:?} at {name}");
        wait_until(&what, || async { (fs::read_to_string(&file).ok()? == text).then_some(()) })
            .await;
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("")).unwrap().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".panorama-sync");
        names.sort();
        names
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_go_both_ways_and_a_conflict_is_shown_until_it_is_settled() {
    let mut terminals = Terminals::new();
    terminals.up(0).await;

    fs::write(terminals.at("plan.txt"), "draft").unwrap();
    terminals.server_has("plan.txt", "draft").await;
    terminals.put("report.txt", "numbers").await;
    terminals.folder_has("report.txt", "numbers").await;
    let folder = terminals.at("");
    let well = format!("Team  up to date: 2 entries in {}\n", without_slash(&folder));
    assert_eq!(terminals.says_up_to_date(2).await, well);

    // Nobody mirrors while both sides write.
    terminals.interrupt().await;
    let stopped = terminals.status(&[]).await;
    assert_eq!(stopped.code, 1);
    assert!(stopped.stdout.starts_with("problem: drive sync does not run\n"), "{stopped:?}");
    fs::write(terminals.at("plan.txt"), "mine").unwrap();
    terminals.run_in_first(&["sandbox", "serve", "--listen", "127.0.0.1:0"]);
    wait_until("the server", || async { terminals.got("plan.txt").await }).await;
    terminals.put("plan.txt", "theirs").await;
    terminals.interrupt().await;

    terminals.up(3).await;
    terminals.folder_has("plan.txt", "theirs").await;
    let copy = wait_until("the copy", || async {
        terminals.names().into_iter().find(|name| name.starts_with("plan (conflict "))
    })
    .await;
    terminals.folder_has(&copy, "mine").await;
    terminals.server_has(&copy, "mine").await;
    let status = terminals.says_up_to_date(3).await;
    assert!(status.contains("  conflicts    1 copy; `drive-sync conflicts` lists"), "{status}");

    // It is still known after a restart, and until it is settled.
    terminals.interrupt().await;
    terminals.up(3).await;
    let status = terminals.status(&[]).await.stdout;
    assert!(status.contains("  conflicts    1 copy"), "{status}");
    fs::rename(terminals.at(&copy), terminals.at("plan.txt")).unwrap();
    terminals.server_has("plan.txt", "mine").await;
    terminals.interrupt().await;
    terminals.up(2).await;
    let status = terminals.says_up_to_date(2).await;
    assert_eq!(status, well);
    assert_eq!(terminals.names(), ["plan.txt", "report.txt"]);
    terminals.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_killed_is_not_taken_for_one_that_is_well() {
    let mut terminals = Terminals::new();
    terminals.up(0).await;
    terminals.server.take().unwrap().kill().await;
    let status = terminals.status(&[]).await;
    assert_eq!(status.code, 1, "{status:?}");
    assert!(
        status.stdout.starts_with("problem: drive sync does not run; this is how"),
        "{status:?}"
    );
    assert!(status.stdout.contains("\nTeam  stopped (last up to date "), "{status:?}");
}

/// Each report that was written on the way is read, as `--watch` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_is_seen_to_move() {
    let mut terminals = Terminals::new();
    let folder = terminals.at("");
    fs::create_dir_all(&folder).unwrap();
    for number in 0..5000 {
        fs::write(folder.join(format!("f{number}")), format!("{number}")).unwrap();
    }
    let args = ["sandbox", "up", "--listen", "127.0.0.1:0", "--drive-sync", "drives"];
    terminals.run_in_first(&args);
    let state = terminals.machine.dir().join("sandbox/gateway/drive-sync");
    let mut seen = std::collections::BTreeSet::new();
    wait_until("the first copy to be done", || {
        let drive = panorama_gateway::drive_sync::keeper::report::Report::read(&state)
            .ok()
            .flatten()
            .and_then(|mut report| report.drives.pop());
        let copy = drive.as_ref().and_then(|drive| drive.first_copy);
        seen.extend(copy.filter(|copy| copy.files == 5000).map(|copy| copy.files_done));
        let done = drive.is_some_and(|drive| drive.first_copy.is_none() && drive.entries == 5000);
        async move { done.then_some(()) }
    })
    .await;
    assert!(seen.len() > 2, "it stood still: {seen:?}");
    terminals.interrupt().await;
}

/// `--watch` is for terminals.
#[test]
fn a_program_is_told_not_to_watch() {
    let machine = Machine::new();
    let mut command: Command = machine.command(&["drive-sync", "status", "--watch"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let ran = Ran::of(&output);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("for people at a terminal"), "{ran:?}");
}

fn without_slash(path: &Path) -> String {
    path.display().to_string().trim_end_matches('/').to_owned()
}
