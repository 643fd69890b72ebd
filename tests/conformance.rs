//! The sandbox beside an unmodified supabase-js: runs the scripts of `tests/conformance/`.
//!
//! They need Node (20 or newer), npm and the packages of `tests/conformance.lock.json`, which are
//! kept outside the tree. A plain `cargo test` downloads nothing: without the packages this says
//! that it skips, and fails where `CI=true`. `PANORAMA_CONFORMANCE=1` fetches them first.
//! `PANORAMA_CONFORMANCE_SUITES="rest rpc"` runs those suites only.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test without the harness, which would hide what the scripts say"
)]

#[path = "sandbox_server/fixtures.rs"]
mod fixtures;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use panorama_gateway::sandbox::{AdminClient, Server, ServerOptions};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The scripts, byte for byte as they were given.
const SCRIPTS: [(&str, &str); 11] = [
    ("README.md", "198481a7125a3f78a13239d355c2c0bf47da5e8e9ed33549367d921ad8895d40"),
    ("auth.mjs", "5ef01870200a9cf746b69e43908e835bd6806452172162875c3ea1406563bb9b"),
    ("fixtures.sql", "f8091902a1ba7ddea3bd0f09de1e2248f65f6caf3fecf2bc14aad94beae23624"),
    ("functions.mjs", "fe6370e40002cc4694f9a4c42c02d3f1097917e897328a91d11e9e3801475b6b"),
    ("lib.mjs", "be489e148702ced5795ebca1aca3ccade40f0d740de29bd65af63e11ba8c1c96"),
    ("package.json", "71b62f78ce7500ffef083061774bfefa90a9c0046a1a3febf54398424349bf0c"),
    ("realtime.mjs", "aa3ebc29cb3b394bb5194f1d64ebaa3aa153f4df4d44b1c2e30188a5ffddea75"),
    ("rest.mjs", "4f54853d4ba601df8ba4dc90ae770ea1627f5079657e4b2baba8e78d5f4057e9"),
    ("rpc.mjs", "a97b93b562170ebf25561f4b757cbfda852120ce9b53f64d24bc6dd5e095500c"),
    ("run.mjs", "b80128336af031a8073ab15292bf653edd442aaf267a8fb31112e75146c8bd31"),
    ("storage.mjs", "da84cfaa84d39e674cd7158d8ddff3f5173e5dc746b84215701a380da72a1c8c"),
];

const SUITES: &str = "auth rest rpc realtime functions storage";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Called by `cargo test some_filter` as well, which means other tests.
    let filters = || args.iter().filter(|arg| !arg.starts_with('-'));
    let meant = filters().count() == 0 || filters().any(|filter| "conformance".contains(filter));
    if args.iter().any(|arg| arg == "--list") {
        return;
    }
    if !meant {
        println!("conformance: filtered out");
        return;
    }
    check_scripts();
    let dir = match prepare() {
        Ok(dir) => dir,
        Err(missing) => {
            println!("conformance: skipped: {missing}");
            let asked = setting("CI") == "true" || setting("PANORAMA_CONFORMANCE") == "1";
            assert!(!asked, "conformance must not be skipped here: {missing}");
            return;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(&dir));
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The SHA-256.
fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

/// A script that was changed, added or lost proves nothing.
fn check_scripts() {
    let mut found: Vec<(String, String)> = std::fs::read_dir(scripts())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, hex(&std::fs::read(&path).unwrap()))
        })
        .collect();
    found.sort();
    let found: Vec<_> = found.iter().map(|(name, hash)| (&**name, &**hash)).collect();
    assert_eq!(found, SCRIPTS, "tests/conformance is not what it was");
}

/// A directory with the scripts and the packages; `Err` says what is missing.
fn prepare() -> Result<PathBuf, String> {
    for program in ["node", "npm"] {
        let mut version = Command::new(program);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        if !version.status().is_ok_and(|status| status.success()) {
            return Err(format!("{program} is not installed"));
        }
    }
    let lock = std::fs::read(scripts().with_extension("lock.json")).unwrap();
    // Of a name of its own for every set of packages, so that an old one is never used.
    let dir = cache().join(format!("conformance-{}", &hex(&lock)[..12]));
    std::fs::create_dir_all(&dir).unwrap();
    for (name, _) in SCRIPTS {
        std::fs::copy(scripts().join(name), dir.join(name)).unwrap();
    }
    std::fs::write(dir.join("package-lock.json"), lock).unwrap();
    let packages = dir.join("node_modules/.package-lock.json");
    if packages.exists() {
        return Ok(dir);
    }
    if setting("PANORAMA_CONFORMANCE") != "1" {
        return Err(format!(
            "there are no packages in {}; PANORAMA_CONFORMANCE=1 fetches them",
            dir.display()
        ));
    }
    for _ in 0..3 {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&dir);
        if npm.status().unwrap().success() && packages.exists() {
            return Ok(dir);
        }
        std::thread::sleep(Duration::from_secs(5));
    }
    Err("npm could not fetch the packages".to_owned())
}

fn cache() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("PANORAMA_CI_CACHE").unwrap_or_else(|| {
        let home = || named("HOME").unwrap_or_else(std::env::temp_dir).join(".cache");
        named("XDG_CACHE_HOME").unwrap_or_else(home).join("panorama-gateway-ci")
    })
}

async fn run(dir: &Path) {
    let data = tempfile::tempdir().unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let mut options = ServerOptions::new(data.path().join("sandbox"), address);
    options.schema = fixtures::schema();
    options.edge_functions = vec![&fixtures::ECHO, &fixtures::REFUSE];
    let server = Server::start(options).await.unwrap();
    let (access, refresh) = pair(&server).await;
    let suites = Some(setting("PANORAMA_CONFORMANCE_SUITES"));
    let suites = suites.filter(|suites| !suites.is_empty()).unwrap_or_else(|| SUITES.to_owned());
    let status = tokio::process::Command::new("node")
        .arg("run.mjs")
        .args(suites.split_whitespace())
        .current_dir(dir)
        .env("SUPABASE_URL", server.url())
        .env("ANON_KEY", server.anon_key())
        .env("ACCESS_TOKEN", access)
        .env("REFRESH_TOKEN", refresh)
        .env("CONF_DESTRUCTIVE", "1")
        .kill_on_drop(true)
        .status();
    let status = tokio::time::timeout(Duration::from_mins(10), status).await.unwrap().unwrap();
    server.shutdown().await;
    assert!(status.success(), "the scripts found failures, see above");
}

/// The tokens of a session of its own.
async fn pair(server: &Server) -> (String, String) {
    // A second installation is refused, and does not matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let admin = AdminClient::new(server.url(), server.admin_token().clone());
    let code = admin.make_pairing_code(None).await.unwrap().code;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/functions/v1/exchange-gateway-pairing-code", server.url());
    let asked = http
        .post(url)
        .header("apikey", server.anon_key())
        .json(&json!({"code": code, "device_name": "conformance"}));
    let body: Value = asked.send().await.unwrap().json().await.unwrap();
    let token = |name: &str| match body[name].as_str() {
        Some(token) => token.to_owned(),
        None => panic!("no {name} in {body}"),
    };
    (token("access_token"), token("refresh_token"))
}
