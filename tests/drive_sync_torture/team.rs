//! A control plane with a drive, and the VMs that mirror it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, fs};

use panorama_gateway::drive_sync::wire::{Entry, Wanted};
use rusqlite::{Connection, OpenFlags};

use crate::common::{ControlPlane, Machine};
use crate::judge::Violation;
use crate::ledger::{Ledger, hash};
use crate::vm::Vm;

/// What is at each path: a folder, or a content and whether it may be executed.
pub(crate) type Tree = BTreeMap<PathBuf, String>;

/// Differences of two trees that are told.
const TOLD: usize = 20;

/// Everybody who works on the drive.
pub(crate) struct Team {
    pub(crate) control: ControlPlane,
    pub(crate) drive_id: String,
    pub(crate) vms: Vec<Vm>,
    pub(crate) ledger: Arc<Ledger>,
}

/// Something that became of the drive at the server.
pub(crate) struct Change {
    text: String,
    pub(crate) path: String,
    /// Of a content that is still there.
    pub(crate) hash: Option<String>,
    wanted: Wanted,
}

/// A version at the server: its path, its content's hash, and how to get it.
pub(crate) type Version = (String, String, Wanted);

impl Change {
    pub(crate) fn version(&self) -> Version {
        (self.path.clone(), self.hash.clone().unwrap_or_default(), self.wanted.clone())
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.text)
    }
}

impl Team {
    /// So many usual VMs, started.
    pub(crate) async fn of(vms: usize) -> Self {
        let mut team = Self::on((0..vms).map(|_| Machine::new()).collect()).await;
        for vm in &mut team.vms {
            vm.start();
        }
        for vm in &team.vms {
            vm.is_up_to_date().await;
        }
        team
    }

    /// VMs on these machines, to be started.
    pub(crate) async fn on(machines: Vec<Machine>) -> Self {
        let control = ControlPlane::start().await;
        let drive = control.admin.create_drive("Team", "write").await.unwrap();
        let drive_id = drive["drive_id"].as_str().unwrap().to_owned();
        let mut vms = Vec::new();
        for (number, machine) in (1..).zip(machines) {
            vms.push(Vm::new(machine, &control, &format!("vm-{number}")).await);
        }
        Self { control, drive_id, vms, ledger: Arc::default() }
    }

    async fn all_entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut after = String::new();
        loop {
            let admin = &self.control.admin;
            let page = admin.drive_entries(&self.drive_id, "", &after, true).await.unwrap();
            after = page.entries.last().map(|entry| entry.path.clone()).unwrap_or_default();
            entries.extend(page.entries);
            if !page.has_more {
                return entries;
            }
        }
    }

    /// All that is at the server.
    pub(crate) async fn at_server(&self) -> Tree {
        self.all_entries().await.iter().map(|entry| ((&entry.path).into(), kind(entry))).collect()
    }

    /// The version of each file that is at the server.
    pub(crate) async fn versions_now(&self) -> Vec<Version> {
        let version = |entry: Entry| {
            let wanted = Wanted { entry_id: entry.id, version_id: entry.current_version_id };
            entry.content_sha256.map(|hash| (entry.path, hash, wanted))
        };
        self.all_entries().await.into_iter().filter_map(version).collect()
    }

    /// Until all machines and the server have the same and say so; what they have.
    pub(crate) async fn at_rest(&self, patience: Duration) -> Tree {
        let deadline = Instant::now() + patience;
        loop {
            let late = Instant::now() >= deadline;
            self.let_deletions_go().await;
            if late || self.all_say_so() {
                let server = self.at_server().await;
                let unrest = self.unrest(&server);
                if unrest.is_empty() {
                    return server;
                }
                assert!(!late, "no rest: {}", self.differences(&server, unrest));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Those that are held are meant.
    async fn let_deletions_go(&self) {
        for vm in &self.vms {
            if vm.news().is_some_and(|report| report.held.is_some()) {
                vm.machine.run_async(&["drive-sync", "release-deletions"]).await;
            }
        }
    }

    fn all_say_so(&self) -> bool {
        self.vms.iter().all(Vm::says_up_to_date)
    }

    fn differences(&self, server: &Tree, unrest: BTreeSet<Violation>) -> String {
        let mut text = String::new();
        for vm in &self.vms {
            let _ = writeln!(text, "\n{}: {:#?}", vm.name, vm.report());
        }
        for violation in unrest.into_iter().take(TOLD) {
            let _ = writeln!(text, "  {violation:?}");
            if let Violation::Differs { vm, path } = violation {
                let vm = self.vms.iter().find(|one| one.name == vm).unwrap();
                let what = |tree: &Tree| match tree.get(&path) {
                    None => "nothing".to_owned(),
                    Some(there) if there == "folder" => there.clone(),
                    Some(there) => self.ledger.what(there.trim_end_matches(" x")),
                };
                let (here, there) = (what(&tree(&vm.folder())), what(server));
                let _ = writeln!(text, "    {here:?}, at the server {there:?}");
            }
        }
        let history = self.history();
        let _ = writeln!(text, "the last changes: {:#?}", &history[history.len().max(60) - 60..]);
        text
    }

    /// What the server has kept of the drive.
    pub(crate) fn history(&self) -> Vec<Change> {
        let database = self.control.data_dir().join("sandbox.db");
        let database =
            Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut select = database
            .prepare(
                "SELECT change, path, coalesce(client_key, 'admin'),
                     (SELECT sha256 FROM drive_versions WHERE id = version_id),
                     entry_id, coalesce(version_id, '')
                 FROM drive_changes ORDER BY sequence",
            )
            .unwrap();
        let rows = select
            .query_map([], |row| {
                let hash: Option<String> = row.get(3)?;
                let what = hash.as_ref().map(|hash| self.ledger.what(hash)).unwrap_or_default();
                let [change, path, who] = [row.get::<_, String>(0)?, row.get(1)?, row.get(2)?];
                let text = format!("{change} {path} by {who}: {what}");
                let wanted = Wanted { entry_id: row.get(4)?, version_id: row.get(5)? };
                Ok(Change { text, path, hash, wanted })
            })
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Everybody ends in good order.
    pub(crate) async fn leave(mut self) {
        for vm in &mut self.vms {
            vm.stop().await;
        }
    }
}

pub(crate) fn conflict_copies(tree: &Tree) -> Vec<&PathBuf> {
    tree.keys().filter(|path| path.display().to_string().contains("(conflict")).collect()
}

fn kind(entry: &Entry) -> String {
    let executable = entry.metadata.mode.is_some_and(|mode| mode & 0o100 != 0);
    match &entry.content_sha256 {
        None => "folder".to_owned(),
        Some(hash) if executable => format!("{hash} x"),
        Some(hash) => hash.clone(),
    }
}

/// What a person sees in a folder.
pub(crate) fn tree(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    visible(folder, folder, &mut tree);
    tree
}

fn visible(folder: &Path, below: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(folder).unwrap().to_owned();
        if name.starts_with(".panorama-sync") {
            continue;
        }
        if path.is_dir() {
            tree.insert(name, "folder".to_owned());
            visible(folder, &path, tree);
        } else if let (Ok(bytes), Ok(facts)) = (fs::read(&path), fs::metadata(&path)) {
            let executable = facts.permissions().mode() & 0o100 != 0;
            let mark = if executable { " x" } else { "" };
            tree.insert(name, format!("{}{mark}", hash(&bytes)));
        }
    }
}
