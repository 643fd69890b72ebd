//! A network that goes and comes back: the real binary in a network of its own (a namespace) whose
//! link to the control plane is taken down and up. What recovery takes is printed.
//!
//! Needs root on Linux; elsewhere it says that it skips, which is a failure where `CI=true`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it measures real time"
)]

#[path = "common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use common::{ControlPlane, Gateway, Machine, Paired, wait_until};

/// The server's end and the gateway's end of the link.
const SERVER: &str = "198.18.77.1";
const GATEWAY: &str = "198.18.77.2";
/// After the link is up again. Beyond 5 s: two hops on a loaded machine.
const BACK_WITHIN: Duration = Duration::from_secs(6);
/// Says to this binary that it is in its own network already.
const INSIDE: &str = "inside";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    if args.first().is_some_and(|arg| arg == INSIDE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(stories());
    }
    let listed = args.iter().any(|arg| arg == "--list");
    let meant =
        filters.is_empty() || filters.iter().any(|one| "network_back".contains(one.as_str()));
    if listed || !meant {
        return;
    }
    if let Err(missing) = possible() {
        println!("network back: skipped: {missing}");
        let ci = panorama_gateway::config::Environment::of_process();
        assert_ne!(ci.get("CI"), Some("true"), "this must not be skipped here: {missing}");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let status = Command::new("unshare").args(["--net", "--"]).arg(own).arg(INSIDE).status();
    assert!(status.unwrap().success(), "the stories inside failed");
}

/// What it takes is here.
fn possible() -> Result<(), String> {
    let made = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|error| format!("{program}: {error}"))
    };
    made("ip", &["-V"])?;
    made("nsenter", &["--version"])?;
    let unshared = made("unshare", &["--net", "ip", "link", "set", "lo", "up"])?;
    if unshared.success() { Ok(()) } else { Err("no network namespace can be made".to_owned()) }
}

fn ip(args: &str) {
    let ran = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(ran.status.success(), "ip {args}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Which end of the link goes down.
#[derive(Debug, Clone, Copy)]
enum End {
    /// There is no way to the server any more, which the gateway is told at once.
    Gateway,
    /// What is sent is lost silently at first.
    Server,
}

/// A network of its own, for as long as this lives.
struct Network {
    holder: Child,
}

impl Network {
    /// Joined to ours by a link.
    async fn new() -> Self {
        let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().unwrap();
        let net = format!("/proc/{}/ns/net", holder.id());
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        wait_until("the other network", || {
            let theirs = std::fs::read_link(&net).ok();
            let is_other = theirs.is_some_and(|theirs| theirs != ours);
            async move { is_other.then_some(()) }
        })
        .await;
        let network = Self { holder };
        ip("link set lo up");
        ip("link add server type veth peer name gateway");
        ip(&format!("link set gateway netns {}", network.holder.id()));
        ip(&format!("addr add {SERVER}/30 dev server"));
        ip("link set server up");
        network.inside(&["ip", "link", "set", "lo", "up"]);
        network.inside(&["ip", "addr", "add", &format!("{GATEWAY}/30"), "dev", "gateway"]);
        network.inside(&["ip", "link", "set", "gateway", "up"]);
        network
    }

    fn inside(&self, command: &[&str]) {
        let ran = self.enter().args(command).output().unwrap();
        assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn turn(&self, end: End, state: &str) {
        match end {
            End::Gateway => self.inside(&["ip", "link", "set", "gateway", state]),
            End::Server => ip(&format!("link set server {state}")),
        }
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--");
        command
    }

    /// The machine's gateway, in this network.
    fn spawn(&self, machine: &Machine) -> Gateway {
        let start = machine.command(&["start", "--foreground"]);
        let mut command = self.enter();
        command.arg(start.get_program()).args(start.get_args()).env_clear();
        command.envs(start.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Gateway::silent(command.current_dir(machine.home()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

async fn stories() {
    let network = Network::new().await;
    let listen: SocketAddr = format!("{SERVER}:0").parse().unwrap();
    let control = ControlPlane::start_with(|options| {
        options.listen = listen;
        options.allow_remote = true;
    })
    .await;
    let machine = Machine::new().with("PANORAMA_ALLOW_INSECURE_BACKEND", "1");
    // From this side of the link: pairing is no part of the story.
    let gateway_id = machine.pair(&control).await;
    machine.allow_control().await;
    let resource_id = control.allow_shell(&gateway_id).await;
    let gateway = network.spawn(&machine);
    machine.is_up().await;
    let paired = Paired { machine, gateway, gateway_id, resource_id };
    realtime_is_ready(&paired).await;
    for (end, seconds) in [
        (End::Gateway, 3),
        (End::Server, 5),
        (End::Gateway, 8),
        (End::Server, 12),
        (End::Gateway, 20),
        (End::Server, 40),
    ] {
        away(&network, &control, &paired, end, Duration::from_secs(seconds)).await;
    }
}

async fn away(
    network: &Network,
    control: &ControlPlane,
    paired: &Paired,
    end: End,
    time: Duration,
) {
    let what = format!("{end:?} down for {} s", time.as_secs());
    let waiting = paired.submit_shell(control, "sleep 1; echo late", serde_json::json!({})).await;
    claimed(control, &waiting, PATIENCE).await;
    network.turn(end, "down");
    tokio::time::sleep(time).await;
    assert_eq!(control.admin.job(&waiting).await.unwrap()["status"], "running");
    let job = paired.submit_shell(control, "echo back", serde_json::json!({})).await;
    let since = Instant::now();
    network.turn(end, "up");
    claimed(control, &job, BACK_WITHIN).await;
    let new = since.elapsed();
    assert_eq!(control.ended(&waiting).await["result"]["stdout"], "late\n");
    let late = since.elapsed();
    assert_eq!(control.ended(&job).await["status"], "completed");
    realtime_is_ready(paired).await;
    println!(
        "network back: {what}: a new job claimed after {:.2} s, the waiting result there after \
         {:.2} s, realtime ready after {:.2} s",
        new.as_secs_f64(),
        late.as_secs_f64(),
        since.elapsed().as_secs_f64()
    );
    assert!(late <= BACK_WITHIN, "{what}: the waiting result took {late:?}");
}

const PATIENCE: Duration = Duration::from_mins(1);

async fn claimed(control: &ControlPlane, job: &str, limit: Duration) {
    let since = Instant::now();
    loop {
        if control.admin.job(job).await.unwrap()["status"] != "queued" {
            return;
        }
        assert!(since.elapsed() <= limit, "a job is not claimed within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn realtime_is_ready(paired: &Paired) -> Value {
    wait_until("realtime", || async {
        let status = paired.machine.status().await?;
        (status["realtime"]["state"] == "ready").then_some(status)
    })
    .await
}
