//! A job that runs until it is told to end, and HTTP without a client to set up.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{ControlPlane, Machine, Paired, ProcessName, wait_until};

/// Where metrics are served is for the system to say, so that tests run side by side.
pub(crate) const ANY_PORT: (&str, &str) = ("PANORAMA_GATEWAY_METRICS_LISTEN", "127.0.0.1:0");

/// A command in hand.
pub(crate) struct Waiting {
    pub(crate) job: String,
    pub(crate) process: ProcessName,
    go: PathBuf,
}

impl Waiting {
    /// One that ends when it is told to, by a signal or by [`Self::let_go`].
    pub(crate) async fn start(control: &ControlPlane, paired: &Paired) -> Self {
        Self::with_prelude(control, paired, "").await
    }

    /// One that a polite signal does not end.
    pub(crate) async fn deaf(control: &ControlPlane, paired: &Paired) -> Self {
        Self::with_prelude(control, paired, "trap '' TERM INT HUP; ").await
    }

    async fn with_prelude(control: &ControlPlane, paired: &Paired, prelude: &str) -> Self {
        let (pid, go) = (paired.machine.home().join("pid"), paired.machine.home().join("go"));
        let command = format!(
            "{prelude}echo $$ > {0}.part; mv {0}.part {0}; until [ -e {1} ]; do sleep 0.05; done; \
             echo done",
            pid.display(),
            go.display()
        );
        let job = paired.submit_shell(control, &command, json!({})).await;
        let process = wait_until("the command to start", || async {
            let pid = std::fs::read_to_string(&pid).ok()?;
            ProcessName::of(pid.trim().parse().ok()?)
        })
        .await;
        Self { job, process, go }
    }

    pub(crate) fn let_go(&self) {
        std::fs::write(&self.go, "").unwrap();
    }
}

/// An answer by HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The codes of the reasons.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        let reasons = body["reasons"].as_array().unwrap().iter();
        reasons.map(|reason| reason["code"].as_str().unwrap().to_owned()).collect()
    }
}

/// The address that the gateway serves metrics at, once it does.
pub(crate) async fn metrics_address(machine: &Machine) -> String {
    wait_until("metrics to be served", || async {
        let listen = machine.status().await?["metrics_listen"].clone();
        (listen["listening"] == true).then(|| listen["address"].as_str().unwrap().to_owned())
    })
    .await
}

pub(crate) async fn get(address: &str, path: &str) -> Answer {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, body: body.to_owned() }
}

/// The value of a series that has whole ones.
pub(crate) fn count(text: &str, series: &str) -> u64 {
    value(text, series).parse().unwrap()
}

/// The value of a series.
pub(crate) fn number(text: &str, series: &str) -> f64 {
    value(text, series).parse().unwrap()
}

fn value<'a>(text: &'a str, series: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    assert!(found.is_some(), "{series} is not in\n{text}");
    found.unwrap_or_default()
}
