//! The server as a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use panorama_gateway::sandbox::AdminClient;
use reqwest::Method;
use serde_json::{Value, json};

use crate::context::{Paired, client};

/// `sandbox serve`; killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) url: String,
    anon_key: String,
    pub(crate) admin: AdminClient,
    http: reqwest::Client,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn serve(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_panorama-gateway"));
    command
        .args(["sandbox", "serve", "--listen", "127.0.0.1:0", "--json", "--data-dir"])
        .arg(data_dir)
        .env_clear()
        .env("HOME", data_dir.parent().unwrap())
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// One that does not start: what it says.
pub(crate) fn refused(data_dir: &Path) -> (Output, String) {
    let output = serve(data_dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    (output, said)
}

impl Process {
    pub(crate) async fn start(data_dir: &Path) -> Self {
        let mut child = serve(data_dir).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("the server did not start: {said}");
        }
        // Its log must not fill the pipe.
        drop(child.stderr.take());
        let up: Value = serde_json::from_str(&line).unwrap();
        let admin = AdminClient::find(data_dir).await.unwrap().unwrap();
        let anon_key = admin.info().await.unwrap().anon_key;
        let url = up["url"].as_str().unwrap().to_owned();
        Self { child, url, anon_key, admin, http: client() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("apikey", &self.anon_key)
    }

    pub(crate) async fn pair(&self) -> Paired {
        let code = self.admin.make_pairing_code(None).await.unwrap().code;
        let body: Value = self
            .request(Method::POST, "/functions/v1/exchange-gateway-pairing-code")
            .json(&json!({"code": code, "device_name": "bench"}))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Paired {
            gateway_id: text("gateway_id"),
            team_id: text("team_id"),
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }

    pub(crate) async fn refresh(&self, token: &str) -> (u16, Value) {
        let answer = self
            .request(Method::POST, "/auth/v1/token?grant_type=refresh_token")
            .json(&json!({"refresh_token": token}))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}
