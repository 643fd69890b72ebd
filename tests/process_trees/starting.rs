//! What a command finds when it starts, and why one does not.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use panorama_gateway::process::{Exit, Run, RunError, RunSpec};
use tokio_util::sync::CancellationToken;

use super::{bash, run, spec, stat};

async fn error_of(spec: RunSpec) -> (String, io::Error) {
    match run(spec).await {
        Err(RunError::Spawn { program, source }) => (program, source),
        other => panic!("{other:?}"),
    }
}

async fn text_of(script: &str) -> String {
    let outcome = run(bash(script)).await.unwrap();
    assert_eq!(outcome.exit, Exit::Code(0), "{}", outcome.stderr.text());
    outcome.stdout.text()
}

#[tokio::test]
async fn a_missing_program_is_an_error_with_its_name() {
    for program in ["/nowhere/tool", "surely-no-such-tool"] {
        let (name, source) = error_of(spec(program, &[])).await;
        assert_eq!((name.as_str(), source.kind()), (program, ErrorKind::NotFound));
    }
}

#[tokio::test]
async fn what_is_no_program_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tool");
    std::fs::write(&file, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let (_, source) = error_of(spec(file.to_str().unwrap(), &[])).await;
    assert_eq!(source.kind(), ErrorKind::PermissionDenied);
    let (_, source) = error_of(spec("/etc", &[])).await;
    assert_eq!(source.kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_missing_working_directory_is_told_apart() {
    let mut spec = bash("true");
    spec.cwd = "/nowhere/work".into();
    let (_, source) = error_of(spec).await;
    assert_eq!(source.kind(), ErrorKind::NotFound);
    assert_eq!(source.to_string(), "could not enter the working directory /nowhere/work");
    let cause = source.get_ref().and_then(|error| error.source()).unwrap();
    assert!(cause.to_string().starts_with("No such file"), "{cause}");
}

#[tokio::test]
async fn what_cannot_be_passed_is_an_error() {
    let (_, source) = error_of(bash("echo a\0b")).await;
    assert_eq!(source.kind(), ErrorKind::InvalidInput);
    let (_, source) = error_of(bash(&"x".repeat(200_000))).await;
    assert_eq!(source.kind(), ErrorKind::ArgumentListTooLong);
}

#[tokio::test]
async fn a_large_environment_and_many_arguments_arrive() {
    let mut spec = bash(r#"echo "$# ${#LARGE} ${#BYTES}""#);
    spec.env.push(("LARGE".into(), "x".repeat(100_000).into()));
    spec.args.extend(std::iter::repeat_n("y".repeat(1000).into(), 500));
    assert_eq!(run(spec).await.unwrap().stdout.text(), "499 100000 0\n");
}

#[tokio::test]
async fn the_environment_is_the_given_one_and_the_runs_name() {
    let run = Run::spawn(spec("env", &[])).await.unwrap();
    let ids = run.ids().clone();
    let outcome = run.wait(None, &CancellationToken::new()).await.unwrap();
    let text = outcome.stdout.text();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let marker = format!("PANORAMA_RUN_ID={}", ids.run_id);
    assert_eq!(lines, [marker.as_str(), "PATH=/usr/local/bin:/usr/bin:/bin"]);
}

#[tokio::test]
async fn signals_are_as_at_a_login() {
    let text = text_of("exec cat /proc/self/status").await;
    let set = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(set("SigBlk:"), 0);
    // 32 and 33 are the C library's own; its `posix_spawn` sets them like that for everybody.
    assert_eq!(set("SigIgn:") & !0x1_8000_0000, 0);
}

#[tokio::test]
async fn it_has_a_group_of_its_own_and_no_terminal() {
    let run = Run::spawn(spec("cat", &["/proc/self/stat"])).await.unwrap();
    let shim = run.ids().clone();
    assert_eq!(stat(shim.shim_pid).map(|(_, start)| start), Some(shim.shim_start));
    let outcome = run.wait(None, &CancellationToken::new()).await.unwrap();
    let text = outcome.stdout.text();
    let (pid, rest) = text.split_once(" (cat) ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    let shim_pid = shim.shim_pid.to_string();
    // State, parent, group, session, terminal.
    assert_eq!(fields[1..5], [shim_pid.as_str(), pid, shim_pid.as_str(), "0"]);
}

#[tokio::test]
async fn it_has_three_descriptors_whatever_the_gateway_inherited() {
    let inherited = std::fs::File::open("/dev/zero").unwrap();
    // As if whoever started the gateway had left it open.
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    // `ls` itself opens the fourth.
    let text = text_of("exec ls -l /proc/self/fd").await;
    assert!(!text.contains("/dev/zero"), "{} {text}", inherited.as_raw_fd());
    let targets: Vec<&str> = text.lines().filter_map(|line| line.split(" -> ").nth(1)).collect();
    assert_eq!(targets.len(), 4, "{text}");
    assert_eq!(targets[0], "/dev/null");
    assert!(targets[1].starts_with("pipe:") && targets[2].starts_with("pipe:"), "{text}");
    assert!(targets[3].ends_with("/fd"), "{text}");
}

#[tokio::test]
async fn umask_and_working_directory_are_the_given_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = bash("umask; pwd -P");
    spec.umask = 0o027;
    spec.cwd = folder.path().to_owned();
    let expected = format!("0027\n{}\n", folder.path().canonicalize().unwrap().display());
    assert_eq!(run(spec).await.unwrap().stdout.text(), expected);
}

#[tokio::test]
async fn its_input_is_empty() {
    assert_eq!(text_of("cat; echo read").await, "read\n");
}

#[tokio::test]
async fn its_supervisor_is_deaf_and_keeps_no_folder_busy() {
    let text = text_of(
        "kill -INT $PPID; kill -TERM $PPID; kill -HUP $PPID; kill -PIPE $PPID; \
         readlink /proc/$PPID/cwd; tr '\\0' ' ' </proc/$PPID/cmdline; echo; cat /proc/$PPID/comm; \
         tr '\\0' '\\n' </proc/$PPID/environ | cut -d= -f1",
    )
    .await;
    assert_eq!(text, "/\npanorama-gateway __run-shim \npanorama-shim\nPANORAMA_RUN_ID\n");
}
