//! One gateway and what happens to it: jobs are submitted, blows fall, and in the end all of it is
//! looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::plan::{Backend, Blow, Kind, Plan, PlannedJob};
use super::verdict;
use crate::common::backend::{Fault, Middleman};
use crate::common::disk::SmallDisk;
use crate::common::marks::Marks;
use crate::common::{ControlPlane, Gateway, Machine};

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
    cancelled: bool,
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
    number: u64,
    disk: Option<SmallDisk>,
    gateway: tokio::sync::Mutex<Gateway>,
    /// Gateway id and resource id.
    identity: Mutex<(String, String)>,
    /// Held by whoever must not see a new job come.
    submitting: tokio::sync::Mutex<()>,
    report: Mutex<Report>,
}

impl<'a> Lane<'a> {
    /// Pairs a machine and starts its gateway.
    pub(crate) async fn pair(control: &'a ControlPlane, number: u64) -> Self {
        let machine = Machine::new();
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
            report: Mutex::new(report),
        }
    }

    /// Lives through a plan, to the end of its gateway.
    pub(crate) async fn run(self, plan: Plan) -> Self {
        let Plan { jobs, blows, .. } = plan;
        tokio::join!(self.submit_all(jobs), async {
            for (pause, blow) in blows {
                tokio::time::sleep(pause).await;
                self.strike(blow).await;
            }
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

    pub(crate) fn outcome(&self, what: &str) {
        Report::count(&mut self.report.lock().unwrap().outcomes, what);
    }

    async fn submit_all(&self, planned: Vec<PlannedJob>) {
        for job in planned {
            while self.look().await >= IN_HAND {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let _may = self.submitting.lock().await;
            self.submit(job).await;
        }
    }

    async fn submit(&self, planned: PlannedJob) {
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
        let job = Submitted { id, planned, row: None, cancelled: at_once };
        self.jobs.lock().unwrap().push(job);
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
        };
        format!("{note}; {rest}")
    }

    /// Takes over rows that are terminal, cancels what is to be cancelled; how many jobs are left.
    async fn look(&self) -> usize {
        let open = |job: &&mut Submitted| job.row.is_none();
        let ids: Vec<String> =
            self.jobs.lock().unwrap().iter_mut().filter(open).map(|job| job.id.clone()).collect();
        let mut left = ids.len();
        for id in ids {
            let mut row = self.control.admin.job(&id).await.unwrap();
            let is_over = row["completed_at"].is_string();
            shorten(&mut row);
            let cancel = {
                let mut jobs = self.jobs.lock().unwrap();
                let job = jobs.iter_mut().find(|job| job.id == id).unwrap();
                if is_over {
                    left -= 1;
                    job.row = Some(row);
                }
                let due = job.planned.kind == Kind::IsCancelled
                    && !job.cancelled
                    && !is_over
                    && self.marks.has(&job.planned.name);
                job.cancelled |= due;
                due
            };
            if cancel {
                let _ = self.control.admin.cancel_job(&id).await;
            }
        }
        left
    }

    /// Waits until no job is left; false when it takes too long.
    async fn idle(&self) -> bool {
        let deadline = Instant::now() + SETTLES_WITHIN;
        while self.look().await > 0 {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    }

    async fn strike(&self, blow: Blow) {
        self.is_alive().await;
        let name = match blow {
            Blow::Kill => {
                self.kill().await;
                "gateway: SIGKILL".to_owned()
            }
            Blow::Stop(lasts) => {
                let gateway = self.gateway.lock().await;
                gateway.signal(Signal::SIGSTOP);
                tokio::time::sleep(lasts).await;
                gateway.signal(Signal::SIGCONT);
                "gateway: SIGSTOP, SIGCONT".to_owned()
            }
            Blow::Restart => {
                self.stop().await;
                *self.gateway.lock().await = spawn(&self.machine);
                "gateway: SIGTERM, started again".to_owned()
            }
            Blow::FullDisk(lasts) => self.fill_disk(lasts).await,
            Blow::Revoke => self.revoke().await,
            Blow::Backend { what, lasts, and_kill } => self.disturb(what, lasts, and_kill).await,
        };
        Report::count(&mut self.report.lock().unwrap().faults, &name);
    }

    /// Nothing that happens here may end a gateway by itself.
    async fn is_alive(&self) {
        let mut gateway = self.gateway.lock().await;
        if !gateway.is_running() {
            let status = gateway.child.try_wait().unwrap();
            self.violation(&format!(
                "the gateway ended by itself: {status:?}: {}",
                self.last_words()
            ));
            *gateway = spawn(&self.machine);
        }
    }

    async fn kill(&self) {
        let mut gateway = self.gateway.lock().await;
        let before = Timestamp::now();
        gateway.kill().await;
        self.kills.lock().unwrap().push((before, Timestamp::now()));
        *gateway = spawn(&self.machine);
    }

    async fn fill_disk(&self, lasts: Duration) -> String {
        let Some(disk) = &self.disk else {
            self.kill().await;
            return "gateway: SIGKILL".to_owned();
        };
        let full = disk.keep_full();
        tokio::time::sleep(lasts).await;
        self.saw(&format!("refills of a full disk ({})", full.first), full.refills());
        "disk: full".to_owned()
    }

    async fn disturb(&self, what: Backend, lasts: Duration, and_kill: bool) -> String {
        let answer = |status: u16| {
            let code = if status == 401 { "PGRST301" } else { "XX000" };
            let body = json!({"code": code, "message": "chaos", "details": null, "hint": null});
            Fault::Answer(status, "application/json", body.to_string())
        };
        let name = match what {
            Backend::Cut => {
                self.middleman.cut();
                "cut off".to_owned()
            }
            Backend::Slow(by) => {
                self.middleman.fault("", Fault::Slow(by));
                "slow".to_owned()
            }
            Backend::Answers(status, path) => {
                self.middleman.fault(path, answer(status));
                format!("answers {status}")
            }
            Backend::LosesRequests(path) => {
                self.middleman.fault(path, Fault::LostRequest);
                "loses requests".to_owned()
            }
            Backend::LosesAnswers(path) => {
                self.middleman.fault(path, Fault::LostAnswer);
                "loses answers".to_owned()
            }
        };
        if and_kill {
            tokio::time::sleep(lasts / 2).await;
            self.kill().await;
            tokio::time::sleep(lasts / 2).await;
        } else {
            tokio::time::sleep(lasts).await;
        }
        self.middleman.heal();
        format!("backend: {name}{}", if and_kill { ", and the gateway SIGKILL" } else { "" })
    }

    /// What a revoked pairing leaves in the queue is nobody's any more, so the work is finished
    /// first.
    async fn revoke(&self) -> String {
        let _quiet = self.submitting.lock().await;
        if !self.idle().await {
            self.violation("the jobs before a revocation did not end");
        }
        let mut gateway = self.gateway.lock().await;
        if self.log_out().await {
            let status = self.end_of(&mut gateway, "its pairing was revoked").await;
            if status.is_some_and(|status| status.code() != Some(4)) {
                self.violation(&format!("a revoked pairing ended the gateway with {status:?}"));
            }
        } else {
            self.violation("the session could not be revoked");
            gateway.kill().await;
        }
        let identity = pair(self.control, &self.middleman, &self.machine).await;
        *self.identity.lock().unwrap() = identity;
        *gateway = spawn(&self.machine);
        "session: revoked, paired again".to_owned()
    }

    /// Ends the session at the backend, with whatever token is good at the moment.
    async fn log_out(&self) -> bool {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let deadline = Instant::now() + Duration::from_secs(40);
        while Instant::now() < deadline {
            let token = self.machine.config()["accessToken"].as_str().unwrap().to_owned();
            let request = client
                .post(format!("{}/auth/v1/logout", self.control.url()))
                .header("apikey", self.control.server.anon_key())
                .bearer_auth(token);
            if request.send().await.unwrap().status().is_success() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
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
                .map(|job| (job.id.clone(), job.planned.clone()))
                .collect();
            for (id, planned) in jobs {
                let row = self.control.admin.job(&id).await.unwrap();
                self.violation(&format!("{planned:?} did not end: {row}"));
            }
        }
    }

    /// SIGTERM, and the gateway ends well.
    async fn stop(&self) {
        let mut gateway = self.gateway.lock().await;
        // A start that has not come to its signal handlers yet dies of it, and rightly so.
        self.machine.is_up().await;
        gateway.signal(Signal::SIGTERM);
        let status = self.end_of(&mut gateway, "it was asked to stop").await;
        if status.is_some_and(|status| !status.success()) {
            self.violation(&format!("asked to stop, the gateway ended with {status:?}"));
        }
    }

    /// How the gateway ended; it is killed when that takes too long.
    async fn end_of(&self, gateway: &mut Gateway, why: &str) -> Option<ExitStatus> {
        let deadline = Instant::now() + ENDS_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = gateway.child.try_wait().unwrap() {
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

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(stderr(&self.machine)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(8).collect();
        lines.join(" | ")
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

fn spawn(machine: &Machine) -> Gateway {
    machine.spawn_logging(&log(machine), &stderr(machine))
}

async fn pair(
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
