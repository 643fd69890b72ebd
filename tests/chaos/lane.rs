//! One gateway and what happens to it: jobs are submitted, blows fall, and in the end all of it is
//! looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::agents::{Claude, Run};
use super::plan::{Called, Kind, Plan, PlannedJob};
use super::process::{self, Process};
use super::{upgrades, verdict};
use crate::common::backend::Middleman;
use crate::common::disk::SmallDisk;
use crate::common::marks::Marks;
use crate::common::{ControlPlane, Machine};

/// Most jobs that wait or run at a time.
const IN_HAND: usize = 20;
/// How long the last jobs may take once all faults are over: backoff may have grown meanwhile.
const SETTLES_WITHIN: Duration = Duration::from_mins(3);
/// How long an orderly end may take: a report may be at the longest pause of its backoff.
const ENDS_WITHIN: Duration = Duration::from_secs(100);
const DISK_KIB: u32 = 32 * 1024;

/// What came of a lane.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) faults: BTreeMap<String, usize>,
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// Other things that were counted.
    pub(crate) others: BTreeMap<String, usize>,
    pub(crate) violations: Vec<String>,
}

impl Report {
    pub(crate) fn count(counts: &mut BTreeMap<String, usize>, name: &str) {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
}

/// A job as it was submitted.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) id: String,
    pub(crate) planned: PlannedJob,
    /// Its row, once that is terminal.
    pub(crate) row: Option<Value>,
    /// Of a job that is, or cancels, a subagent's run: which.
    pub(crate) run: Option<Run>,
    at: Instant,
    cancelled: bool,
}

impl Submitted {
    /// Whether the time has come to cancel it; the row is for those that are cancelled by it.
    fn is_to_be_cancelled(&self, marks: &Marks) -> bool {
        let runs = || marks.has(&self.planned.name);
        let kind = self.planned.kind;
        let due = if let Kind::Agent(_, Called::ByJob(millis)) = kind {
            self.at.elapsed() >= Duration::from_millis(millis)
        } else {
            matches!(kind, Kind::IsCancelled | Kind::Agent(_, Called::ByRow)) && runs()
        };
        due && !self.cancelled
    }
}

/// See the module.
pub(crate) struct Lane<'a> {
    pub(crate) control: &'a ControlPlane,
    pub(crate) middleman: Middleman,
    pub(crate) machine: Machine,
    pub(crate) marks: Marks,
    pub(crate) jobs: Mutex<Vec<Submitted>>,
    /// When the gateway was killed: before and after it the clock said.
    pub(crate) kills: Mutex<Vec<(Timestamp, Timestamp)>>,
    pub(super) disk: Option<SmallDisk>,
    pub(super) gateway: tokio::sync::Mutex<Process>,
    /// Gateway id and resource id.
    pub(super) identity: Mutex<(String, String)>,
    /// Held by whoever must not see a new job come.
    pub(super) submitting: tokio::sync::Mutex<()>,
    /// Held by whoever looks: what is due is done once.
    looking: tokio::sync::Mutex<()>,
    number: u64,
    report: Mutex<Report>,
}

impl<'a> Lane<'a> {
    /// Pairs a machine and starts its gateway.
    pub(crate) async fn pair(control: &'a ControlPlane, number: u64) -> Self {
        let (machine, claude) = Claude::install(upgrades::installed(Machine::new()));
        let mut report = Report::default();
        let disk = SmallDisk::mount(&machine.dir(), DISK_KIB).ok();
        if disk.is_none() {
            Report::count(&mut report.others, "lanes without a disk to fill (needs root)");
        }
        let middleman = Middleman::before(&control.url()).await;
        let identity = pair(control, &middleman, &machine).await;
        let marks = Marks::in_dir(machine.home());
        let gateway = tokio::sync::Mutex::new(spawn(&machine));
        machine.is_up().await;
        claude.is_ready(control, &identity.0).await;
        Self {
            control,
            middleman,
            machine,
            marks,
            jobs: Mutex::default(),
            kills: Mutex::default(),
            number,
            disk,
            gateway,
            identity: Mutex::new(identity),
            submitting: tokio::sync::Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            report: Mutex::new(report),
        }
    }

    /// Lives through a plan, to the end of its gateway.
    pub(crate) async fn run(self, plan: Plan) -> Self {
        let Plan { jobs, blows, .. } = plan;
        let struck = AtomicBool::new(false);
        tokio::join!(self.submit_all(jobs, &struck), async {
            for (pause, blow) in blows {
                tokio::time::sleep(pause).await;
                self.strike(blow).await;
            }
            struck.store(true, Ordering::Relaxed);
        });
        self.settle().await;
        self.stop().await;
        self
    }

    /// Looks at what is there after the end. Reads much: other lanes should be done, too.
    pub(crate) async fn report(self) -> Report {
        verdict::judge(&self).await;
        self.report.into_inner().unwrap()
    }

    pub(crate) fn violation(&self, what: &str) {
        let what = format!("lane {}: {what}", self.number);
        self.report.lock().unwrap().violations.push(what);
    }

    pub(crate) fn saw(&self, what: &str, count: usize) {
        let mut report = self.report.lock().unwrap();
        *report.others.entry(what.to_owned()).or_default() += count;
    }

    pub(super) fn blow(&self, what: &str) {
        Report::count(&mut self.report.lock().unwrap().faults, what);
    }

    pub(crate) fn outcome(&self, what: &str) {
        Report::count(&mut self.report.lock().unwrap().outcomes, what);
    }

    /// Goes on looking after the jobs while blows fall.
    async fn submit_all(&self, planned: Vec<PlannedJob>, struck: &AtomicBool) {
        for job in planned {
            while self.look().await >= IN_HAND {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let _may = self.submitting.lock().await;
            self.submit(job).await;
        }
        while !struck.load(Ordering::Relaxed) {
            self.look().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn submit(&self, planned: PlannedJob) {
        if let Kind::Agent(does, _) = planned.kind {
            let gateway_id = self.identity.lock().unwrap().0.clone();
            let run = Run::make(self.control, &gateway_id, &planned.name, does).await;
            let id = self.control.submit(&gateway_id, "subagent_run", run.payload()).await;
            return self.submitted(id, planned, Some(run), false);
        }
        let (gateway_id, resource_id) = self.identity.lock().unwrap().clone();
        let mut payload = json!({
            "command": self.command(&planned),
            "resource_id": resource_id,
            "timeout_ms": 120_000,
        });
        if let Kind::HitsItsLimit(millis) = planned.kind {
            payload["timeout_ms"] = millis.into();
        }
        let id = self.control.submit(&gateway_id, "shell_exec", payload).await;
        let at_once = planned.kind == Kind::IsCancelledAtOnce;
        if at_once {
            // Too late is no harm.
            let _ = self.control.admin.cancel_job(&id).await;
        }
        self.submitted(id, planned, None, at_once);
    }

    fn submitted(&self, id: String, planned: PlannedJob, run: Option<Run>, cancelled: bool) {
        let job = Submitted { id, planned, row: None, run, at: Instant::now(), cancelled };
        self.jobs.lock().unwrap().push(job);
    }

    /// Cancels a job, or the run that it is for by a job of its own; whether there is one more.
    async fn cancel(&self, id: &str) -> bool {
        let (planned, run) = {
            let jobs = self.jobs.lock().unwrap();
            let job = jobs.iter().find(|job| job.id == id).unwrap();
            (job.planned.clone(), job.run.clone())
        };
        let (Kind::Agent(_, Called::ByJob(_)), Some(run)) = (planned.kind, run) else {
            // Too late is no harm.
            let _ = self.control.admin.cancel_job(id).await;
            return false;
        };
        let gateway_id = self.identity.lock().unwrap().0.clone();
        let id = self.control.submit(&gateway_id, "subagent_cancel", run.payload()).await;
        self.submitted(id, PlannedJob { kind: Kind::Cancels, ..planned }, Some(run), true);
        true
    }

    fn command(&self, PlannedJob { name, kind }: &PlannedJob) -> String {
        let note = self.marks.note(name);
        let rest = match kind {
            Kind::Prints | Kind::IsCancelledAtOnce => format!("echo result of {name}"),
            Kind::Floods(bytes) => format!("head -c {bytes} /dev/zero | tr '\\0' x"),
            Kind::Fails(code) => format!("echo result of {name} >&2; exit {code}"),
            Kind::KillsItself => "kill -KILL $$".to_owned(),
            Kind::TakesTime(millis) => {
                format!("sleep {}.{:03}; echo result of {name}", millis / 1000, millis % 1000)
            }
            Kind::LeavesWork => {
                let later = self.marks.note(&format!("{name}-later"));
                format!("(sleep 1; {later}) & echo result of {name}")
            }
            Kind::HitsItsLimit(_) | Kind::IsCancelled => "sleep 100; echo too late".to_owned(),
            Kind::Snoops => format!("cat {}", self.machine.config_file().display()),
            Kind::Agent(..) | Kind::Cancels => unreachable!("no shell command"),
        };
        format!("{note}; {rest}")
    }

    /// Takes over rows that are terminal, cancels what is to be cancelled; how many jobs are left.
    async fn look(&self) -> usize {
        let _one = self.looking.lock().await;
        let open = |job: &&mut Submitted| job.row.is_none();
        let ids: Vec<String> =
            self.jobs.lock().unwrap().iter_mut().filter(open).map(|job| job.id.clone()).collect();
        let mut left = ids.len();
        for id in ids {
            let mut row = self.control.admin.job(&id).await.unwrap();
            shorten(&mut row);
            let due = {
                let mut jobs = self.jobs.lock().unwrap();
                let job = jobs.iter_mut().find(|job| job.id == id).unwrap();
                let run = job.run.clone().filter(|_| job.planned.kind != Kind::Cancels);
                let has_ended = row["completed_at"].is_string();
                // The run of a job that was cancelled by its row may end after it.
                let is_over = has_ended && run.is_none_or(|run| run.is_over(self.control));
                let due = !has_ended && job.is_to_be_cancelled(&self.marks);
                job.cancelled |= due;
                if is_over {
                    left -= 1;
                    once_more(&mut jobs, &id, &row);
                    jobs.iter_mut().find(|job| job.id == id).unwrap().row = Some(row);
                }
                due
            };
            if due && self.cancel(&id).await {
                left += 1;
            }
        }
        left
    }

    /// Waits until no job is left; false when it takes too long.
    pub(super) async fn idle(&self) -> bool {
        let deadline = Instant::now() + SETTLES_WITHIN;
        while self.look().await > 0 {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    }

    /// Nothing that happens here may end a gateway by itself.
    pub(super) async fn is_alive(&self) {
        let mut gateway = self.gateway.lock().await;
        process::reap_orphans();
        if let Some(status) = gateway.ended() {
            self.violation(&format!(
                "the gateway ended by itself: {status:?}: {}",
                self.last_words()
            ));
            *gateway = spawn(&self.machine);
        }
        let all = process::of_program(self.machine.program());
        if all != [gateway.pid()] {
            self.violation(&format!("the gateway is {}, but there are {all:?}", gateway.pid()));
        }
    }

    async fn settle(&self) {
        self.middleman.heal();
        self.is_alive().await;
        if !self.idle().await {
            let open = |job: &&Submitted| job.row.is_none();
            let jobs: Vec<_> = self
                .jobs
                .lock()
                .unwrap()
                .iter()
                .filter(open)
                .map(|job| (job.id.clone(), job.planned.clone(), job.run.clone()))
                .collect();
            for (id, planned, run) in jobs {
                let row = self.control.admin.job(&id).await.unwrap();
                let rows = run.map(|run| run.rows(self.control).to_string()).unwrap_or_default();
                self.violation(&format!("{planned:?} did not end: {row} {rows}"));
            }
        }
    }

    /// SIGTERM, and the gateway ends well.
    pub(super) async fn stop(&self) {
        let mut gateway = self.gateway.lock().await;
        // A start that has not come to its signal handlers yet dies of it, and rightly so.
        self.is_up().await;
        gateway.signal(Signal::SIGTERM);
        let status = self.end_of(&mut gateway, "it was asked to stop").await;
        if status.is_some_and(|status| !status.success()) {
            self.violation(&format!("asked to stop, the gateway ended with {status:?}"));
        }
    }

    /// Waits longer than a start may take that met a rate limit, which pauses it for over a minute.
    pub(super) async fn is_up(&self) {
        let deadline = Instant::now() + ENDS_WITHIN;
        loop {
            let status = self.machine.status().await.unwrap_or_default();
            if status["phase"] == "up" {
                return;
            }
            if Instant::now() > deadline {
                self.violation(&format!(
                    "the gateway is not up within {ENDS_WITHIN:?}: {status}: {}",
                    self.last_words()
                ));
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How the gateway ended; it is killed when that takes too long.
    pub(super) async fn end_of(&self, gateway: &mut Process, why: &str) -> Option<ExitStatus> {
        let deadline = Instant::now() + ENDS_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = gateway.ended() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let status = self.machine.status().await.unwrap_or_default();
        self.violation(&format!(
            "the gateway did not end within {ENDS_WITHIN:?} after {why}: {status}: {}",
            self.last_words()
        ));
        gateway.kill().await;
        None
    }

    pub(crate) fn log(&self) -> PathBuf {
        log(&self.machine)
    }

    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(stderr(&self.machine)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(8).collect();
        lines.join(" | ")
    }
}

/// A run whose cancel came to nothing is cancelled once more.
fn once_more(jobs: &mut [Submitted], id: &str, row: &Value) {
    let job = jobs.iter().find(|job| job.id == id).unwrap();
    if job.planned.kind == Kind::Cancels && row["status"] != "completed" {
        let name = job.planned.name.clone();
        let of_run = |job: &&mut Submitted| {
            job.planned.name == name && matches!(job.planned.kind, Kind::Agent(..))
        };
        jobs.iter_mut().find(of_run).unwrap().cancelled = false;
    }
}

/// A long run must not keep megabytes of a single letter: their number takes their place.
fn shorten(row: &mut Value) {
    let Some(stdout) = row["result"]["stdout"].as_str() else { return };
    if stdout.len() > 10_000 && stdout.bytes().all(|byte| byte == b'x') {
        row["result"]["stdout"] = stdout.len().into();
    }
}

fn log(machine: &Machine) -> PathBuf {
    machine.home().join("log/gateway.log")
}

fn stderr(machine: &Machine) -> PathBuf {
    machine.home().join("stderr")
}

pub(super) fn spawn(machine: &Machine) -> Process {
    Process::started(machine.spawn_logging(&log(machine), &stderr(machine)))
}

pub(super) async fn pair(
    control: &ControlPlane,
    middleman: &Middleman,
    machine: &Machine,
) -> (String, String) {
    let code = control.code().await;
    let gateway_id = machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    machine.allow_control().await;
    let resource_id = control.allow_shell(&gateway_id).await;
    (gateway_id, resource_id)
}
