//! Drives by the commands that people use.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::context::Context;

impl Context {
    async fn drive_with(&self, words: &[&str], input: &[u8]) -> Output {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_panorama-gateway"))
            .args(["sandbox", "drive"])
            .args(words)
            .arg("--data-dir")
            .arg(self.data_dir())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PATH", "/usr/bin:/bin")
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // One that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input).await;
        child.wait_with_output().await.unwrap()
    }

    /// What a command that must succeed prints.
    async fn drive(&self, words: &[&str]) -> String {
        let output = self.drive_with(words, b"").await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that must fail says.
    async fn drive_fails(&self, words: &[&str]) -> String {
        let output = self.drive_with(words, b"").await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{words:?} succeeded");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    async fn paths(&self, words: &[&str]) -> Vec<String> {
        let words = [&["ls", "--json"], words].concat();
        let entries: Vec<Value> = serde_json::from_str(&self.drive(&words).await).unwrap();
        entries.iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_in_about_and_out() {
    let context = Context::new().await;
    let dir = context.dir.path();
    assert!(context.drive_fails(&["ls"]).await.contains("no drive yet"));
    assert_eq!(context.drive(&["create", "Our files"]).await, "our-files\n");
    assert!(context.drive_fails(&["create", "Our files"]).await.contains("already"));
    std::fs::write(dir.join("run.sh"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(dir.join("run.sh"), Permissions::from_mode(0o755)).unwrap();
    // More than one part.
    let large = vec![b'x'; 9 * 1024 * 1024];
    std::fs::write(dir.join("large"), &large).unwrap();

    context.drive(&["put", "run.sh"]).await;
    context.drive(&["put", "--parents", "large", "a/b/"]).await;
    context.drive(&["mkdir", "c"]).await;
    let output = context.drive_with(&["put", "-", "c/from stdin"], b"piped").await;
    assert!(output.status.success());
    assert_eq!(context.paths(&[]).await, ["a", "c", "run.sh"]);
    let all = ["a", "a/b", "a/b/large", "c", "c/from stdin", "run.sh"];
    assert_eq!(context.paths(&["-r"]).await, all);
    assert_eq!(context.paths(&["/a/"]).await, ["a/b"]);
    assert!(context.drive(&["ls"]).await.contains("a/\n"));

    // Another version in its place.
    std::fs::write(dir.join("run.sh"), "#!/bin/sh\ntrue\n").unwrap();
    context.drive(&["put", "run.sh"]).await;
    context.drive(&["mv", "run.sh", "c"]).await;
    context.drive(&["mv", "c", "d"]).await;
    assert_eq!(context.paths(&["-r", "d"]).await, ["d/from stdin", "d/run.sh"]);

    assert!(context.drive_fails(&["get", "d/run.sh"]).await.contains("--force"));
    context.drive(&["get", "--force", "d/run.sh"]).await;
    let got = dir.join("run.sh");
    assert_eq!(std::fs::read_to_string(&got).unwrap(), "#!/bin/sh\ntrue\n");
    // Executable, and as private as all that the program writes.
    assert_eq!(got.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    context.drive(&["get", "a/b/large", "again"]).await;
    assert!(std::fs::read(dir.join("again")).unwrap() == large);
    assert_eq!(context.drive(&["get", "d/from stdin", "-"]).await, "piped");

    assert!(context.drive_fails(&["rm", "a"]).await.contains("--recursive"));
    assert!(context.drive_fails(&["rm", "nothing"]).await.contains("nothing is at"));
    assert!(context.drive_fails(&["mkdir", "x/y"]).await.contains("drive ls"));
    assert!(context.drive_fails(&["put", "run.sh", "../up"]).await.contains("`..`"));
    assert!(context.drive_fails(&["get", "d"]).await.contains("is a directory"));
    assert!(context.drive_fails(&["ls", "--drive", "other"]).await.contains("drive list"));
    context.drive(&["rm", "-r", "a"]).await;
    assert_eq!(context.paths(&[]).await, ["d"]);
    let drives: Vec<Value> =
        serde_json::from_str(&context.drive(&["list", "--json"]).await).unwrap();
    assert_eq!((&drives[0]["entries"], &drives[0]["access"]), (&json!(3), &json!("write")));
    // No half-written file of ours is left here.
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with('.')));
    context.server.shutdown().await;
}

/// What a person does is a change like any other: a VM hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_hears_of_what_a_person_did() {
    let context = Context::new().await;
    let paired = context.pair().await;
    context.drive(&["create", "Shared"]).await;
    let admin = context.admin();
    let token = admin.make_drive_token(Some(&paired.gateway_id), Some("vm-1")).await.unwrap();
    let output = context.drive_with(&["put", "-", "note"], b"hello").await;
    assert!(output.status.success());
    let call = async |action: Value| -> Value {
        let url = format!("{}/functions/v1/vm-drive-sync", context.server.url());
        let request = context.http.post(url).bearer_auth(token["token"].as_str().unwrap());
        request.json(&action).send().await.unwrap().json().await.unwrap()
    };
    let hello = call(json!({"client_key": "k", "action": "hello", "protocol": 1})).await;
    let drive = &hello["drives"][0]["drive_id"];
    let feed = call(json!({"client_key": "k", "action": "changes", "drive_id": drive,
                           "after_sequence": 0}))
    .await;
    assert_eq!(feed["changes"][0]["path"], "note");
    assert!(feed["changes"][0].get("client_key").is_none());
    // Read only, then not at all.
    let drive = drive.as_str().unwrap();
    admin.set_drive_access(drive, &paired.gateway_id, "read").await.unwrap();
    let mkdir = json!({"client_key": "k", "action": "mkdir", "drive_id": drive, "path": "d",
                       "operation_id": "o"});
    assert_eq!(call(mkdir).await["error"]["code"], "read_only");
    admin.set_drive_access(drive, &paired.gateway_id, "none").await.unwrap();
    let hello = call(json!({"client_key": "k", "action": "hello", "protocol": 1})).await;
    assert_eq!(hello["drives"], json!([]));
    context.server.shutdown().await;
}
