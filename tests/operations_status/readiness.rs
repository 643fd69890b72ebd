//! Probes through the life of a gateway: start, outage, drain.

use nix::sys::signal::Signal;

use crate::common::backend::Middleman;
use crate::common::{ControlPlane, Machine, Paired, wait_until};
use crate::scene::{ANY_PORT, Answer, Waiting, get, metrics_address};

async fn readiness(address: &str, wanted: u16) -> Answer {
    wait_until(&format!("/readyz to be {wanted}"), || async {
        let answer = get(address, "/readyz").await;
        // Whatever the backend does, the gateway itself is alive.
        assert_eq!(get(address, "/healthz").await.status, 200);
        (answer.status == wanted).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_said_only_while_jobs_are_taken() {
    let control = ControlPlane::start().await;
    let middleman = Middleman::before(&control.url()).await;
    let machine = Machine::new().with(ANY_PORT.0, ANY_PORT.1);
    let code = control.code().await;
    let gateway_id = machine.pair_with(&middleman.url, control.server.anon_key(), &code).await;
    machine.allow_control().await;
    let resource_id = control.allow_shell(&gateway_id).await;

    middleman.cut();
    let gateway = machine.spawn(&[]);
    wait_until("the gateway to start", || machine.status()).await;
    let address = metrics_address(&machine).await;
    assert_eq!(readiness(&address, 503).await.reasons(), ["starting"]);
    middleman.heal();
    machine.is_up().await;
    assert_eq!(readiness(&address, 200).await.reasons(), [""; 0]);
    assert_eq!(machine.ask("health").await.unwrap()["ready"], true);

    middleman.cut();
    assert_eq!(readiness(&address, 503).await.reasons(), ["backend_away"]);
    let shown = machine.run_async(&["status"]).await.stdout;
    assert!(shown.contains("the backend has not answered a poll for"), "{shown}");
    middleman.heal();
    readiness(&address, 200).await;

    let mut paired = Paired { machine, gateway, gateway_id, resource_id };
    let waiting = Waiting::start(&control, &paired).await;
    paired.gateway.signal(Signal::SIGTERM);
    assert_eq!(readiness(&address, 503).await.reasons(), ["draining"]);
    let doctor = paired.machine.run_async(&["doctor", "--json"]).await.stdout;
    let doctor: serde_json::Value = serde_json::from_str(&doctor).unwrap();
    let mut checks = doctor["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["id"] == "gateway").unwrap();
    assert!(check["status"] == "warn" && check.to_string().contains("finishes"), "{check}");
    waiting.let_go();
    assert!(paired.gateway.ended().await.success());
}
