//! Two VMs and somebody at the server work on the same few files while gateways are killed.
//!
//! Every content that anybody wrote has to be somewhere at the end: at a path, in a conflict copy, in
//! the trash, or among the server's versions; unless whoever wrote over it had it before his eyes.
//! `PANORAMA_DRIVE_TORTURE_SEED` and `PANORAMA_DRIVE_TORTURE_KILLS` set the run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

use panorama_gateway::drive_sync::model::Sha256 as Hash;
use panorama_gateway::drive_sync::wire::{Inline, Operation, OperationResult, PutFile};
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};

use crate::common::{ControlPlane, say, setting, wait_until};
use crate::vm::Vm;

/// Names that collide often enough, and folders that come and go.
const NAMES: [&str; 7] = ["a.txt", "b.txt", "c", "dir/a.txt", "dir/b.txt", "dir/in/a", "dir"];
/// In CI.
const KILLS: u64 = 25;

struct Torture {
    control: ControlPlane,
    drive_id: String,
    rng: fastrand::Rng,
    written: u64,
    /// Hashes of contents that have to be somewhere.
    owed: BTreeSet<String>,
    /// What each of them was, for the report of a failure.
    what: BTreeMap<String, String>,
}

fn hash(bytes: &[u8]) -> String {
    Hash(Sha256::digest(bytes).into()).hex()
}

/// Something that became of the drive at the server.
struct Change {
    text: String,
    /// Of a content that is still there.
    hash: Option<String>,
}

impl fmt::Debug for Change {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.text)
    }
}

impl Torture {
    /// A content that nobody has written before; some are larger than what goes inside a request.
    fn content(&mut self, who: &str, place: &str) -> Vec<u8> {
        self.written += 1;
        let text = format!("{who} wrote {place} as number {}\n", self.written);
        let times = if self.rng.u8(..) < 30 { 3000 } else { 1 };
        let bytes = text.repeat(times).into_bytes();
        self.what.insert(hash(&bytes), text);
        bytes
    }

    fn owe(&mut self, bytes: &[u8]) {
        self.owed.insert(hash(bytes));
    }

    /// Whoever does something to a file has it before his eyes.
    fn sees(&mut self, file: &Path) {
        if let Ok(bytes) = fs::read(file) {
            self.owed.remove(&hash(&bytes));
        }
    }

    /// Something that a person or a program does on a VM.
    fn act(&mut self, vm: &Vm) {
        let place = NAMES[self.rng.usize(..NAMES.len())];
        let file = vm.folder().join(place);
        if let Some(folder) = file.parent() {
            let _ = fs::create_dir_all(folder);
        }
        match self.rng.u8(..10) {
            // In place, as vi with backupcopy and most programs do.
            0..4 => {
                let bytes = self.content(&vm.name, place);
                self.sees(&file);
                if fs::write(&file, &bytes).is_ok() {
                    self.owe(&bytes);
                }
            }
            // To a temporary file that takes the place, as editors and git do.
            4..7 => {
                let bytes = self.content(&vm.name, place);
                let temp = vm.folder().join(format!(".{}.tmp", self.written));
                if fs::write(&temp, &bytes).is_ok() {
                    self.sees(&file);
                    match fs::rename(&temp, &file) {
                        Ok(()) => self.owe(&bytes),
                        Err(_) => drop(fs::remove_file(&temp)),
                    }
                }
            }
            7 => {
                self.sees(&file);
                let _ = fs::remove_file(&file);
            }
            8 => {
                let to = vm.folder().join(NAMES[self.rng.usize(..NAMES.len())]);
                if file.is_file() && !to.is_dir() {
                    self.sees(&to);
                    let _ = fs::rename(&file, &to);
                }
            }
            _ => {
                let _ = fs::remove_dir(vm.folder().join("dir/in"));
            }
        }
    }

    /// The same by somebody at the server, who replaces what he sees there.
    async fn act_at_server(&mut self) {
        let place = NAMES[self.rng.usize(..NAMES.len() - 1)];
        let admin = &self.control.admin;
        let Ok(page) = admin.drive_entries(&self.drive_id, "", "", true).await else { return };
        let there = page.entries.into_iter().find(|entry| entry.path == place);
        let bytes = self.content("server", place);
        let put = Operation::Put {
            file: PutFile {
                path: place.to_owned(),
                size_bytes: bytes.len() as u64,
                content_sha256: hash(&bytes),
                mime_type: None,
                metadata: panorama_gateway::drive_sync::wire::Metadata::default(),
                expected_version_id: there.as_ref().map(|entry| entry.current_version_id.clone()),
                operation_id: format!("torture-{}", self.written),
            },
            content: Inline(bytes.clone()),
        };
        if bytes.len() > 60_000 {
            return;
        }
        let done = self.control.admin.change_drive(&self.drive_id, vec![put]).await.unwrap();
        if matches!(done.results[..], [OperationResult::Done(_)]) {
            if let Some(replaced) = there.and_then(|entry| entry.content_sha256) {
                self.owed.remove(&replaced);
            }
            self.owe(&bytes);
        }
    }

    /// What the server has kept of the drive.
    fn history(&self) -> Vec<Change> {
        let database = Connection::open_with_flags(
            self.control.data_dir().join("sandbox.db"),
            OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .unwrap();
        let mut select = database
            .prepare(
                "SELECT change, path, coalesce(client_key, 'admin'),
                     (SELECT sha256 FROM drive_versions WHERE id = version_id)
                 FROM drive_changes ORDER BY sequence",
            )
            .unwrap();
        let rows = select
            .query_map([], |row| {
                let hash: Option<String> = row.get(3)?;
                let what = hash.as_ref().and_then(|hash| self.what.get(hash));
                let text = what.map_or("", |what| what.trim_end());
                let [change, path, who] = [row.get::<_, String>(0)?, row.get(1)?, row.get(2)?];
                Ok(Change { text: format!("{change} {path} by {who}: {text}"), hash })
            })
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Hashes of all files below a folder.
    fn hashes(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                Self::hashes(&path, found);
            } else if let Ok(bytes) = fs::read(&path) {
                found.insert(hash(&bytes));
            }
        }
    }

    fn visible(folder: &Path, below: &Path, files: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(below).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if name.starts_with(".panorama-sync") {
                continue;
            }
            if path.is_dir() {
                files.insert(name, "folder".to_owned());
                Self::visible(folder, &path, files);
            } else if let Ok(bytes) = fs::read(&path) {
                files.insert(name, hash(&bytes));
            }
        }
    }

    fn tree(vm: &Vm) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        Self::visible(&vm.folder(), &vm.folder(), &mut files);
        files
    }

    async fn at_server(&self) -> BTreeMap<PathBuf, String> {
        let page = self.control.admin.drive_entries(&self.drive_id, "", "", true).await.unwrap();
        assert!(!page.has_more);
        page.entries
            .into_iter()
            .map(|entry| {
                let what = entry.content_sha256.unwrap_or_else(|| "folder".to_owned());
                (entry.path.into(), what)
            })
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_anybody_wrote_is_lost() {
    let seed = setting("PANORAMA_DRIVE_TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = setting("PANORAMA_DRIVE_TORTURE_KILLS").unwrap_or(KILLS);
    say(&format!("drive sync torture: PANORAMA_DRIVE_TORTURE_SEED={seed}, {kills} kills"));
    let control = ControlPlane::start().await;
    let drive = control.admin.create_drive("Team", "write").await.unwrap();
    let drive_id = drive["drive_id"].as_str().unwrap().to_owned();
    let mut vms = [Vm::new(&control, "vm-1").await, Vm::new(&control, "vm-2").await];
    let mut torture = Torture {
        control,
        drive_id,
        rng: fastrand::Rng::with_seed(seed),
        written: 0,
        owed: BTreeSet::new(),
        what: BTreeMap::new(),
    };
    for vm in &mut vms {
        vm.start();
        vm.is_up_to_date().await;
    }
    for _ in 0..kills {
        for _ in 0..torture.rng.u32(1..6) {
            let vm = &vms[torture.rng.usize(..2)];
            torture.act(vm);
            if torture.rng.u8(..) < 60 {
                torture.act_at_server().await;
            }
            // Some acts fall into one look of the engine, some into several.
            let pause = Duration::from_millis(torture.rng.u64(..60));
            tokio::time::sleep(pause).await;
        }
        let pause = Duration::from_millis(torture.rng.u64(..400));
        tokio::time::sleep(pause).await;
        let vm = &mut vms[torture.rng.usize(..2)];
        vm.kill().await;
        vm.start();
    }
    let end = wait_until("disks and server to be the same", || async {
        for vm in &vms {
            // Deletions of most of such a small drive are meant here.
            let _ = vm.report()?;
            vm.machine.run_async(&["drive-sync", "release-deletions"]).await;
            vm.is_up_to_date().await;
        }
        let server = torture.at_server().await;
        vms.iter().all(|vm| Torture::tree(vm) == server).then_some(server)
    })
    .await;
    let mut found = BTreeSet::new();
    for vm in &vms {
        Torture::hashes(&vm.folder(), &mut found);
    }
    let history = torture.history();
    let only_versions = torture.owed.difference(&found).count();
    found.extend(history.iter().filter_map(|change| change.hash.clone()));
    let lost: Vec<_> =
        torture.owed.difference(&found).map(|hash| torture.what[hash].trim_end()).collect();
    assert!(
        lost.is_empty(),
        "seed {seed}: lost: {lost:#?}; the drive's history:
{history:#?}"
    );
    let copies = end.keys().filter(|path| path.display().to_string().contains("(conflict"));
    say(&format!(
        "drive sync torture: {} contents written, {} owed, {} entries at the end, {} of them \
         conflict copies; nothing lost, {only_versions} only in a version of the server",
        torture.written,
        torture.owed.len(),
        end.len(),
        copies.count()
    ));
    for vm in &mut vms {
        vm.stop().await;
    }
}
