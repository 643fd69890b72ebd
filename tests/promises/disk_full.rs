//! A full disk under the gateway's directory: a mounted tmpfs of 1 MiB, filled while jobs run.

use std::path::PathBuf;
use std::time::Duration;

use panorama_gateway::config::Environment;
use serde_json::{Value, json};

use crate::common::backend::Middleman;
use crate::common::disk::SmallDisk;
use crate::common::marks::Marks;
use crate::common::{ControlPlane, Gateway, Machine, say, wait_until};

const KIB: u32 = 1024;

/// The disk, or a note why this machine has none; no excuse where CI says that it must.
fn small_disk(machine: &Machine) -> Option<SmallDisk> {
    match SmallDisk::mount(&machine.dir(), KIB) {
        Ok(disk) => Some(disk),
        Err(why) => {
            say(&format!("SKIPPED: the tests on a full disk: {why}"));
            assert_ne!(Environment::of_process().get("CI"), Some("true"), "skipped under CI");
            None
        }
    }
}

/// A paired machine whose directory lies on the small disk, its log elsewhere.
struct Host {
    control: ControlPlane,
    middleman: Middleman,
    machine: Machine,
    gateway_id: String,
    resource_id: String,
    marks: Marks,
    log: PathBuf,
}

impl Host {
    async fn pair(machine: Machine, token_lifetime: Duration) -> Self {
        let control = ControlPlane::start_with(|options| {
            options.access_token_lifetime = token_lifetime;
            options.clock_leeway = Duration::ZERO;
        })
        .await;
        let middleman = Middleman::before(&control.url()).await;
        let code = control.code().await;
        let gateway_id = machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
        machine.allow_control().await;
        let resource_id = control.allow_shell(&gateway_id).await;
        let marks = Marks::in_dir(machine.home());
        let log = machine.home().join("gateway.log");
        Self { control, middleman, machine, gateway_id, resource_id, marks, log }
    }

    async fn start(&self) -> Gateway {
        let stderr = self.machine.home().join("stderr");
        let gateway = self.machine.spawn_logging(&self.log, &stderr);
        self.machine.is_up().await;
        gateway
    }

    /// A command that notes its name, waits for `go`, and prints 20,000 bytes and its name.
    async fn submit(&self, name: &str, go: &str) -> String {
        let go = self.machine.home().join(go);
        let command = format!(
            "{}; until [ -e {} ]; do sleep 0.02; done; head -c 20000 /dev/zero | tr '\\0' x; \
             echo {name}",
            self.marks.note(name),
            go.display()
        );
        let payload = json!({
            "command": command, "resource_id": self.resource_id, "timeout_ms": 600_000,
        });
        self.control.submit(&self.gateway_id, "shell_exec", payload).await
    }

    fn let_go(&self, go: &str) {
        std::fs::write(self.machine.home().join(go), "").unwrap();
    }

    async fn runs(&self, names: &[String]) {
        wait_until("the jobs to run", || async {
            names.iter().all(|name| self.marks.has(name)).then_some(())
        })
        .await;
    }

    /// The job is completed with all that its command wrote, and ran once.
    async fn is_whole(&self, name: &str, job: &str) {
        let row = self.control.ended(job).await;
        assert_eq!(row["status"], "completed", "{name}: {row}");
        let expected = format!("{}{name}\n", "x".repeat(20_000));
        assert_eq!(row["result"]["stdout"], expected, "{name}");
        assert_eq!(self.marks.counts().get(name), Some(&1), "{name} ran once");
    }

    /// What the gateway says of a full disk, once it does.
    async fn complaint(&self, of: &str) -> String {
        wait_until(&format!("the log to tell of {of}"), || async {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let tells = |line: &&str| line.contains(of) && line.contains("os error 28");
            log.lines().find(tells).map(str::to_owned)
        })
        .await
    }

    fn refreshes(&self) -> usize {
        self.middleman.seen().iter().filter(|seen| seen.path.ends_with("/token")).count()
    }

    fn saved_refresh_token(&self) -> Value {
        self.machine.config()["refreshToken"].clone()
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_result_is_lost_and_no_job_doubled() {
    let machine = Machine::new();
    let Some(disk) = small_disk(&machine) else { return };
    let host = Host::pair(machine, Duration::from_hours(1)).await;
    let mut gateway = host.start().await;
    let mut jobs = Vec::new();
    let running = names("running", 6);
    for name in &running {
        jobs.push((name.clone(), host.submit(name, "go").await));
    }
    host.runs(&running).await;
    say(&format!("disk full: a mounted tmpfs of {}", disk.usage()));
    let full = disk.keep_full();
    assert_eq!(full.first.raw_os_error(), Some(nix::libc::ENOSPC), "{}", full.first);
    say(&format!("disk full: filled while 6 jobs run: {}; {}", full.first, disk.usage()));

    // What runs can be reported although the journal cannot take its result.
    host.let_go("go");
    for (name, job) in &jobs {
        host.is_whole(name, job).await;
    }
    say("disk full: 6 results of 20 kB each were reported while it was full");
    // What is queued now is taken when it can be kept safe, not before.
    let queued = names("queued", 6);
    for name in &queued {
        jobs.push((name.clone(), host.submit(name, "go").await));
    }
    let line = host.complaint("").await;
    say(&format!("disk full: the gateway's log: {line}"));
    wait_until("the backend to know that the gateway cannot work", || async {
        let gateways = host.control.gateways().await;
        (gateways[0]["status"] == "error").then_some(())
    })
    .await;
    let refills = full.refills();
    drop(full);
    say(&format!("disk full: space again after {refills} refills; {}", disk.usage()));
    for (name, job) in &jobs {
        host.is_whole(name, job).await;
    }
    wait_until("the gateway to be ready again", || async {
        let gateways = host.control.gateways().await;
        (gateways[0]["status"] == "ready").then_some(())
    })
    .await;
    assert!(gateway.is_running());
    say(&format!("disk full: {} of {} jobs completed, each once", jobs.len(), jobs.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_survives_a_rotation_that_cannot_be_saved() {
    let machine = Machine::new();
    let Some(disk) = small_disk(&machine) else { return };
    let host = Host::pair(machine, Duration::from_secs(3)).await;
    let mut gateway = host.start().await;
    let before = host.refreshes();
    let full = disk.keep_full();
    assert_eq!(full.first.raw_os_error(), Some(nix::libc::ENOSPC), "{}", full.first);
    let parent = host.saved_refresh_token();
    // Whoever was half-way through saving may still have done so.
    wait_until("two rotations that were not saved", || async {
        (host.refreshes() >= before + 3).then_some(())
    })
    .await;
    let line = host.complaint("save").await;
    say(&format!("rotation on a full disk: {}; the gateway's log: {line}", full.first));
    let name = "while-full".to_owned();
    let kept = host.saved_refresh_token();
    say(&format!(
        "rotation on a full disk: {} refreshes; the saved token is {} one as when it was filled",
        host.refreshes() - before,
        if kept == parent { "the same" } else { "another" }
    ));
    drop(full);
    // Killed before the tokens are surely saved: what is on disk must do.
    gateway.kill().await;
    let mut gateway = host.start().await;
    let job = host.submit(&name, "go").await;
    host.let_go("go");
    host.is_whole(&name, &job).await;
    assert!(gateway.is_running(), "paired still");

    // And once more, with the gateway left to recover by itself.
    let full = disk.keep_full();
    let before = host.refreshes();
    wait_until("another rotation", || async { (host.refreshes() >= before + 2).then_some(()) })
        .await;
    drop(full);
    wait_until("the tokens to be saved", || async {
        let held = host.middleman.secrets();
        let saved = host.saved_refresh_token();
        let is_live = saved.as_str().is_some_and(|token| held.contains(token)) && saved != kept;
        is_live.then_some(())
    })
    .await;
    let job = host.submit("after", "go").await;
    host.is_whole("after", &job).await;
    assert!(gateway.is_running());
    say("rotation on a full disk: the gateway came up and recovered without pairing again");
}
