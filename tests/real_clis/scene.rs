//! Where the stories play: a control plane, the stand-in for the APIs, machines with the CLIs.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use panorama_gateway::providers::ProviderId;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};

use crate::common::{ControlPlane, Gateway, Machine, ProcessName, wait_until};
use crate::fake_llm::FakeLlm;
use crate::install::{self, Clis};

/// The longest that a job takes: its own limit of 110 s, its turn in the queue, and the load.
const PATIENCE: Duration = Duration::from_mins(4);

/// Who has no rights at all.
const NOBODY: u32 = 65_534;

/// See the module.
pub(crate) struct Scene {
    pub(crate) control: ControlPlane,
    pub(crate) fake: FakeLlm,
    pub(crate) clis: Clis,
    /// Where all CLIs are.
    pub(crate) own: Site,
    /// The machine of a user who is not root; see [`Scene::unprivileged`].
    other: OnceCell<Site>,
}

/// A machine and the gateway on it.
pub(crate) struct Site {
    pub(crate) machine: Machine,
    pub(crate) gateway: Mutex<Gateway>,
    pub(crate) gateway_id: String,
    /// Holds the CLIs where they are not those of all.
    _bin: Option<TempDir>,
}

impl Scene {
    pub(crate) async fn set(clis: Clis) -> Self {
        let control = ControlPlane::start().await;
        let fake = FakeLlm::start().await;
        let own = Site::open(furnished(&clis, &fake), &control).await;
        Self { control, fake, clis, own, other: OnceCell::new() }
    }

    /// Where Claude Code may have full control, which it refuses to root: as root, the machine of
    /// another user, who has only that CLI.
    pub(crate) async fn unprivileged(&self) -> &Site {
        if !is_root() {
            return &self.own;
        }
        let open = async || {
            // Root's home is closed to others. It is one executable that needs no Node.
            let bin = tempfile::tempdir().unwrap();
            std::fs::set_permissions(bin.path(), Permissions::from_mode(0o755)).unwrap();
            let claude = bin.path().join(ProviderId::ClaudeCode.command());
            let installed = self.clis.command(ProviderId::ClaudeCode).canonicalize().unwrap();
            if std::fs::hard_link(&installed, &claude).is_err() {
                std::fs::copy(&installed, &claude).unwrap();
            }
            let clis = Clis { bin: bin.path().to_owned() };
            let machine = furnished(&clis, &self.fake).used_by(NOBODY);
            Site { _bin: Some(bin), ..Site::open(machine, &self.control).await }
        };
        self.other.get_or_init(open).await
    }

    /// A good run of every CLI makes up for what bad ones showed of it; the control plane knows.
    pub(crate) async fn heal(&self) {
        let more = json!({});
        let runs = ProviderId::ALL.map(|cli| self.run(cli, "well again [[say well]]", &more));
        for row in futures_util::future::join_all(runs).await {
            assert_eq!(row["status"], "completed", "{row}");
        }
        wait_until("a gateway that is ready for subagents", || async {
            let rows = self.control.gateways().await;
            let own = rows.iter().find(|row| row["id"] == *self.own.gateway_id)?;
            (own["capabilities"]["services"]["model_execution"]["ready"] == true).then_some(())
        })
        .await;
    }

    /// What the gateways logged.
    pub(crate) fn log(&self) -> String {
        let sites = std::iter::once(&self.own).chain(self.other.get());
        sites.map(|site| std::fs::read_to_string(site.log_file()).unwrap_or_default()).collect()
    }

    /// Queues a `model_run`: the payload's fields over the usual ones.
    pub(crate) async fn submit(&self, cli: ProviderId, prompt: &str, more: &Value) -> String {
        let model = match cli {
            ProviderId::ClaudeCode => "claude-sonnet-5",
            ProviderId::Codex => "gpt-5.5",
            ProviderId::Gemini => "gemini-2.5-pro",
        };
        let mut payload = json!({
            "provider": cli.as_str(), "model": model, "prompt": prompt, "output_format": "text",
        });
        for (name, value) in more.as_object().unwrap() {
            payload[name] = value.clone();
        }
        self.control.submit(&self.own.gateway_id, "model_run", payload).await
    }

    /// The row once it is terminal.
    pub(crate) async fn ended(&self, job: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let row = self.control.admin.job(job).await.unwrap();
            if is_over(&row) {
                return row;
            }
            assert!(Instant::now() < deadline, "the job did not end: {row}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks until there is an answer, as long as the job may still bring one about: a gateway that
    /// was just started has its CLIs checked first. The error is the job's row.
    pub(crate) async fn until<T>(
        &self,
        job: &str,
        mut ask: impl FnMut() -> Option<T>,
    ) -> Result<T, Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let row = self.control.admin.job(job).await.unwrap();
            if let Some(answer) = ask() {
                return Ok(answer);
            }
            if is_over(&row) || Instant::now() >= deadline {
                return Err(row);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Queues a `model_run` and waits for its end.
    pub(crate) async fn run(&self, cli: ProviderId, prompt: &str, more: &Value) -> Value {
        self.ended(&self.submit(cli, prompt, more).await).await
    }
}

impl Site {
    async fn open(machine: Machine, control: &ControlPlane) -> Self {
        let gateway_id = machine.pair(control).await;
        machine.allow_control().await;
        control.admin.set_full_control(Some(&gateway_id), true).await.unwrap();
        let gateway = Mutex::new(spawn(&machine));
        machine.is_up().await;
        Self { machine, gateway, gateway_id, _bin: None }
    }

    /// Another gateway in the place of one that was killed.
    pub(crate) async fn start_again(&self, gateway: &mut Gateway) {
        *gateway = spawn(&self.machine);
        self.machine.is_up().await;
    }

    fn log_file(&self) -> PathBuf {
        log_file(&self.machine)
    }

    /// Every process of a run of this machine.
    pub(crate) fn processes(&self) -> Vec<Process> {
        of_runs(self.machine.home())
    }
}

/// A machine with these CLIs and the logins for them.
fn furnished(clis: &Clis, fake: &FakeLlm) -> Machine {
    let variables = install::environment(clis, &fake.url()).into_iter();
    let with = |machine: Machine, (name, value)| machine.with(name, value);
    let machine = variables.fold(Machine::new(), with);
    install::log_in(machine.home(), &fake.url());
    machine
}

/// Whether this row of a job is terminal.
fn is_over(job: &Value) -> bool {
    matches!(job["status"].as_str(), Some("completed" | "failed" | "cancelled"))
}

/// Whether the stories are told by root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn log_file(machine: &Machine) -> PathBuf {
    machine.home().join("gateway.log")
}

fn spawn(machine: &Machine) -> Gateway {
    machine.spawn_logging(&log_file(machine), &machine.home().join("gateway.stderr"))
}

/// A process of a run.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: ProcessName,
    pub(crate) command: String,
}

/// By the mark of runs in their environment, and the home in it or in that of a fellow.
fn of_runs(home: &Path) -> Vec<Process> {
    let home = format!("HOME={}", home.display());
    let mut marked = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(name) = pid.and_then(ProcessName::of) else { continue };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        let run = variables.clone().find(|pair| pair.starts_with("PANORAMA_RUN_ID="));
        let Some(run) = run else { continue };
        let is_at_home = variables.any(|pair| pair == home);
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        marked.push((run.to_owned(), is_at_home, Process { name, command }));
    }
    // The supervisor of a run has nothing but the mark.
    let homely = marked.iter().filter(|(_, is_at_home, _)| *is_at_home);
    let ours: Vec<String> = homely.map(|(run, ..)| run.clone()).collect();
    let of_ours = marked.into_iter().filter(|(run, ..)| ours.contains(run));
    of_ours.map(|(.., process)| process).collect()
}
