//! That the judge finds what it is there for: losses are planted from outside, one kind at a time,
//! after a short run of which it finds nothing to say.
//!
//! The gateways stand still meanwhile (`SIGSTOP`), so that what is planted stays as it is.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use panorama_gateway::drive_sync::wire::{Delete, Operation};
use rusqlite::{Connection, params};

use crate::common::{PATIENCE, say, wait_until};
use crate::judge::Violation;
use crate::ledger::hash;
use crate::people::Desk;
use crate::team::{Team, Tree, conflict_copies, tree};

/// Times a line is in a content that does not go inside a request.
const LARGE: usize = 4000;

/// A run that has come to rest, and stands still.
struct Proof {
    team: Team,
    /// What is in a conflict copy.
    copy: (PathBuf, Vec<u8>),
    /// What lies in the first machine's trash, and in a version at the server.
    deleted: (PathBuf, Vec<u8>),
}

impl Proof {
    /// Two VMs, some files, a kill, a conflict, and a file that somebody deleted without having read
    /// it.
    async fn run() -> Self {
        let mut team = Team::of(2).await;
        let [one, other] = [0, 1].map(|at| Desk::new(&team.vms[at], &team));
        for place in ["a.txt", "b.txt", "conflict.txt", "deleted.txt"] {
            one.rewrite(place, 1).unwrap();
        }
        fs::create_dir(other.at("dir")).unwrap();
        other.rewrite("dir/large.txt", LARGE).unwrap();
        team.at_rest(PATIENCE).await;
        team.vms[1].kill().await;
        one.rewrite("conflict.txt", 1).unwrap();
        let mine = fs::read(one.at("conflict.txt")).unwrap();
        other.rewrite("conflict.txt", 1).unwrap();
        let theirs = fs::read(other.at("conflict.txt")).unwrap();
        let deleted = fs::read(other.at("deleted.txt")).unwrap();
        fs::remove_file(other.at("deleted.txt")).unwrap();
        team.vms[1].start();
        let end = team.at_rest(PATIENCE).await;
        team.judge("before losses are planted", &end).await;
        for vm in &team.vms {
            vm.freeze().await;
        }
        let copy = conflict_copies(&end)[0].clone();
        let bytes = if end[&copy] == hash(&mine) { mine } else { theirs };
        let file = in_the_trash(&one.at(".panorama-sync/trash"), &deleted);
        Self { copy: (copy, bytes), deleted: (file, deleted), team }
    }

    async fn finds(&self) -> Vec<Violation> {
        self.team.verdict().await.violations
    }

    fn at(&self, vm: usize, place: &str) -> PathBuf {
        self.team.vms[vm].folder().join(place)
    }

    fn lost(&self, bytes: &[u8]) -> Violation {
        Violation::Lost { what: self.team.ledger.what(&hash(bytes)) }
    }

    fn differs(&self, vm: usize, place: &str) -> Violation {
        Violation::Differs { vm: self.team.vms[vm].name.clone(), path: place.into() }
    }

    /// Plants something where a file is or may come, sees that this and nothing else is found, and
    /// makes it undone.
    async fn plant(&self, what: &str, at: &Path, does: impl FnOnce(&Path), found: &[Violation]) {
        let before =
            fs::metadata(at).ok().map(|facts| (fs::read(at).unwrap(), facts.permissions()));
        does(at);
        assert_eq!(self.finds().await, found, "{what}");
        if at.is_dir() {
            fs::remove_dir(at).unwrap();
        } else if at.exists() {
            fs::remove_file(at).unwrap();
        }
        if let Some((bytes, permissions)) = before {
            fs::write(at, bytes).unwrap();
            fs::set_permissions(at, permissions).unwrap();
        }
        assert_eq!(self.finds().await, [], "{what}, and undone");
        say(&format!("the judge finds {what}"));
    }

    fn database(&self) -> Connection {
        Connection::open(self.team.control.data_dir().join("sandbox.db")).unwrap()
    }

    /// As an engine would that takes one file's content for another's: all places of this content,
    /// here and at the server, have another one that is known to all.
    fn destroy(&self, place: &Path, bytes: &[u8]) {
        let other = fs::read(self.at(0, "b.txt")).unwrap();
        for vm in &self.team.vms {
            fs::write(vm.folder().join(place), &other).unwrap();
        }
        self.rewrite_versions(bytes, &other);
    }

    /// The versions of one content have another one's; which these were.
    fn rewrite_versions(&self, bytes: &[u8], other: &[u8]) -> Vec<String> {
        let database = self.database();
        let mut select =
            database.prepare("SELECT id FROM drive_versions WHERE sha256 = ?1").unwrap();
        let ids = select.query_map([hash(bytes)], |row| row.get(0)).unwrap();
        let ids: Vec<String> = ids.map(Result::unwrap).collect();
        assert_ne!(ids.len(), 0);
        self.set_versions(&ids, other);
        ids
    }

    fn set_versions(&self, ids: &[String], bytes: &[u8]) {
        let (database, size) = (self.database(), i64::try_from(bytes.len()).unwrap());
        for id in ids {
            for (table, key) in [("drive_versions", "id"), ("drive_changes", "version_id")] {
                let set = format!("UPDATE {table} SET sha256 = ?1, size = ?2 WHERE {key} = ?3");
                database.execute(&set, params![hash(bytes), size, id]).unwrap();
            }
        }
    }
}

/// The file with this content below a folder of the trash.
fn in_the_trash(trash: &Path, bytes: &[u8]) -> PathBuf {
    let files: Tree = tree(trash);
    let found = files.iter().find(|(_, what)| **what == hash(bytes));
    trash.join(found.expect("it is in the trash").0)
}

/// The last byte is another one.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file, bytes).unwrap();
}

fn remove(file: &Path) {
    fs::remove_file(file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judge_finds_every_planted_loss_and_nothing_else() {
    let proof = Proof::run().await;
    assert_eq!(proof.finds().await, [], "an untouched run");

    // A machine that has something else than the server.
    let a = proof.at(1, "a.txt");
    let differs = [proof.differs(1, "a.txt")];
    proof.plant("a byte that is another one", &a, flip, &differs).await;
    proof.plant("a file that is missing", &a, remove, &differs).await;
    let executable =
        |file: &Path| fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
    proof.plant("a file that became executable", &a, executable, &differs).await;
    let folder = |file: &Path| {
        remove(file);
        fs::create_dir(file).unwrap();
    };
    proof.plant("a folder in a file's place", &a, folder, &differs).await;
    let more = |at: &Path| drop(File::create(at).unwrap());
    let added = [proof.differs(0, "dir/more")];
    proof.plant("a file more", &proof.at(0, "dir/more"), more, &added).await;
    let empty = |at: &Path| fs::create_dir(at).unwrap();
    proof.plant("an empty folder more", &proof.at(0, "dir/more"), empty, &added).await;

    only_in_a_version(&proof).await;
    only_in_the_trash(&proof).await;
    only_at_the_server(&proof).await;
    without_rest().await;

    // The same content is destroyed wherever it is, so that all are the same: at its place …
    let gone = fs::read(proof.at(0, "a.txt")).unwrap();
    proof.destroy(Path::new("a.txt"), &gone);
    assert_eq!(proof.finds().await, [proof.lost(&gone)], "the content of a.txt");
    // … and in a conflict copy.
    let (copy, copied) = &proof.copy;
    proof.destroy(copy, copied);
    let mut both = [proof.lost(&gone), proof.lost(copied)];
    both.sort();
    assert_eq!(proof.finds().await, both, "the content of the conflict copy, too");
    // Unless somebody who had it before his eyes replaced it.
    proof.team.ledger.replaces(&gone);
    assert_eq!(proof.finds().await, [proof.lost(copied)], "what was replaced is not owed");
    say("the judge finds contents that are nowhere any more");
}

/// What the trash does not have any more, and then the server does not give either.
async fn only_in_a_version(proof: &Proof) {
    let (file, deleted) = &proof.deleted;
    remove(file);
    assert_eq!(proof.finds().await, [], "it is enough that it is in a version");
    let path = "deleted.txt".to_owned();
    let what = proof.team.ledger.what(&hash(deleted));
    let withheld = [Violation::Withheld { path, what }];
    for (set, value) in [("other bytes", Some(vec![0_u8; deleted.len()])), ("none", None)] {
        let update = "UPDATE contents SET bytes = ?1 WHERE sha256 = ?2";
        proof.database().execute(update, params![value, hash(deleted)]).unwrap();
        assert_eq!(proof.finds().await, withheld, "{set}");
        proof.database().execute(update, params![deleted, hash(deleted)]).unwrap();
        assert_eq!(proof.finds().await, [], "{set}, and undone");
    }
    fs::write(file, deleted).unwrap();
    say("the judge finds a version that the server does not give");
    // The same of what is at a path, and at the server in a file.
    let large = hash(&fs::read(proof.at(0, "dir/large.txt")).unwrap());
    let objects = proof.team.control.data_dir().join("objects");
    let object = objects.join(&large[..2]).join(&large);
    let what = proof.team.ledger.what(&large);
    let withheld = [Violation::Withheld { path: "dir/large.txt".to_owned(), what }];
    proof.plant("a content that the server has lost", &object, remove, &withheld).await;
    proof.plant("a content that is damaged at the server", &object, flip, &withheld).await;
}

/// What the server has no version of any more, and then the trash does not have either.
async fn only_in_the_trash(proof: &Proof) {
    let (file, deleted) = &proof.deleted;
    let other = fs::read(proof.at(0, "b.txt")).unwrap();
    let versions = proof.rewrite_versions(deleted, &other);
    assert_eq!(proof.finds().await, [], "it is enough that it is in the trash");
    let lost = [proof.lost(deleted)];
    proof.plant("a content that is gone from the trash", file, remove, &lost).await;
    proof.plant("a content that is damaged in the trash", file, flip, &lost).await;
    let stage = |file: &Path| {
        fs::rename(file, proof.at(0, ".panorama-sync/stage/unfinished")).unwrap();
    };
    proof.plant("a content that is only among the downloads", file, stage, &lost).await;
    remove(&proof.at(0, ".panorama-sync/stage/unfinished"));
    proof.set_versions(&versions, deleted);
    assert_eq!(proof.finds().await, [], "as before");
}

/// What no machine has, and what should never have come there.
async fn only_at_the_server(proof: &Proof) {
    for (path, what, stays) in [
        ("only-there.txt", "a file that came to no machine", vec![]),
        (
            "dir/.~lock.a.odt#",
            "a name that takes no part",
            vec![Violation::TakesNoPart { path: "dir/.~lock.a.odt#".to_owned() }],
        ),
    ] {
        let before = proof.finds().await;
        assert!(proof.team.put(path, b"planted", None).await);
        let mut found = vec![proof.differs(0, path), proof.differs(1, path)];
        found.extend(stays.clone());
        assert_eq!(proof.finds().await, found, "{what}");
        let version = proof.team.versions_now().await.into_iter().find(|(at, ..)| at == path);
        let operation = Delete {
            path: path.to_owned(),
            expected_version_id: version.map(|(.., wanted)| wanted.version_id),
            expect_empty: false,
            operation_id: format!("proof-{path}"),
        };
        assert!(proof.team.change(Operation::Delete(operation)).await);
        assert_eq!(proof.finds().await, [before, stays].concat(), "{what}, and undone");
        // So that it is not in the way of what comes.
        let forget = "DELETE FROM drive_changes WHERE path = ?1";
        proof.database().execute(forget, [path]).unwrap();
        assert_eq!(proof.finds().await, [], "{what}, and forgotten");
        say(&format!("the judge finds {what}"));
    }
}

/// Equal trees are not enough: a gateway that was killed left word that all is well.
async fn without_rest() {
    let mut team = Team::of(2).await;
    let end = team.at_rest(PATIENCE).await;
    team.vms[0].kill().await;
    let restless = |team: &Team| Vec::from_iter(team.unrest(&end));
    let found = [Violation::NotAtRest { vm: team.vms[0].name.clone() }];
    assert_eq!(restless(&team), found, "a gateway that was killed while it was at rest");
    team.vms[0].start();
    team.at_rest(PATIENCE).await;
    let gateway = team.vms[0].machine.config()["gatewayId"].as_str().unwrap().to_owned();
    let admin = &team.control.admin;
    admin.set_drive_access(&team.drive_id, &gateway, "none").await.unwrap();
    wait_until("it to be told", || async { (restless(&team) == found).then_some(()) }).await;
    say("the judge finds a gateway that is not at rest");
}
