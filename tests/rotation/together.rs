//! Two processes, one pairing: they refresh once, and each lives on what the other fetched.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use panorama_gateway::backend::SessionState;
use panorama_gateway::config::{ConfigStore, Paths};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::common::backend::{Fault, Middleman};
use super::common::{ControlPlane, Machine, wait_until};
use super::context::{comes_up, session_on};
use super::proxy::{Hold, Proxy};

/// Tokens of an hour, and a reuse of a refresh token is forgiven for the live one's parent only.
async fn control() -> ControlPlane {
    ControlPlane::start_with(|options| options.reuse_interval = Duration::ZERO).await
}

async fn paired(control: &ControlPlane) -> (Machine, Proxy) {
    let proxy = Proxy::before(&control.url()).await;
    let machine = Machine::new();
    machine.pair_with(&proxy.url, control.server.anon_key(), &control.code().await).await;
    (machine, proxy)
}

/// Puts an access token in place of the saved one that is the same but for having expired.
fn expire_saved_token(machine: &Machine) -> String {
    let access = machine.config()["accessToken"].as_str().unwrap().to_owned();
    let payload = URL_SAFE_NO_PAD.decode(access.split('.').nth(1).unwrap()).unwrap();
    let mut claims: Value = serde_json::from_slice(&payload).unwrap();
    claims["exp"] = json!(claims["iat"].as_i64().unwrap() - 10);
    let expired = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let store = ConfigStore::new(Paths::in_dir(&machine.dir()));
    store.update(|config| config.set("accessToken", expired.as_str())).unwrap();
    expired
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_and_other_commands_that_refresh_at_once_make_one_rotation() {
    let control = control().await;
    let (machine, proxy) = paired(&control).await;
    let expired = expire_saved_token(&machine);
    let others: Vec<_> = (0..4).map(|_| session_on(&machine)).collect();
    let mut gateway = machine.spawn(&[]);
    let refreshing = others.iter().map(|api| async {
        api.session().refresh_if_current(&expired.as_str().into()).await.unwrap();
        api.session().authenticate().await.unwrap();
    });
    tokio::join!(join_all(refreshing), comes_up(&machine, &mut gateway));
    assert_eq!(proxy.refreshes(), 1);
    let saved = machine.config()["accessToken"].as_str().unwrap().to_owned();
    for api in &others {
        assert_eq!(api.session().access_token().expose_secret(), saved);
        assert_eq!(api.session().state(), SessionState::Valid);
        assert!(api.control_state().await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_takes_over_what_a_command_refreshed() {
    let control = control().await;
    let middleman = Middleman::before(&control.url()).await;
    let machine = Machine::new();
    let code = control.code().await;
    machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    // Realtime asks for a poll whenever its token changes, and here one poll is to fail.
    middleman.fault("/websocket", Fault::Answer(403, "application/json", "{}".to_owned()));
    let mut gateway = machine.spawn(&[]);
    comes_up(&machine, &mut gateway).await;
    // Of one second all access tokens are equal, and there would be nothing to take over.
    let paired_at = jiff::Timestamp::now().as_second();
    wait_until("the next second", || async {
        (jiff::Timestamp::now().as_second() > paired_at).then_some(())
    })
    .await;
    let command = session_on(&machine);
    let stale = command.session().access_token();
    command.session().refresh_if_current(&stale).await.unwrap();
    let refreshes = || middleman.seen().iter().filter(|seen| seen.path.ends_with("/token")).count();
    assert_eq!(refreshes(), 1);

    let expired = json!({"code": "PGRST303", "message": "JWT expired"}).to_string();
    middleman.fault("GET /gateway_jobs", Fault::Answer(401, "application/json", expired));
    let poll_fails = |fails: bool| {
        let machine = &machine;
        wait_until("the poll's state in status", move || async move {
            let status = machine.status().await?;
            (status["poll"]["error"].is_string() == fails).then_some(())
        })
    };
    poll_fails(true).await;
    middleman.heal_but("/websocket");
    poll_fails(false).await;
    assert_eq!(refreshes(), 1, "the gateway refreshed what was fresh");
    assert_eq!(machine.status().await.unwrap()["session"], "valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_with_the_machines_lock_in_hand_leaves_it_to_the_next() {
    let control = control().await;
    let (machine, proxy) = paired(&control).await;
    expire_saved_token(&machine);
    let reached = proxy.arm(Hold::Answer);
    let mut gateway = machine.spawn(&[]);
    reached.notified().await;
    // The gateway holds the lock: this one has to wait for it.
    let api = session_on(&machine);
    let stale = api.session().access_token();
    let waiting = async {
        api.session().refresh_if_current(&stale).await.unwrap();
        assert!(gateway_is_gone(&machine).await, "two refreshed at once");
    };
    let killing = async {
        // It has the file open for moments only, once a try: looked for without a pause.
        let at_the_lock = async {
            while lock_handles(&machine) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(15), at_the_lock).await.unwrap();
        assert_eq!(proxy.refreshes(), 1);
        gateway.child.kill().unwrap();
        gateway.child.wait().unwrap();
    };
    tokio::join!(waiting, killing);
    assert_eq!(proxy.refreshes(), 2);
    assert!(api.control_state().await.unwrap().is_some());
    proxy.release().await;
    let mut gateway = machine.spawn(&[]);
    comes_up(&machine, &mut gateway).await;
}

/// A gateway that is gone does not answer.
async fn gateway_is_gone(machine: &Machine) -> bool {
    machine.status().await.is_none()
}

/// How often this process has the machine's refresh lock open.
fn lock_handles(machine: &Machine) -> usize {
    let lock = Paths::in_dir(&machine.dir()).refresh_lock();
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter(|entry| {
            let target = entry.as_ref().ok().and_then(|entry| entry.path().read_link().ok());
            target.as_deref() == Some(lock.as_path())
        })
        .count()
}
