//! A drive that is a git repository: one VM works in it, another mirrors it, and gateways are killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{PATIENCE, Ran, setting};
use crate::kills::{pause, run};
use crate::team::{Team, conflict_copies};

/// In CI.
const KILLS: u64 = 4;
/// Files of each branch, in CI.
const FILES: u64 = 60;

/// Runs git in this folder, with nobody's settings.
async fn git(folder: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"])
        .args(["-c", "gc.autoDetach=false", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder.parent().unwrap())
        // Looking must not write.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    Ran::of(&output.expect("git is installed"))
}

async fn must(folder: &Path, args: &[&str]) -> String {
    let ran = git(folder, args).await;
    assert_eq!(ran.code, 0, "git {args:?}: {ran:?}");
    ran.stdout
}

/// The files of a branch: some are on both, with other contents, some on one only.
fn write_branch(folder: &Path, branch: &str, round: u64, files: u64) {
    for number in 0..files {
        let name = if number % 3 == 0 { branch } else { "both" };
        let file = folder.join(format!("src/{name}/{}/f{number}.txt", number % 7));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("{branch} {round} {number}\n").repeat(20)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_repository_stays_whole() {
    let (mut rng, kills, title) = run("git under torture", KILLS);
    let files = setting("PANORAMA_DRIVE_TORTURE_FILES").unwrap_or(FILES);
    let mut team = Team::of(2).await;
    let folders: Vec<PathBuf> = team.vms.iter().map(crate::vm::Vm::folder).collect();
    let work = &folders[0];
    must(work, &["init", "--quiet"]).await;
    fs::write(work.join("README"), "a drive\n").unwrap();
    must(work, &["add", "."]).await;
    must(work, &["commit", "--quiet", "-m", "begin"]).await;
    must(work, &["branch", "other"]).await;
    // Every branch and what it has been told to hold.
    for round in 0..kills.max(2) {
        let branch = if round % 2 == 0 { "main" } else { "other" };
        must(work, &["checkout", "--quiet", branch]).await;
        write_branch(work, branch, round, files);
        must(work, &["add", "."]).await;
        pause(&mut rng, 150).await;
        must(work, &["commit", "--quiet", "-m", &format!("round {round}")]).await;
        if round < kills {
            team.kill_one(2, &mut rng).await;
        }
        if round % 3 == 2 {
            must(work, &["gc", "--quiet", "--prune=now"]).await;
        }
        let other = if round % 2 == 0 { "other" } else { "main" };
        must(work, &["checkout", "--quiet", other]).await;
        pause(&mut rng, 300).await;
    }
    must(work, &["gc", "--quiet", "--prune=now"]).await;
    let end = team.at_rest(PATIENCE).await;
    let commits = must(work, &["rev-list", "--all"]).await;
    for folder in &folders {
        must(folder, &["fsck", "--full", "--strict", "--no-dangling"]).await;
        assert_eq!(must(folder, &["status", "--porcelain"]).await, "", "{}", folder.display());
        assert_eq!(must(folder, &["rev-list", "--all"]).await, commits);
    }
    // Only one of them ever wrote.
    let copies = conflict_copies(&end).len();
    assert_eq!(copies, 0, "{end:#?}");
    team.judge(&format!("{title}: {} commits", commits.lines().count()), &end).await;
    team.leave().await;
}
