//! A machine with an installed gateway, and what is asked of it again and again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::versions;
use crate::common::backend::Middleman;
use crate::common::{ControlPlane, Machine, ProcessName, say, wait_until};

/// Two waits of the gateway's own (a minute each) and some time for a loaded machine.
const LONG: Duration = Duration::from_mins(4);

pub(crate) struct Scene {
    pub(crate) control: ControlPlane,
    pub(crate) middleman: Middleman,
    pub(crate) machine: Machine,
    pub(crate) gateway_id: String,
    resource_id: String,
    /// What is installed, as it is called.
    pub(crate) program: PathBuf,
    child: Option<Child>,
}

impl Scene {
    /// A paired machine whose gateway runs in the foreground.
    pub(crate) async fn start() -> Self {
        let mut scene = Self::installed(Machine::new(), ControlPlane::start().await).await;
        scene.start_in_foreground().await;
        scene
    }

    /// A paired machine with a gateway that does not run yet.
    pub(crate) async fn installed(machine: Machine, control: ControlPlane) -> Self {
        let machine = machine.with("PANORAMA_GATEWAY_RESTART_CHECK_MS", "1000");
        let middleman = Middleman::before(&control.url()).await;
        let code = control.code().await;
        let gateway_id = machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
        machine.allow_control().await;
        let resource_id = control.allow_shell(&gateway_id).await;
        let program = machine.home().join("bin/panorama-gateway");
        std::fs::create_dir(program.parent().unwrap()).unwrap();
        versions::put(&versions::ours(), &program);
        Self { control, middleman, machine, gateway_id, resource_id, program, child: None }
    }

    /// The installed program with the machine's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let like = self.machine.command(&[]);
        let mut command = Command::new(&self.program);
        command.args(args).env_clear().current_dir(self.machine.home()).stdin(Stdio::null());
        for (name, value) in like.get_envs() {
            command.env(name, value.unwrap());
        }
        command
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.machine.home().join("stderr.log")).unwrap_or_default()
    }

    /// Starts the gateway, and waits until it is up.
    pub(crate) async fn start_in_foreground(&mut self) -> Value {
        let log = self.machine.home().join("stderr.log");
        let stderr = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.command(&["start", "--foreground"]);
        command.stdout(Stdio::null()).stderr(stderr);
        self.child = Some(versions::unless_busy(|| command.spawn()).unwrap());
        self.machine.is_up().await
    }

    /// The same as a service manager does that listens on this socket.
    pub(crate) async fn start_as_service(&mut self, notify: &Path) -> Value {
        let log = self.machine.home().join("stderr.log");
        let stderr = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let like = self.command(&[]);
        // `exec` keeps the pid.
        let script = "export SYSTEMD_EXEC_PID=$$ WATCHDOG_PID=$$; exec \"$0\" start --foreground";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(&self.program).env_clear();
        command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", "2000000");
        command.current_dir(self.machine.home()).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.stderr(stderr).spawn().unwrap());
        self.machine.is_up().await
    }

    /// The process that was started first.
    pub(crate) fn first_pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    /// How the process that was started first ended.
    pub(crate) async fn first_ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        wait_until("the first process to end", || {
            let ended = child.try_wait().unwrap();
            async move { ended }
        })
        .await
    }

    pub(crate) fn first_is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Installs a file over the one that is there, by a rename.
    pub(crate) fn install(&self, file: &Path) {
        versions::put(file, &self.program);
    }

    /// Waits for what the status says.
    pub(crate) async fn status_is(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LONG;
        let mut last = None;
        loop {
            if let Some(status) = self.machine.status().await {
                if is(&status) {
                    return status;
                }
                last = Some(status);
            }
            let log = || self.log();
            assert!(Instant::now() < deadline, "in vain: {what}: {last:?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn version_is_up(&self, version: &str) -> Value {
        self.status_is(version, |status| status["version"] == version && status["phase"] == "up")
            .await
    }

    pub(crate) async fn upgrade_failed(&self) -> Value {
        let failed = |status: &Value| {
            status["upgrade"]["last_failed"].is_object() && status["phase"] == "up"
        };
        self.status_is("the upgrade to fail", failed).await["upgrade"]["last_failed"].clone()
    }

    pub(crate) async fn submit(&self, command: &str) -> String {
        let payload = json!({"command": command, "resource_id": self.resource_id});
        self.control.submit(&self.gateway_id, "shell_exec", payload).await
    }

    /// Runs a command as a job; its stdout.
    pub(crate) async fn run(&self, command: &str) -> String {
        let job = self.submit(command).await;
        let row = self.control.ended(&job).await;
        assert_eq!(row["status"], "completed", "{row}\n{}", self.log());
        row["result"]["stdout"].as_str().unwrap().to_owned()
    }

    /// The pid of the gateway that runs a command: the parent of its shell's supervisor.
    pub(crate) async fn who_runs(&self) -> i32 {
        self.run(GATEWAY_OF_JOB).await.trim().parse().unwrap()
    }

    /// The events of this kind.
    pub(crate) async fn events(&self, code: &str) -> Vec<Value> {
        let events = self.control.admin.events(None).await.unwrap();
        events.into_iter().filter(|event| event["code"] == code).collect()
    }

    /// Every process that was started from the installed path.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let program = self.program.as_os_str().as_encoded_bytes();
            if line.split(|byte| *byte == 0).next() == Some(program)
                && ProcessName::of(pid).is_some()
            {
                found.push(pid);
            }
        }
        found
    }

    /// Waits until only so many processes of the installed program are there.
    pub(crate) async fn processes_are(&self, count: usize) {
        wait_until("the other processes to end", || async {
            (self.processes().len() == count).then_some(())
        })
        .await;
    }
}

/// Says the pid of the gateway; the shell's parent is the shim.
pub(crate) const GATEWAY_OF_JOB: &str = "cut -d' ' -f4 /proc/$PPID/stat";

pub(crate) fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&self.log());
        }
        for pid in self.processes() {
            kill(pid);
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
