//! The CLIs as npm installs them, in the cache outside the tree.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use panorama_gateway::providers::ProviderId;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Where they are.
#[derive(Debug, Clone)]
pub(crate) struct Clis {
    /// Holds `claude`, `codex`, `gemini` and the `node` that runs them.
    pub(crate) bin: PathBuf,
}

impl Clis {
    pub(crate) fn command(&self, cli: ProviderId) -> PathBuf {
        self.bin.join(cli.command())
    }

    /// A `PATH` with them in front.
    pub(crate) fn path(&self) -> String {
        format!("{}:/usr/local/bin:/usr/bin:/bin", self.bin.display())
    }
}

pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The installed CLIs, fetched first if that was asked for; `Err` says what is missing.
pub(crate) fn prepare() -> Result<Clis, String> {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_clis.lock.json");
    let lock = std::fs::read(lock).unwrap();
    // Of a name of its own for every set of packages, so that an old one is never used.
    let hash = format!("{:x}", Sha256::digest(&lock));
    let dir = cache().join(format!("real-clis-{}", &hash[..12]));
    let clis = Clis { bin: dir.join("node_modules/.bin") };
    let complete = dir.join("complete");
    if !complete.exists() {
        if setting("PANORAMA_REAL_CLIS") != "1" {
            let dir = dir.display();
            return Err(format!("they are not in {dir}; PANORAMA_REAL_CLIS=1 fetches them"));
        }
        fetch(&dir, &lock)?;
        std::fs::write(&complete, "").unwrap();
    }
    for cli in ProviderId::ALL {
        let command = clis.command(cli);
        let version = answer(Command::new(&command).arg("--version").env("PATH", clis.path()))?;
        let pinned = version_of(&lock, cli);
        if !version.contains(&pinned) {
            return Err(format!("{} says {version:?}, not {pinned}", command.display()));
        }
    }
    Ok(clis)
}

/// The version that the lock file pins.
fn version_of(lock: &[u8], cli: ProviderId) -> String {
    let lock: Value = serde_json::from_slice(lock).unwrap();
    let package = match cli {
        ProviderId::ClaudeCode => "@anthropic-ai/claude-code",
        ProviderId::Codex => "@openai/codex",
        ProviderId::Gemini => "@google/gemini-cli",
    };
    lock["packages"][format!("node_modules/{package}")]["version"].as_str().unwrap().to_owned()
}

fn fetch(dir: &Path, lock: &[u8]) -> Result<(), String> {
    std::fs::create_dir_all(dir).unwrap();
    let parsed: Value = serde_json::from_slice(lock).unwrap();
    let root = &parsed["packages"][""];
    let package = json!({
        "name": root["name"],
        "private": true,
        "dependencies": root["dependencies"],
        "optionalDependencies": root["optionalDependencies"],
    });
    std::fs::write(dir.join("package.json"), package.to_string()).unwrap();
    std::fs::write(dir.join("package-lock.json"), lock).unwrap();
    let mut why = String::new();
    for _ in 0..3 {
        // Scripts of packages are not run, but for the one that puts Claude Code's binary in place.
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(dir);
        let modules = dir.join("node_modules");
        let mut claude = Command::new(modules.join(".bin/node"));
        claude.arg(modules.join("@anthropic-ai/claude-code/install.cjs"));
        match answer(&mut npm).and_then(|_| answer(&mut claude)) {
            Ok(_) => return Ok(()),
            Err(error) => why = error,
        }
        std::thread::sleep(Duration::from_secs(5));
    }
    Err(why)
}

/// What a command prints; what went wrong otherwise.
fn answer(command: &mut Command) -> Result<String, String> {
    let name = format!("{}", command.get_program().display());
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{name}: {}: {}", output.status, said.trim()))
    }
}

fn cache() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("PANORAMA_CI_CACHE").unwrap_or_else(|| {
        let home = || named("HOME").unwrap_or_else(std::env::temp_dir).join(".cache");
        named("XDG_CACHE_HOME").unwrap_or_else(home).join("panorama-gateway-ci")
    })
}

/// What a user has in a home to use the CLIs: logins, and nothing that keeps them quiet.
pub(crate) fn log_in(home: &Path, api: &str) {
    let write = |path: &str, text: &str| {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let codex = format!(
        "model = \"gpt-5.5\"\nmodel_provider = \"fake\"\n[analytics]\nenabled = false\n\
         [model_providers.fake]\nname = \"fake\"\nbase_url = \"{api}/v1\"\nenv_key = \"FAKE_KEY\"\n\
         wire_api = \"responses\"\n"
    );
    write(".codex/config.toml", &codex);
    let gemini = json!({"security": {"auth": {"selectedType": "gemini-api-key"}}});
    write(".gemini/settings.json", &gemini.to_string());
}

/// The environment of such a user; every way outside leads to the stand-in.
pub(crate) fn environment(clis: &Clis, api: &str) -> Vec<(&'static str, String)> {
    let command = |cli| clis.command(cli).display().to_string();
    vec![
        ("PATH", clis.path()),
        ("LANG", "C.UTF-8".to_owned()),
        ("PANORAMA_CLAUDE_CLI", command(ProviderId::ClaudeCode)),
        ("PANORAMA_CODEX_CLI", command(ProviderId::Codex)),
        ("PANORAMA_GEMINI_CLI", command(ProviderId::Gemini)),
        ("ANTHROPIC_BASE_URL", api.to_owned()),
        ("ANTHROPIC_API_KEY", "test-key".to_owned()),
        ("FAKE_KEY", "test-key".to_owned()),
        ("GEMINI_API_KEY", "test-key".to_owned()),
        ("GOOGLE_GEMINI_BASE_URL", api.to_owned()),
        ("HTTP_PROXY", api.to_owned()),
        ("HTTPS_PROXY", api.to_owned()),
        ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
    ]
}
