//! What drive sync takes with a large drive, beside what plain tools take for the same in the same
//! round; nothing here passes or fails. `cargo bench --bench drive_mirror`.
//!
//! The control plane and two managed VMs are the real binary, a process each, over loopback; drives,
//! state and the server's data lie on a tmpfs. Others' load shows, so figures are told as ratios.
//! `PANORAMA_BENCH_FILES` (100,000), `PANORAMA_BENCH_ROUNDS` (5) and `PANORAMA_BENCH_DIR` (`/dev/shm`)
//! change what is measured where; `PANORAMA_BENCH_IDLE` (60) is for how many seconds idling is watched,
//! 0 leaves it out.
#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "prints figures, measures real time, and has nobody to return errors to"
)]

#[path = "../tests/common/mod.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod common;
#[expect(dead_code, reason = "the other benches use the rest")]
mod measured;
#[path = "measured/server.rs"]
#[expect(dead_code, reason = "it is killed here")]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use panorama_gateway::drive_sync::disk::Disk;
use panorama_gateway::drive_sync::engine::{Engine, Look, Settings};
use panorama_gateway::drive_sync::keeper::report::{DriveReport, DriveState, Report};
use panorama_gateway::drive_sync::model::LocalTree;
use panorama_gateway::drive_sync::ports::{
    Changes, Clock, Digest, Download, Drive, Fs, Recall, RemoteError, Rng, Scope, SnapshotPage,
    Upload, Write, Written,
};
use panorama_gateway::drive_sync::state::State;
use panorama_gateway::sandbox::AdminClient;

use common::{Gateway, Machine, setting};
use measured::{cpu_ticks, memory};
use server::Server;

/// Of an average file, in bytes: 411 MB in 100,000.
const AVERAGE: u64 = 4_110;
/// Files in a folder, and folders in a folder: 100,000 files stand in 1,000 folders in 100.
const IN_FOLDER: u64 = 100;
const IN_UPPER: u64 = 10;
/// A sync that takes longer has gone wrong.
const PATIENCE: Duration = Duration::from_mins(15);

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let files = setting("PANORAMA_BENCH_FILES").unwrap_or(100_000);
    let rounds = setting("PANORAMA_BENCH_ROUNDS").unwrap_or(5);
    let idle = setting("PANORAMA_BENCH_IDLE").unwrap_or(60);
    let environment = panorama_gateway::config::Environment::of_process();
    let place = environment.get("PANORAMA_BENCH_DIR").unwrap_or("/dev/shm");
    let dir = tempfile::Builder::new().prefix("drive-mirror-").tempdir_in(place).unwrap();
    let tree = dir.path().join("tree");
    let bytes = plant(&tree, files);
    println!("{files} files, {:.0} MB, in {place}", bytes as f64 / 1e6);
    let mut table = Table::default();
    for number in 1..=rounds {
        let before = load();
        Round::new(dir.path(), &tree, files).await.run(&mut table, idle).await;
        println!("round {number} of {rounds}; load {before} before it, {} after it", load());
    }
    table.print();
}

/// One, five and fifteen minutes.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Makes the files: sizes and contents vary, and no two are alike.
fn plant(root: &Path, files: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut bytes = 0;
    for number in 0..files {
        let folder = number / IN_FOLDER;
        let folder = root.join(format!("part {:03}/folder {folder:04}", folder / IN_UPPER));
        if number.is_multiple_of(IN_FOLDER) {
            std::fs::create_dir_all(&folder).unwrap();
        }
        let size = rng.u64(..=2 * AVERAGE);
        let mut content = vec![0; usize::try_from(size).unwrap()];
        rng.fill(&mut content);
        std::fs::write(folder.join(format!("a file {number:06}.bin")), content).unwrap();
        bytes += size;
    }
    bytes
}

// ---------------------------------------------------------------- figures

/// Rows by name, in the order in which they first came; each round has one value and its floor.
#[derive(Default)]
struct Table(Vec<(&'static str, &'static str, Vec<Measured>)>);

/// A value and its floor.
type Measured = (f64, Option<f64>);

impl Table {
    fn note(&mut self, figure: &'static str, goal: &'static str, value: f64, floor: Option<f64>) {
        let known = self.0.iter_mut().find(|(name, ..)| *name == figure);
        let told = floor.map_or_else(String::new, |floor| format!(" (floor {floor:.2})"));
        println!("    {figure}: {value:.2}{told}");
        match known {
            Some((_, _, values)) => values.push((value, floor)),
            None => self.0.push((figure, goal, vec![(value, floor)])),
        }
    }

    /// Medians; that of the ratios is of the rounds' own ratios.
    fn print(&self) {
        println!("{:<44} {:>9} {:>9} {:>7}   goal", "figure, median", "measured", "floor", "ratio");
        for (figure, goal, values) in &self.0 {
            let measured = median(values.iter().map(|(value, _)| *value));
            let floor = median(values.iter().filter_map(|(_, floor)| *floor));
            let ratio =
                median(values.iter().filter_map(|(value, floor)| floor.map(|floor| value / floor)));
            let shown =
                |number: Option<f64>| number.map_or("-".to_owned(), |it| format!("{it:.2}"));
            println!(
                "{figure:<44} {:>9} {:>9} {:>7}   {goal}",
                shown(measured),
                shown(floor),
                shown(ratio)
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Seconds that a command of the shell takes.
fn timed(script: &str, args: &[&Path]) -> f64 {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).args(args).stdout(Stdio::null());
    let began = Instant::now();
    assert!(command.status().unwrap().success(), "{script}");
    began.elapsed().as_secs_f64()
}

fn find(tree: &Path) -> f64 {
    timed("find \"$1\" -printf '%s %T@\\n'", &[tree])
}

// ---------------------------------------------------------------- a round

/// A control plane with one drive, and two VMs.
struct Round {
    /// Dropped last: it is removed then.
    server: Server,
    admin: AdminClient,
    drive_id: String,
    /// Sends.
    one: Vm,
    /// Fetches.
    other: Vm,
    tree: PathBuf,
    files: u64,
    dir: tempfile::TempDir,
}

impl Round {
    async fn new(dir: &Path, tree: &Path, files: u64) -> Self {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let server = Server::start(&dir.path().join("server/data"));
        let admin = AdminClient::find(&dir.path().join("server/data")).await.unwrap().unwrap();
        let drive = admin.create_drive("Team", "write").await.unwrap();
        let drive_id = drive["drive_id"].as_str().unwrap().to_owned();
        let one = Vm::new(&admin, &server, &dir.path().join("one"), "vm-1").await;
        let other = Vm::new(&admin, &server, &dir.path().join("other"), "vm-2").await;
        Self { server, admin, drive_id, one, other, tree: tree.to_owned(), files, dir }
    }

    async fn run(mut self, table: &mut Table, idle: u64) {
        let copied = self.copy_to(&self.one.folder());
        self.hashing(table);
        self.up(table, copied).await;
        self.down(table).await;
        self.edit(table).await;
        self.memory(table);
        if idle > 0 {
            self.idle(table, idle).await;
        }
        self.restart(table).await;
        self.one.stop().await;
        self.other.stop().await;
        self.no_change(table);
        // It fails when they differ.
        let both: [&Path; 2] = [&self.one.folder(), &self.other.folder()];
        timed("diff -rq -x .panorama-sync \"$1\" \"$2\"", &both);
        drop(self.server);
        drop(self.dir);
    }

    /// The floor of a first copy.
    fn copy_to(&self, folder: &Path) -> f64 {
        std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
        timed("cp -a \"$1\" \"$2\"", &[&self.tree, folder])
    }

    fn hashing(&self, table: &mut Table) {
        let folder = self.one.folder();
        let one = timed("find \"$1\" -type f -print0 | xargs -0 sha256sum", &[&folder]);
        let two = timed("find \"$1\" -type f -print0 | xargs -0 -n 500 -P 2 sha256sum", &[&folder]);
        let disk = Disk::open(&folder, "vm", false, None).unwrap();
        let began = Instant::now();
        let seen = disk.scan(LocalTree::new(), &Scope::All).unwrap();
        let took = began.elapsed().as_secs_f64();
        assert!(seen.len() as u64 >= self.files);
        table.note("hash all, s, beside one sha256sum", "<= 1 x", took, Some(one));
        table.note("hash all, s, beside two at once", "", took, Some(two));
    }

    async fn up(&mut self, table: &mut Table, copied: f64) {
        let took = self.one.starts(self.files).await;
        let drives = self.admin.drives().await.unwrap();
        assert!(drives[0]["entries"].as_u64().unwrap() > self.files, "{drives:?}");
        table.note("first copy up, s", "<= 8 x cp -a", took, Some(copied));
    }

    async fn down(&mut self, table: &mut Table) {
        let took = self.other.starts(self.files).await;
        let copy = self.dir.path().join("copy");
        let copied = self.copy_to(&copy);
        std::fs::remove_dir_all(copy).unwrap();
        table.note("first copy down, s", "<= 4 x cp -a", took, Some(copied));
    }

    /// From a write to when it is at the server, and at the other VM.
    async fn edit(&self, table: &mut Table) {
        const PATH: &str = "part 000/folder 0000/a file 000007.bin";
        let content = format!("edited at {:?}", Instant::now());
        let there = self.other.folder().join(PATH);
        std::fs::write(self.one.folder().join(PATH), &content).unwrap();
        let began = Instant::now();
        let mut at_server = None;
        loop {
            if at_server.is_none() {
                let page = self.admin.drive_entries(&self.drive_id, PATH, "", false).await.unwrap();
                let size = page.entry.and_then(|entry| entry.size_bytes);
                if size == Some(content.len() as u64) {
                    at_server = Some(began.elapsed().as_secs_f64());
                }
            }
            if std::fs::read_to_string(&there).is_ok_and(|found| found == content) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "the edit does not arrive");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let arrived = began.elapsed().as_secs_f64();
        let at_server = at_server.unwrap_or(arrived);
        table.note("one edit, s to the server", "<= 1.5", at_server, None);
        table.note("one edit, s from there to the other VM", "<= 5.5", arrived - at_server, None);
    }

    fn memory(&self, table: &mut Table) {
        let of = |vm: &Vm, name: &str| memory(vm.pid(), name) as f64 / 1e6;
        table.note("memory, MB, peak of the VM that sent", "<= 50", of(&self.one, "VmHWM"), None);
        table.note(
            "memory, MB, peak of that which fetched",
            "<= 50",
            of(&self.other, "VmHWM"),
            None,
        );
        table.note("memory, MB, the same now", "", of(&self.other, "VmRSS"), None);
    }

    async fn idle(&self, table: &mut Table, seconds: u64) {
        self.one.is_up_to_date().await;
        self.other.is_up_to_date().await;
        // Files that were fetched a moment ago are read once more.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let pids = [self.one.pid(), self.other.pid()];
        let before = pids.map(cpu_ticks);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let used = (cpu_ticks(pids[0]) - before[0]) + (cpu_ticks(pids[1]) - before[1]);
        // 100 ticks a second on every Linux that this runs on; two VMs.
        let a_minute = used as f64 / 2.0 / 100.0 * 60.0 / seconds as f64;
        table.note("idle CPU, s a minute", "<= 0.15", a_minute, None);
    }

    /// A gateway that starts with all in place.
    async fn restart(&mut self, table: &mut Table) {
        self.other.stop().await;
        let took = self.other.starts(self.files).await;
        let peak = memory(self.other.pid(), "VmHWM") as f64 / 1e6;
        table.note("restart to up to date, s", "", took, Some(find(&self.other.folder())));
        table.note("memory, MB, peak after a restart", "<= 50", peak, None);
    }

    /// Only scan and plan, by the engine itself: what a look at everything takes.
    fn no_change(&self, table: &mut Table) {
        let folder = self.other.folder();
        let state = State::open(&self.other.state(&self.drive_id)).unwrap();
        let disk = Disk::open(&folder, "vm-2", false, None).unwrap();
        let silent = Silent { epoch: state.cursor().unwrap().unwrap().epoch };
        let settings = Settings::new(&self.drive_id, "vm-2");
        let mut engine =
            Engine::new(state, disk, silent, Real(Instant::now()), Real(Instant::now()), settings);
        for figure in ["no change, s, the first look", "no change, s, a further look"] {
            let began = Instant::now();
            let tick = engine.tick(&Look::everywhere()).unwrap();
            let took = began.elapsed().as_secs_f64();
            assert!(tick.at_rest, "{tick:?}");
            table.note(figure, "<= 2.5 x find", took, Some(find(&folder)));
        }
    }
}

/// A managed VM with drive sync on, as it is by default.
struct Vm {
    machine: Machine,
    dir: PathBuf,
    gateway: Option<Gateway>,
}

impl Vm {
    async fn new(admin: &AdminClient, server: &Server, dir: &Path, name: &str) -> Self {
        let token = admin.make_vm_token(Some(name), None).await.unwrap().token;
        let place = |name: &str| dir.join(name).display().to_string();
        let machine = Machine::new()
            .with("PANORAMA_SUPABASE_URL", format!("http://{}", server.address))
            .with("PANORAMA_SUPABASE_ANON_KEY", admin.info().await.unwrap().anon_key)
            .with("PANORAMA_VM_BOOTSTRAP_TOKEN", token)
            .with("PANORAMA_DRIVE_SYNC_ENABLED", "1")
            .with("PANORAMA_DRIVE_SYNC_ROOT", place("drives"))
            .with("PANORAMA_DRIVE_SYNC_STATE_DIR", place("state"));
        Self { machine, dir: dir.to_owned(), gateway: None }
    }

    fn folder(&self) -> PathBuf {
        self.dir.join("drives/team")
    }

    fn state(&self, drive_id: &str) -> PathBuf {
        self.dir.join("state").join(format!("{drive_id}.db"))
    }

    fn pid(&self) -> i32 {
        self.gateway.as_ref().unwrap().pid()
    }

    /// Starts it; seconds until disk and server are the same and hold so many files.
    async fn starts(&mut self, files: u64) -> f64 {
        let _ = std::fs::remove_file(self.dir.join("state/status.json"));
        let began = Instant::now();
        let args = ["start", "--foreground", "--mode", "managed"];
        self.gateway = Some(Gateway::silent(&mut self.machine.command(&args)));
        while self.is_up_to_date().await.entries <= files {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.report());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed().as_secs_f64()
    }

    async fn stop(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        gateway.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(gateway.ended().await.success());
    }

    fn report(&self) -> Option<DriveReport> {
        Report::read(&self.dir.join("state")).ok()??.drives.pop()
    }

    async fn is_up_to_date(&self) -> DriveReport {
        let began = Instant::now();
        loop {
            match self.report() {
                Some(report) if report.state == DriveState::UpToDate => return report,
                report => assert!(began.elapsed() < PATIENCE, "{report:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

// ---------------------------------------------------------------- an engine of its own

/// Time and chance as they are.
struct Real(Instant);

impl Clock for Real {
    fn wall(&self) -> i64 {
        i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Rng for Real {
    fn bits(&mut self) -> u64 {
        fastrand::u64(..)
    }
}

/// A server that has nothing new to tell, and is asked for nothing else.
struct Silent {
    epoch: String,
}

impl Drive for Silent {
    fn changes(&self, after: u64, _: u32) -> Result<Changes, RemoteError> {
        Ok(Changes { epoch: self.epoch.clone(), changes: Vec::new(), has_more: false, head: after })
    }

    fn snapshot(&self, _: Option<&str>) -> Result<SnapshotPage, RemoteError> {
        unreachable!()
    }

    fn digest(&self) -> Result<Digest, RemoteError> {
        unreachable!()
    }

    fn apply(&self, _: &[Write]) -> Vec<Result<Written, RemoteError>> {
        unreachable!()
    }

    fn send(&self, _: Vec<Upload<'_>>) -> Vec<Result<Written, RemoteError>> {
        unreachable!()
    }

    fn recall(&self, _: &[Recall]) -> Vec<Result<Option<Written>, RemoteError>> {
        unreachable!()
    }

    fn fetch(&self, _: Vec<Download<'_>>) -> Vec<Result<(), RemoteError>> {
        unreachable!()
    }
}
