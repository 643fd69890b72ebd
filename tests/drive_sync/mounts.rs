//! Drives on a real disk (an image with a file system of its own) that is taken away and comes back,
//! while the real binary runs, and while it does not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use panorama_gateway::config::Environment;
use panorama_gateway::drive_sync::keeper::report::{DriveReport, DriveState};
use tempfile::TempDir;

use crate::common::{ControlPlane, Machine, say, wait_until};
use crate::scene::files_below;
use crate::vm::Vm;

/// Sparse: a drive needs 250 MB free for what it fetches.
const SIZE: u64 = 400 << 20;

/// Runs a program as the first process of a container.
const CONTAINER: &str = "unshare --pid --fork --kill-child --mount-proc";

/// The device's, as the kernel counts them.
fn number(at: &Path) -> u64 {
    fs::metadata(at).unwrap().dev()
}

fn run(command: &[&str]) -> Result<String, String> {
    let ran = Command::new(command[0]).args(&command[1..]).output();
    let ran = ran.map_err(|error| format!("{}: {error}", command[0]))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if ran.status.success() { Ok(text(&ran.stdout)) } else { Err(text(&ran.stderr)) }
}

/// A disk that can be mounted, at another number each time if that is wanted.
struct Plugged {
    dir: TempDir,
    /// Where it is mounted.
    at: PathBuf,
    devices: Vec<String>,
}

impl Plugged {
    /// A new one, mounted; why not, where this machine does not let us.
    fn at(at: &Path) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Self { dir, at: at.to_owned(), devices: Vec::new() };
        let image = disk.image();
        fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
        run(&["mkfs.ext4", "-q", "-F", &image])?;
        let device = disk.attach()?;
        fs::create_dir_all(at).unwrap();
        disk.mount(&device)?;
        Ok(disk)
    }

    fn image(&self) -> String {
        self.dir.path().join("disk.img").display().to_string()
    }

    /// Gives it a number that it has not had yet.
    fn attach(&mut self) -> Result<String, String> {
        let device = run(&["losetup", "--find", "--show", &self.image()])?;
        self.devices.push(device.clone());
        Ok(device)
    }

    fn mount(&self, device: &str) -> Result<(), String> {
        run(&["mount", device, &self.at.display().to_string()]).map(drop)
    }

    /// As a disk goes whose programs still have it open.
    fn unplug(&self) {
        run(&["umount", "--lazy", &self.at.display().to_string()]).unwrap();
    }

    /// The first device stays in use, so that it gets another.
    fn comes_back_as_another(&mut self) {
        let before = number(&self.at);
        self.unplug();
        let device = self.attach().unwrap();
        self.mount(&device).unwrap();
        assert_ne!(number(&self.at), before);
    }

    fn first(&self) -> &str {
        &self.devices[0]
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        let _ = run(&["umount", "--lazy", &self.at.display().to_string()]);
        for device in &self.devices {
            let _ = run(&["losetup", "--detach", device]);
        }
    }
}

/// A VM whose drives lie on a disk of their own, or a note why there is none; no excuse where CI says
/// that there must be.
fn plugged() -> Option<(Machine, Plugged)> {
    let machine = Machine::new();
    match Plugged::at(&machine.home().join("drives")) {
        Ok(disk) => Some((machine, disk)),
        Err(why) => {
            say(&format!("SKIPPED: drives on a disk that is taken away: {why}"));
            // Loop devices are the kernel's, and cannot be installed.
            let could = Path::new("/dev/loop-control").exists();
            let in_ci = Environment::of_process().get("CI") == Some("true");
            assert!(!(could && in_ci), "skipped under CI");
            None
        }
    }
}

/// A drive with some files on two VMs, the first of which has it on a disk that can be taken away.
struct Scene {
    control: ControlPlane,
    drive: String,
    one: Vm,
    other: Vm,
}

impl Scene {
    async fn on(machine: Machine) -> Self {
        let control = ControlPlane::start().await;
        let drive = control.admin.create_drive("Team", "write").await.unwrap();
        let drive = drive["drive_id"].as_str().unwrap().to_owned();
        let mut one = Vm::new(machine, &control, "vm-1").await;
        let mut other = Vm::new(Machine::new(), &control, "vm-2").await;
        one.start();
        other.start();
        one.is_up_to_date().await;
        other.is_up_to_date().await;
        for number in 0..6 {
            fs::write(one.folder().join(format!("f{number}")), "old").unwrap();
        }
        let scene = Self { control, drive, one, other };
        scene.is_the_same(6).await;
        scene
    }

    async fn files(&self) -> usize {
        let admin = &self.control.admin;
        admin.drive_entries(&self.drive, "", "", true).await.unwrap().entries.len()
    }

    /// Until both have so many files, and the same ones.
    async fn is_the_same(&self, files: usize) -> DriveReport {
        wait_until(&format!("both to have the same {files} files"), || async {
            let reports = [self.one.news()?, self.other.news()?];
            let rest = reports.iter().all(|report| report.state == DriveState::UpToDate);
            let (here, there) =
                (files_below(&self.one.folder()), files_below(&self.other.folder()));
            let is_so = rest && here == there && here.len() == files;
            (is_so && self.files().await == files).then(|| reports[0].clone())
        })
        .await
    }

    /// The first VM's drive is stopped, it is said why, and the other one keeps all.
    async fn is_stopped(&self, why: &str) {
        let report = wait_until("the drive to be stopped", || async {
            self.one.news().filter(|report| report.state == DriveState::Stopped)
        })
        .await;
        let reason = report.reason.unwrap_or_default();
        assert!(reason.contains(why), "{reason}");
        let status = self.one.machine.run_async(&["drive-sync", "status"]).await;
        assert_eq!(status.code, 1, "{status:?}");
        assert!(status.stdout.starts_with("Team  stopped"), "{status:?}");
        assert!(status.stdout.contains(why), "{status:?}");
        say(&format!("a disk that is not there: {reason}"));
    }

    /// Somebody else works on: one file is edited, one deleted, one added.
    async fn others_go_on(&self, round: &str) {
        let there = self.other.folder();
        fs::write(there.join("f0"), format!("edited in {round}")).unwrap();
        fs::write(there.join(format!("new in {round}")), "").unwrap();
        let new = format!("new in {round}");
        let admin = &self.control.admin;
        wait_until("the server to have it", || async {
            let page = admin.drive_entries(&self.drive, "", "", true).await.unwrap();
            page.entries.iter().any(|entry| entry.path == new).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_taken_away_and_comes_back_loses_nothing() {
    let Some((machine, disk)) = plugged() else { return };
    let mut scene = Scene::on(machine).await;
    let beneath = scene.one.machine.home().join("drives");

    // While the gateway runs: the folder in which the drives' folders are is empty all at once.
    disk.unplug();
    scene.is_stopped("is not there").await;
    scene.others_go_on("the meantime").await;
    // The disk is in another machine meanwhile, where somebody works with it.
    let elsewhere = tempfile::tempdir().unwrap();
    let place = elsewhere.path().display().to_string();
    run(&["mount", disk.first(), &place]).unwrap();
    fs::write(elsewhere.path().join("team/f1"), "edited elsewhere").unwrap();
    fs::remove_file(elsewhere.path().join("team/f2")).unwrap();
    run(&["umount", &place]).unwrap();
    assert_eq!(fs::read_dir(&beneath).unwrap().count(), 0, "nothing is put beneath it");
    assert_eq!(scene.files().await, 7, "nothing is deleted at the server");
    disk.mount(disk.first()).unwrap();
    let report = scene.is_the_same(6).await;
    assert_eq!(report.conflicts, Vec::<String>::new());
    let files = files_below(&scene.other.folder());
    assert_eq!((&*files["f0"], &*files["f1"]), ("edited in the meantime", "edited elsewhere"));
    assert!(!files.contains_key("f2"), "what was deleted there is deleted");
    scene.one.stop().await;
    scene.other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_before_its_disk_is_there_waits_for_it() {
    let Some((machine, disk)) = plugged() else { return };
    let mut scene = Scene::on(machine).await;
    scene.one.stop().await;
    disk.unplug();
    scene.one.start();
    scene.is_stopped("is not there").await;
    scene.others_go_on("the meantime").await;
    let beneath = scene.one.machine.home().join("drives");
    assert_eq!(fs::read_dir(&beneath).unwrap().count(), 0, "nothing is put beneath it");
    assert_eq!(scene.files().await, 7, "nothing is deleted at the server");
    disk.mount(disk.first()).unwrap();
    let report = scene.is_the_same(7).await;
    assert_eq!(report.conflicts, Vec::<String>::new());
    scene.one.stop().await;
    scene.other.stop().await;
}

/// The number of a disk says nothing when the machine has not been started anew: it may be a copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_comes_back_under_another_number_waits_for_a_word() {
    let Some((machine, mut disk)) = plugged() else { return };
    let mut scene = Scene::on(machine).await;
    scene.one.stop().await;
    disk.comes_back_as_another();
    scene.others_go_on("the meantime").await;
    fs::write(scene.one.folder().join("f1"), "edited meanwhile").unwrap();
    scene.one.start();
    scene.is_stopped("as a copy or another mount would be").await;
    assert_eq!(scene.files().await, 7);
    assert_eq!(fs::read_to_string(scene.one.folder().join("f0")).unwrap(), "old");
    let accepted = scene.one.machine.run_async(&["drive-sync", "accept-root"]).await;
    assert_eq!(accepted.code, 0, "{accepted:?}");
    // What was agreed on is forgotten: the two that differ are both kept.
    let report = scene.is_the_same(9).await;
    let files = files_below(&scene.other.folder());
    let mut copied: Vec<_> = report.conflicts.iter().map(|copy| &*files[copy]).collect();
    copied.sort_unstable();
    assert_eq!(copied, ["edited meanwhile", "old"]);
    assert_eq!(files["f0"], "edited in the meantime");
    scene.one.stop().await;
    scene.other.stop().await;
}

/// In a container that is started anew, its first process is another one, and disks may have other
/// numbers: the same folder of the same disk is taken for what it is.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_new_start_of_the_container_another_number_is_the_same_disk() {
    let Some((machine, mut disk)) = plugged() else { return };
    let program = machine.home().join("container");
    let script = format!("#!/bin/sh\nexec {CONTAINER} {} \"$@\"\n", crate::common::BINARY);
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let possible = Command::new(&program).arg("--version").output().unwrap();
    assert!(possible.status.success(), "{possible:?}");
    let mut scene = Scene::on(machine).await;
    scene.one.stop().await;
    disk.comes_back_as_another();
    scene.others_go_on("the meantime").await;
    fs::write(scene.one.folder().join("f1"), "edited meanwhile").unwrap();
    fs::remove_file(scene.one.folder().join("f2")).unwrap();
    let machine = std::mem::replace(&mut scene.one.machine, Machine::new());
    scene.one.machine = machine.installed_at(program);
    scene.one.start();
    let files = wait_until("both to have the same", || async {
        let (here, there) = (files_below(&scene.one.folder()), files_below(&scene.other.folder()));
        let is_so = here == there && here.len() == 6 && scene.files().await == 6;
        is_so.then_some(here)
    })
    .await;
    assert_eq!((&*files["f0"], &*files["f1"]), ("edited in the meantime", "edited meanwhile"));
    assert!(!files.contains_key("f2"), "what was deleted stays deleted: nothing was forgotten");
    assert_eq!(scene.one.report().unwrap().conflicts, Vec::<String>::new());
    scene.one.kill().await;
    scene.other.stop().await;
}
