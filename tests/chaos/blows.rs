//! The blows, one by one.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::json;

use super::lane::{Lane, pair, spawn};
use super::plan::{Backend, Blow};
use crate::common::backend::Fault;

impl Lane<'_> {
    pub(super) async fn strike(&self, blow: Blow) {
        self.is_alive().await;
        let name = match blow {
            Blow::Kill => {
                self.kill().await;
                "gateway: SIGKILL".to_owned()
            }
            Blow::Stop(lasts) => {
                let gateway = self.gateway.lock().await;
                gateway.signal(Signal::SIGSTOP);
                tokio::time::sleep(lasts).await;
                gateway.signal(Signal::SIGCONT);
                "gateway: SIGSTOP, SIGCONT".to_owned()
            }
            Blow::Restart => {
                self.stop().await;
                *self.gateway.lock().await = spawn(&self.machine);
                "gateway: SIGTERM, started again".to_owned()
            }
            Blow::FullDisk(lasts) => self.fill_disk(lasts).await,
            Blow::Revoke => self.revoke().await,
            Blow::Upgrade(upgrade) => self.upgrade(upgrade).await,
            Blow::Backend { what, lasts, and_kill } => self.disturb(what, lasts, and_kill).await,
        };
        self.blow(&name);
    }

    pub(super) async fn kill(&self) {
        let mut gateway = self.gateway.lock().await;
        let before = Timestamp::now();
        gateway.kill().await;
        self.killed_since(before);
        *gateway = spawn(&self.machine);
    }

    pub(super) fn killed_since(&self, before: Timestamp) {
        self.kills.lock().unwrap().push((before, Timestamp::now()));
    }

    async fn fill_disk(&self, lasts: Duration) -> String {
        let Some(disk) = &self.disk else {
            self.kill().await;
            return "gateway: SIGKILL".to_owned();
        };
        let full = disk.keep_full();
        tokio::time::sleep(lasts).await;
        self.saw(&format!("refills of a full disk ({})", full.first), full.refills());
        "disk: full".to_owned()
    }

    pub(super) async fn disturb(&self, what: Backend, lasts: Duration, and_kill: bool) -> String {
        let answer = |status: u16| {
            let code = if status == 401 { "PGRST301" } else { "XX000" };
            let body = json!({"code": code, "message": "chaos", "details": null, "hint": null});
            Fault::Answer(status, "application/json", body.to_string())
        };
        let name = match what {
            Backend::Cut => {
                self.middleman.cut();
                "cut off".to_owned()
            }
            Backend::Slow(by) => {
                self.middleman.fault("", Fault::Slow(by));
                "slow".to_owned()
            }
            Backend::Answers(status, path) => {
                self.middleman.fault(path, answer(status));
                format!("answers {status}")
            }
            Backend::LosesRequests(path) => {
                self.middleman.fault(path, Fault::LostRequest);
                "loses requests".to_owned()
            }
            Backend::LosesAnswers(path) => {
                self.middleman.fault(path, Fault::LostAnswer);
                "loses answers".to_owned()
            }
        };
        if and_kill {
            tokio::time::sleep(lasts / 2).await;
            self.kill().await;
            tokio::time::sleep(lasts / 2).await;
        } else {
            tokio::time::sleep(lasts).await;
        }
        self.middleman.heal();
        format!("backend: {name}{}", if and_kill { ", and the gateway SIGKILL" } else { "" })
    }

    /// What a revoked pairing leaves in the queue is nobody's any more, so the work is finished
    /// first.
    async fn revoke(&self) -> String {
        let _quiet = self.submitting.lock().await;
        if !self.idle().await {
            self.violation("the jobs before a revocation did not end");
        }
        let mut gateway = self.gateway.lock().await;
        if self.log_out().await {
            let status = self.end_of(&mut gateway, "its pairing was revoked").await;
            if status.is_some_and(|status| status.code() != Some(4)) {
                self.violation(&format!("a revoked pairing ended the gateway with {status:?}"));
            }
        } else {
            self.violation("the session could not be revoked");
            gateway.kill().await;
        }
        let identity = pair(self.control, &self.middleman, &self.machine).await;
        *self.identity.lock().unwrap() = identity;
        *gateway = spawn(&self.machine);
        "session: revoked, paired again".to_owned()
    }

    /// Ends the session at the backend, with whatever token is good at the moment.
    async fn log_out(&self) -> bool {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        // A refresh that met a rate limit pauses for over a minute.
        let deadline = Instant::now() + Duration::from_secs(100);
        while Instant::now() < deadline {
            let token = self.machine.config()["accessToken"].as_str().unwrap().to_owned();
            let request = client
                .post(format!("{}/auth/v1/logout", self.control.url()))
                .header("apikey", self.control.server.anon_key())
                .bearer_auth(token);
            if request.send().await.unwrap().status().is_success() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }
}
