//! Placeholders for secrets.

use serde_json::{Value, json};

use crate::common::backend::{Fault, Middleman};
use crate::common::{ControlPlane, Paired};
use crate::scene::{provisioned_at, token, up, up_on};

const RPC: &str = "/resolve_secret_placeholders_for_job";

type Change = fn(&str, &mut Value);

async fn run(control: &ControlPlane, guest: &Paired, secret_env: Value) -> Value {
    let more = json!({"secret_env": secret_env});
    let marker = guest.machine.home().join("ran");
    let command = format!("touch {}; printenv KEY", marker.display());
    let job = guest.submit_shell(control, &command, more).await;
    let mut row = control.ended(&job).await;
    row["ran"] = json!(std::fs::remove_file(marker).is_ok());
    row
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sees_a_placeholder_and_never_the_secret() {
    let control = ControlPlane::start().await;
    control.admin.add_secret("deploy-key").await.unwrap();
    let guest = up(&control, "vm-1").await;
    let row = run(&control, &guest, json!({"KEY": "deploy-key"})).await;
    let seen = row["result"]["stdout"].as_str().unwrap().trim();
    let digits = seen.strip_prefix("pano_sec_").unwrap_or_else(|| panic!("{row}"));
    assert!(digits.len() == 36 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{seen}");
    for file in ["gateway.log", "audit.jsonl"] {
        let text = std::fs::read_to_string(guest.machine.dir().join(file)).unwrap();
        assert!(!text.contains(seen), "{file} holds the placeholder");
    }
    for (secret_env, reason) in [
        (json!({"KEY": "deploy-key", "OTHER": "unknown"}), "no secret for OTHER"),
        (json!({"KEY": "unknown"}), "no secret for KEY"),
        (json!(["KEY"]), "not an object"),
        (json!({"A=B": "deploy-key"}), "cannot name a variable"),
    ] {
        let row = run(&control, &guest, secret_env.clone()).await;
        assert_eq!((&row["status"], &row["ran"]), (&json!("failed"), &json!(false)), "{row}");
        let message = row["result"]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{secret_env}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_fit_refuses_the_whole_command() {
    let control = ControlPlane::start().await;
    control.admin.add_secret("deploy-key").await.unwrap();
    let middleman = Middleman::before(&control.url()).await;
    let machine = provisioned_at(&middleman.url, &control, &token(&control, "vm-1").await);
    let guest = up_on(machine, &control, "vm-1").await;
    let changes: [(Change, &str); 5] = [
        (|_, rows| rows[0]["placeholder"] = json!("hunter22"), "no placeholder for KEY"),
        (
            |_, rows| {
                let row = rows[0].clone();
                rows.as_array_mut().unwrap().push(row);
            },
            "two placeholders for KEY",
        ),
        (
            |_, rows| {
                let mut row = rows[0].clone();
                row["env_name"] = json!("LD_PRELOAD");
                rows.as_array_mut().unwrap().push(row);
            },
            "not asked for",
        ),
        (|_, rows| *rows = json!([]), "no secret for KEY"),
        (|_, rows| *rows = json!([{"env_name": "KEY"}]), "does not fit"),
    ];
    for (change, reason) in changes {
        middleman.fault(RPC, Fault::Changed(change));
        let row = run(&control, &guest, json!({"KEY": "deploy-key"})).await;
        assert_eq!((&row["status"], &row["ran"]), (&json!("failed"), &json!(false)), "{row}");
        let message = row["result"]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}, not {reason}");
        assert!(!row.to_string().contains("hunter22"), "{row}");
    }
    middleman.heal();
    let row = run(&control, &guest, json!({"KEY": "deploy-key"})).await;
    assert_eq!(row["status"], "completed", "{row}");
}
