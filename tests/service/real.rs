//! The real systemd, as the service manager of a user in a pid namespace and cgroups of its own.
//!
//! Needs root, `unshare`, a kernel with cgroup v2, and systemd. Without them it is skipped, unless
//! `PANORAMA_REAL_SYSTEMD=1` asks for it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use panorama_gateway::config::Environment;
use serde_json::json;

use crate::common::{BINARY, ControlPlane, Machine, Ran, say, wait_until};

const SYSTEMD: &str = "/lib/systemd/systemd";
const UNIT: &str = "panorama-gateway.service";

/// The namespace's first process; ends with the manager and takes everything along.
const BOOT: &str = r#"
set -e
mount -t proc proc /proc
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "/sys/fs/cgroup/$GROUP/user"
sh -c 'echo $$ >"/sys/fs/cgroup/$GROUP/user/cgroup.procs"; exec "$0" --user' "$1" || true
group="/sys/fs/cgroup/$GROUP"
echo 1 >"$group/cgroup.kill"
# What was killed is there until it is reaped, and this is its parent.
for try in 1 2 3 4 5 6 7 8 9; do
  find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
  sleep 0.1
done
"#;

/// Why it cannot run here.
fn obstacle() -> Option<&'static str> {
    let unshare = || Command::new("unshare").args(["-m", "-p", "-f", "true"]).output();
    if !nix::unistd::getuid().is_root() {
        Some("needs root")
    } else if !Path::new(SYSTEMD).exists() {
        Some("needs systemd")
    } else if !std::fs::read_to_string("/proc/filesystems").unwrap().contains("cgroup2") {
        Some("needs cgroup v2")
    } else if !unshare().is_ok_and(|output| output.status.success()) {
        Some("needs namespaces")
    } else {
        None
    }
}

/// A machine with a user's service manager.
struct Booted {
    machine: Machine,
    systemd: Child,
}

impl Booted {
    async fn boot() -> Self {
        let machine = Machine::new();
        let runtime = machine.home().join("run");
        std::fs::create_dir(&runtime).unwrap();
        let mut unshare = Command::new("unshare");
        unshare
            .args(["-m", "-p", "-f", "--kill-child", "sh", "-c", BOOT, "sh", SYSTEMD])
            .env_clear()
            .env("HOME", machine.home())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("GROUP", format!("panorama-test-{}", std::process::id()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let systemd = unshare.spawn().unwrap();
        let booted = Self { machine, systemd };
        wait_until("systemd to answer", || async {
            (booted.systemctl(&["is-system-running"]).stdout.trim() == "running").then_some(())
        })
        .await;
        booted
    }

    /// Runs a program where the manager is: it hears nobody whose pid it cannot see.
    fn inside(&self, program: &str, words: &[&str]) -> Ran {
        let children = format!("/proc/{0}/task/{0}/children", self.systemd.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let Some(first) = children.split_whitespace().next() else {
            return Ran { code: -1, stdout: String::new(), stderr: "not there".to_owned() };
        };
        let output = Command::new("nsenter")
            .args(["--target", first, "-m", "-p", program])
            .args(words)
            .env_clear()
            .env("HOME", self.machine.home())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", self.machine.home().join("run"))
            .stdin(Stdio::null())
            .output();
        Ran::of(&output.unwrap())
    }

    fn systemctl(&self, words: &[&str]) -> Ran {
        self.inside("systemctl", &[&["--user"], words].concat())
    }

    fn property(&self, name: &str) -> String {
        let property = format!("--property={name}");
        self.systemctl(&["show", &property, "--value", UNIT]).stdout.trim().to_owned()
    }

    async fn has(&self, name: &str, value: &str) {
        wait_until(&format!("{name}={value}"), || async {
            (self.property(name) == value).then_some(())
        })
        .await;
    }

    /// Short limits, as no user has them, and a quick second start.
    fn hurry(&self) {
        let dir = self.machine.home().join(format!(".config/systemd/user/{UNIT}.d"));
        std::fs::create_dir_all(&dir).unwrap();
        let limits =
            "[Service]\nRestartSec=100ms\nWatchdogSec=4\nTimeoutStopSec=2\nTimeoutAbortSec=2\n";
        std::fs::write(dir.join("test.conf"), limits).unwrap();
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if self.systemctl(&["exit"]).code != 0 {
            let _ = self.systemd.kill();
        }
        let _ = self.systemd.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_service() {
    if let Some(why) = obstacle() {
        say(&format!("service: skipped: the real systemd {why}"));
        let environment = Environment::of_process();
        assert_eq!(environment.get("PANORAMA_REAL_SYSTEMD"), None, "the real systemd {why}");
        return;
    }
    let control = ControlPlane::start().await;
    let booted = Booted::boot().await;
    let machine = &booted.machine;
    let gateway_id = machine.pair(&control).await;
    machine.allow_control().await;
    let resource_id = control.allow_shell(&gateway_id).await;
    booted.hurry();
    let ran = booted.inside(BINARY, &["service", "install", "--device-name", "%n $x \\ \"q\""]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(booted.property("ActiveState"), "active");
    assert_eq!(booted.property("StatusText"), "Up, no jobs in hand");
    assert_eq!(control.gateways().await[0]["device_name"], "%n $x \\ \"q\"");
    let submit = |command: String| {
        let payload = json!({"command": command, "resource_id": resource_id});
        control.submit(&gateway_id, "shell_exec", payload)
    };
    let home = machine.home().display().to_string();

    // Killed: the work in hand dies with it and is told, what was left on purpose lives.
    let beat = "while :; do date +%s%N; sleep 0.05; done";
    let left = format!("({beat}) >{home}/left 2>&1 &");
    let job = submit(left).await;
    assert_eq!(control.ended(&job).await["status"], "completed");
    let job = submit(format!("exec >{home}/held; {beat}")).await;
    grows(&machine.home().join("held")).await;
    booted.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT]);
    booted.has("NRestarts", "1").await;
    booted.has("StatusText", "Up, no jobs in hand").await;
    assert_eq!(control.ended(&job).await["status"], "failed");
    grows(&machine.home().join("left")).await;

    // Frozen: ended by the watchdog.
    booted.systemctl(&["kill", "--kill-whom=main", "--signal=STOP", UNIT]);
    booted.has("NRestarts", "2").await;
    booted.has("ActiveState", "active").await;

    // Stopped: the job is finished, though it takes longer than the limit of the unit.
    let job = submit(format!("touch {home}/began; sleep 6")).await;
    wait_until("the job", || async { machine.home().join("began").exists().then_some(()) }).await;
    assert_eq!(booted.systemctl(&["stop", UNIT]).code, 0);
    assert_eq!(control.ended(&job).await["status"], "completed");
    assert_eq!(booted.property("Result"), "success");
    grows(&machine.home().join("left")).await;

    // No longer paired: not started again.
    assert_eq!(booted.systemctl(&["start", UNIT]).code, 0);
    let paired = std::fs::read(machine.config_file()).unwrap();
    let mut config = machine.config();
    config.as_object_mut().unwrap().remove("gatewayId");
    std::fs::write(machine.config_file(), config.to_string()).unwrap();
    booted.has("ActiveState", "failed").await;
    assert_eq!(booted.property("ExecMainStatus"), "4");

    std::fs::write(machine.config_file(), paired).unwrap();
    assert_eq!(booted.systemctl(&["start", UNIT]).code, 0);
    let ran = booted.inside(BINARY, &["service", "uninstall"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(booted.property("LoadState"), "not-found");
    assert_eq!(control.gateways().await[0]["status"], "offline");
}

async fn grows(file: &Path) {
    let length = || std::fs::metadata(file).map_or(0, |meta| meta.len());
    let before = length();
    wait_until(&format!("{} to grow", file.display()), || async {
        (length() > before).then_some(())
    })
    .await;
}
