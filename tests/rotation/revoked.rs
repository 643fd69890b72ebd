//! A pairing that the backend ends while the gateway works.

use std::time::Duration;

use serde_json::json;

use super::common::backend::{Fault, Middleman};
use super::common::{ControlPlane, Machine, wait_until};
use super::context::comes_up;

/// The gateway's own token ends its session, as an admin's revocation would.
async fn revoke(control: &ControlPlane, machine: &Machine) {
    let access = machine.config()["accessToken"].as_str().unwrap().to_owned();
    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("{}/auth/v1/logout", control.url()))
        .header("apikey", control.server.anon_key())
        .bearer_auth(access)
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_gateway_reports_what_it_has_takes_no_more_and_says_so() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let machine = Machine::new();
    let code = control.code().await;
    let gateway_id = machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    machine.allow_control().await;
    let resource = control.allow_shell(&gateway_id).await;
    let mut gateway = machine.spawn(&[]);
    comes_up(&machine, &mut gateway).await;
    let (started, go_on) = (machine.home().join("started"), machine.home().join("go-on"));
    let command = format!(
        "touch {}; until [ -e {} ]; do sleep 0.05; done; echo finished",
        started.display(),
        go_on.display()
    );
    let shell = |command: &str| json!({"command": command, "resource_id": resource});
    let in_hand = control.submit(&gateway_id, "shell_exec", shell(&command)).await;
    wait_until("the command to run", || async { started.exists().then_some(()) }).await;

    revoke(&control, &machine).await;
    // The session is over; the access token works on until it expires. One refused call has the
    // gateway ask for another token, which shows it.
    let expired = json!({"code": "PGRST303", "message": "JWT expired"}).to_string();
    middleman.fault("GET /gateway_jobs", Fault::Answer(401, "application/json", expired));
    wait_until("status to say that the session is over", || async {
        let status = machine.status().await?;
        (status["session"] == "ended" && status["phase"] == "draining").then_some(())
    })
    .await;
    middleman.heal();
    let status = machine.run_async(&["status", "-v"]).await;
    assert!(status.stdout.contains("ended"), "{status:?}");

    let late = control.submit(&gateway_id, "shell_exec", shell("echo late")).await;
    let polls = || {
        let is_poll = |seen: &&super::common::backend::Seen| {
            seen.method == "GET" && seen.query.contains("status=eq.queued")
        };
        middleman.seen().iter().filter(is_poll).count()
    };
    let before = polls();
    wait_until("a poll that finds the later job", || async {
        (polls() > before + 1).then_some(())
    })
    .await;
    assert_eq!(control.admin.job(&late).await.unwrap()["status"], "queued");
    assert!(gateway.is_running(), "it left its work in hand");

    std::fs::write(&go_on, "").unwrap();
    let row = control.ended(&in_hand).await;
    assert_eq!(
        (&row["status"], &row["result"]["stdout"]),
        (&json!("completed"), &json!("finished\n"))
    );
    assert_eq!(gateway.ended().await.code(), Some(4));
    assert_eq!(control.admin.job(&late).await.unwrap()["status"], "queued");
    let log = machine.run_async(&["logs", "--no-follow"]).await;
    assert!(log.stdout.contains("pairing was revoked"), "{log:?}");
    assert!(log.stdout.contains("pair this"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_revoked_gateway_learns_of_it_by_itself_and_ends() {
    let control = ControlPlane::start_with(|options| {
        options.access_token_lifetime = Duration::from_secs(2);
        options.clock_leeway = Duration::ZERO;
    })
    .await;
    let machine = Machine::new();
    machine.pair(&control).await;
    let mut gateway = machine.spawn(&[]);
    comes_up(&machine, &mut gateway).await;
    revoke(&control, &machine).await;
    assert_eq!(gateway.ended().await.code(), Some(4));
    let again = machine.run_async(&["start", "--foreground"]).await;
    assert_eq!(again.code, 4, "{again:?}");
    assert!(again.stderr.contains("revoked") && again.stderr.contains("pair"), "{again:?}");
}
