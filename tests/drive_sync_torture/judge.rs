//! The judge at the end of a run: what must hold then, and what of it does not.
//!
//! It tells violations and asserts nothing, so that [`crate::proof`] can show that it finds them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use panorama_gateway::drive_sync::disk::IGNORED;
use panorama_gateway::drive_sync::wire::Wanted;

use crate::common::say;
use crate::ledger::hash;
use crate::team::{Change, Team, Tree, conflict_copies, tree};

/// Contents of the server's that are fetched: of those that are nowhere else, and of those that are
/// at a path.
const FETCHED: usize = 500;
/// The engine's own folder, in which people find only the trash.
const OWN: &str = ".panorama-sync";

/// What must not be when all have come to rest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// No gateway of this machine says that its drive is up to date.
    NotAtRest { vm: String },
    /// The machine and the server do not have the same at this path.
    Differs { vm: String, path: PathBuf },
    /// What somebody wrote, and nobody who had seen it replaced, is nowhere where it can be found.
    Lost { what: String },
    /// The server does not give what it says that it keeps, or something else.
    Withheld { path: String, what: String },
    /// A name that takes no part came to the server.
    TakesNoPart { path: String },
}

/// What the judge has found, with its figures.
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) owed: usize,
    pub(crate) only_versions: usize,
}

impl Team {
    /// What is still missing for rest.
    pub(crate) fn unrest(&self, server: &Tree) -> BTreeSet<Violation> {
        let restless = self.vms.iter().filter(|vm| !vm.says_up_to_date());
        let restless = restless.map(|vm| Violation::NotAtRest { vm: vm.name.clone() });
        restless.chain(self.different(server)).collect()
    }

    fn different(&self, server: &Tree) -> BTreeSet<Violation> {
        let mut found = BTreeSet::new();
        for vm in &self.vms {
            let here = tree(&vm.folder());
            let paths: BTreeSet<_> = server.keys().chain(here.keys()).collect();
            let differ = paths.into_iter().filter(|path| server.get(*path) != here.get(*path));
            found.extend(
                differ.map(|path| Violation::Differs { vm: vm.name.clone(), path: path.clone() }),
            );
        }
        found
    }

    /// All but whether the gateways say that they rest: every machine has what the server has; every
    /// content that is owed is at a path, in a conflict copy, in a trash or among the server's
    /// versions; the server gives what it keeps, and never heard of what takes no part.
    pub(crate) async fn verdict(&self) -> Verdict {
        let (owed, history) = (self.ledger.owed(), self.history());
        let mut found = self.different(&self.at_server().await);
        let mut here = BTreeSet::new();
        for vm in &self.vms {
            contents(&vm.folder(), &mut here);
        }
        let only_versions: BTreeSet<String> = owed.difference(&here).cloned().collect();
        found.extend(self.withheld(&only_versions, &history).await);
        let there: BTreeSet<String> =
            history.iter().filter_map(|change| change.hash.clone()).collect();
        let lost = only_versions.difference(&there);
        found.extend(lost.map(|hash| Violation::Lost { what: self.ledger.what(hash) }));
        let odd = history.iter().filter(|change| is_ignored(&change.path));
        found.extend(odd.map(|change| Violation::TakesNoPart { path: change.path.clone() }));
        Verdict {
            violations: found.into_iter().collect(),
            owed: owed.len(),
            only_versions: only_versions.len(),
        }
    }

    /// What the server should give and does not: contents that are only in a version, and those that
    /// are at a path now.
    async fn withheld(&self, hashes: &BTreeSet<String>, history: &[Change]) -> Vec<Violation> {
        let mut left: BTreeSet<&str> = hashes.iter().map(String::as_str).take(FETCHED).collect();
        let is_wanted =
            |change: &&Change| change.hash.as_ref().is_some_and(|hash| left.remove(hash.as_str()));
        let mut wanted: Vec<_> = history.iter().filter(is_wanted).map(Change::version).collect();
        wanted.extend(self.versions_now().await.into_iter().take(FETCHED));
        let mut withheld = Vec::new();
        for (path, hash, wanted) in wanted {
            if let Err(why) = self.gives(&hash, wanted).await {
                withheld.push(Violation::Withheld { path, what: self.ledger.what(&hash) });
                say(&format!("the server does not give {hash}: {why}"));
            }
        }
        withheld
    }

    async fn gives(&self, expected: &str, wanted: Wanted) -> Result<(), String> {
        let answer = self.control.admin.open_content(&self.drive_id, wanted).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let bytes = answer.bytes().await.map_err(|error| error.to_string())?;
        if hash(&bytes) == expected { Ok(()) } else { Err(format!("{} other bytes", bytes.len())) }
    }

    /// Everything in good order.
    pub(crate) async fn judge(&self, what: &str, end: &Tree) {
        let verdict = self.verdict().await;
        let history = self.history();
        assert!(
            verdict.violations.is_empty(),
            "{what}: {:#?}; the drive's history:\n{history:#?}",
            verdict.violations
        );
        say(&format!(
            "{what}: {} contents written, {} owed, {} changes at the server, {} entries at the \
             end, {} of them conflict copies; nothing lost, {} only in a version of the \
             server",
            self.ledger.written(),
            verdict.owed,
            history.len(),
            end.len(),
            conflict_copies(end).len(),
            verdict.only_versions
        ));
    }
}

fn is_ignored(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap();
    IGNORED.iter().any(|pattern| match pattern.split_once('*') {
        Some((start, end)) => name.starts_with(start) && name.ends_with(end),
        None => name == *pattern,
    })
}

/// Hashes of all files that a person can find in a folder, those in the trash with them.
fn contents(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == OWN {
            contents(&path.join("trash"), found);
        } else if path.is_dir() {
            contents(&path, found);
        } else if let Ok(bytes) = fs::read(&path) {
            found.insert(hash(&bytes));
        }
    }
}
