//! What the stories share: a control plane, machines with a home of their own, gateways on them.
//!
//! Everything real: the binary under test as a process, the control plane over HTTP on loopback.

pub(crate) mod agents;
pub(crate) mod backend;
pub(crate) mod disk;
pub(crate) mod marks;
pub(crate) mod tree;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use panorama_gateway::sandbox::client::{AdminClient, NewJob, NewResource};
use panorama_gateway::sandbox::{Server, ServerOptions};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_panorama-gateway");

/// Prints past the test harness, which shows nothing of a test that passes.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A number from the environment of the test.
pub(crate) fn setting(name: &str) -> Option<u64> {
    let environment = panorama_gateway::config::Environment::of_process();
    environment.get(name).map(|text| text.parse().expect(name))
}

/// Far longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again and again until there is an answer; panics with `what` when none comes.
pub(crate) async fn wait_until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A control plane in this process, on a port and data dir of its own.
pub(crate) struct ControlPlane {
    pub(crate) server: Server,
    pub(crate) admin: AdminClient,
    dir: TempDir,
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// One with other options than the usual ones.
    pub(crate) async fn start_with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("control");
        let mut options = ServerOptions::new(&data_dir, "127.0.0.1:0".parse().unwrap());
        change(&mut options);
        let server = Server::start(options).await.unwrap();
        let admin = AdminClient::find(&data_dir).await.unwrap().expect("the server runs");
        Self { server, admin, dir }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url().to_owned()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// A fresh pairing code.
    pub(crate) async fn code(&self) -> String {
        self.admin.make_pairing_code(None).await.unwrap().code
    }

    /// A remote-shell resource of this gateway, with the team toggle on.
    pub(crate) async fn allow_shell(&self, gateway_id: &str) -> String {
        self.admin.set_full_control(Some(gateway_id), true).await.unwrap();
        let metadata = json!({"gateway_id": gateway_id, "full_control": true});
        self.resource(gateway_id, "remote_shell", "editor", metadata).await
    }

    /// A resource; its id.
    pub(crate) async fn resource(
        &self,
        gateway_id: &str,
        resource_type: &str,
        max_access_level: &str,
        metadata: Value,
    ) -> String {
        let resource = NewResource {
            gateway_id: gateway_id.to_owned(),
            resource_type: resource_type.to_owned(),
            max_access_level: max_access_level.to_owned(),
            metadata: fields(metadata),
        };
        let row = self.admin.make_resource(&resource).await.unwrap();
        row["id"].as_str().unwrap().to_owned()
    }

    /// The gateways' rows.
    pub(crate) async fn gateways(&self) -> Vec<Value> {
        self.admin.gateways().await.unwrap()
    }

    /// Queues a job and gives its id.
    pub(crate) async fn submit(&self, gateway_id: &str, job_type: &str, payload: Value) -> String {
        self.submit_job(NewJob {
            gateway_id: Some(gateway_id.to_owned()),
            job_type: job_type.to_owned(),
            payload: fields(payload),
            ..NewJob::default()
        })
        .await
    }

    /// Queues a job and gives its id.
    pub(crate) async fn submit_job(&self, job: NewJob) -> String {
        self.admin.submit_job(&job).await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// The job's row once it is terminal.
    pub(crate) async fn ended(&self, job_id: &str) -> Value {
        wait_until(&format!("the end of job {job_id}"), || async {
            let row = self.admin.job(job_id).await.unwrap();
            let status = row["status"].as_str().unwrap().to_owned();
            matches!(status.as_str(), "completed" | "failed" | "cancelled").then_some(row)
        })
        .await
    }
}

/// The fields of a JSON object.
pub(crate) fn fields(object: Value) -> Map<String, Value> {
    serde_json::from_value(object).expect("an object")
}

/// A machine: a home directory of its own and nothing of this process's environment.
pub(crate) struct Machine {
    home: TempDir,
    extra: Vec<(String, String)>,
    user: Option<u32>,
    program: PathBuf,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { home, extra: Vec::new(), user: None, program: BINARY.into() }
    }

    /// With a gateway of its own, installed at this path.
    pub(crate) fn installed_at(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// What is run, as it is called.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Everything that this machine runs is run by that user from now on, whose the home is with
    /// all that is in it; only root may.
    pub(crate) fn used_by(mut self, user: u32) -> Self {
        give(self.home(), user);
        self.user = Some(user);
        self
    }

    /// With a variable more.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.extra.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.home().join(".panorama/gateway")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir().join("gateway.json")
    }

    pub(crate) fn config(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.config_file()).unwrap()).unwrap()
    }

    /// The binary with this machine's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(self.extra.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home())
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&self.command(args).output().unwrap())
    }

    /// The same without blocking the test's runtime.
    pub(crate) async fn run_async(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        Ran::of(&output.unwrap())
    }

    /// Pairs with this backend; gives the gateway's id.
    pub(crate) async fn pair_with(&self, url: &str, anon_key: &str, code: &str) -> String {
        let args = ["pair", code, "--no-start", "--supabase-url", url, "--anon-key", anon_key];
        let ran = self.run_async(&args).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        self.config()["gatewayId"].as_str().unwrap().to_owned()
    }

    /// Pairs with a control plane; gives the gateway's id.
    pub(crate) async fn pair(&self, control: &ControlPlane) -> String {
        self.pair_with(&control.url(), control.server.anon_key(), &control.code().await).await
    }

    /// Turns the host toggle on.
    pub(crate) async fn allow_control(&self) {
        if self.config()["vmGuest"]["vmId"].is_string() {
            return self.write_toggle(true);
        }
        let ran = self.run_async(&["full-control", "enable"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    /// Writes the host toggle into the config: in a managed VM no command changes it.
    pub(crate) fn write_toggle(&self, enabled: bool) {
        use std::os::unix::fs::PermissionsExt;
        let mut config = self.config();
        config["full_control_enabled"] = json!(enabled);
        let new = self.dir().join("gateway.json.test");
        std::fs::write(&new, config.to_string()).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(new, self.config_file()).unwrap();
    }

    /// Starts a gateway in the foreground; it is not up yet.
    pub(crate) fn spawn(&self, args: &[&str]) -> Gateway {
        let mut all = vec!["start", "--foreground"];
        all.extend(args);
        Gateway::silent(&mut self.command(&all))
    }

    /// The same with its log, and whatever else it says, in these files.
    pub(crate) fn spawn_logging(&self, log: &Path, stderr: &Path) -> Gateway {
        let stderr = std::fs::File::options().create(true).append(true).open(stderr).unwrap();
        let log = log.display().to_string();
        let mut command = self.command(&["start", "--foreground", "--log-path", &log]);
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Gateway { child }
    }

    /// Starts a gateway in the foreground and waits until it is up.
    pub(crate) async fn start(&self) -> Gateway {
        let gateway = self.spawn(&[]);
        self.is_up().await;
        gateway
    }

    /// Waits until the gateway says that it is up.
    pub(crate) async fn is_up(&self) -> Value {
        wait_until("the gateway to be up", || async {
            let status = self.status().await?;
            (status["phase"] == "up").then_some(status)
        })
        .await
    }

    /// What the running gateway says of itself over its socket.
    pub(crate) async fn status(&self) -> Option<Value> {
        self.ask("status").await
    }

    /// One request over the status socket.
    pub(crate) async fn ask(&self, request: &str) -> Option<Value> {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
        let mut stream =
            tokio::net::UnixStream::connect(self.dir().join("gateway.sock")).await.ok()?;
        let line = format!("{}\n", json!({ "request": request }));
        stream.write_all(line.as_bytes()).await.ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.ok()?;
        serde_json::from_str(&answer).ok()
    }
}

fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

/// A paired machine with all toggles on and a running gateway.
pub(crate) struct Paired {
    pub(crate) machine: Machine,
    pub(crate) gateway: Gateway,
    pub(crate) gateway_id: String,
    pub(crate) resource_id: String,
}

impl Paired {
    pub(crate) async fn start(control: &ControlPlane) -> Self {
        Self::start_on(Machine::new(), control).await
    }

    pub(crate) async fn start_on(machine: Machine, control: &ControlPlane) -> Self {
        let gateway_id = machine.pair(control).await;
        Self::allowed(machine, control, gateway_id).await
    }

    /// One that reaches its control plane by another address.
    pub(crate) async fn through(control: &ControlPlane, url: &str) -> Self {
        let machine = Machine::new();
        let code = control.code().await;
        let gateway_id = machine.pair_with(url, control.server.anon_key(), &code).await;
        Self::allowed(machine, control, gateway_id).await
    }

    /// A paired machine with both toggles on and its gateway started.
    pub(crate) async fn allowed(
        machine: Machine,
        control: &ControlPlane,
        gateway_id: String,
    ) -> Self {
        machine.allow_control().await;
        let resource_id = control.allow_shell(&gateway_id).await;
        let gateway = machine.start().await;
        Self { machine, gateway, gateway_id, resource_id }
    }

    /// Runs a shell command as a job; gives the row at its end.
    pub(crate) async fn shell(&self, control: &ControlPlane, command: &str) -> Value {
        let id = self.submit_shell(control, command, json!({})).await;
        control.ended(&id).await
    }

    /// Queues a shell command with more fields in its payload.
    pub(crate) async fn submit_shell(
        &self,
        control: &ControlPlane,
        command: &str,
        more: Value,
    ) -> String {
        let mut payload = json!({"command": command, "resource_id": self.resource_id});
        for (name, value) in more.as_object().unwrap() {
            payload[name] = value.clone();
        }
        control.submit(&self.gateway_id, "shell_exec", payload).await
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A gateway process; killed when dropped.
pub(crate) struct Gateway {
    pub(crate) child: Child,
}

impl Gateway {
    /// What a command starts, with nothing to read and nobody to tell.
    pub(crate) fn silent(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap() }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().unwrap();
        self.ended().await;
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        wait_until("the gateway's end", || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        })
        .await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process by pid and start time; a recycled pid is another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessName {
    pub(crate) pid: i32,
    pub(crate) start: u64,
}

impl ProcessName {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        // A zombie is gone: it only waits for its parent to look.
        if fields.first() == Some(&"Z") {
            return None;
        }
        Some(Self { pid, start: fields.get(19)?.parse().ok()? })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// All processes whose environment names this home: whatever a machine's gateway left behind.
pub(crate) fn processes_of(home: &Path) -> Vec<i32> {
    let needle = format!("HOME={}", home.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let names_home = environment.split(|byte| *byte == 0).any(|pair| pair == needle.as_bytes());
        if names_home && ProcessName::of(pid).is_some() {
            found.push(pid);
        }
    }
    found
}
