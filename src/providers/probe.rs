//! Asks an installed CLI what it is and what it can: version, help, extensions.

use std::path::Path;
use std::time::Duration;

use super::{Asker, Installed, NoAnswer, Provider};

/// How long questions to a CLI may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `--version` of each of several files, to choose one.
    pub choice: Duration,
    /// Each question to the one that was chosen; all are asked at the same time.
    pub probe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { choice: Duration::from_secs(5), probe: Duration::from_secs(10) }
    }
}

impl Limits {
    /// For one that was too slow for these, once more: a host that has just started, or has much to
    /// do, must not pass for one without the CLI.
    #[must_use]
    pub fn patient(self) -> Self {
        Self { choice: self.choice * 3, probe: self.probe * 3 }
    }
}

/// What is installed. `version` is given where it is known already. Without a version the CLI
/// cannot be used; without help, the provider says what its flags are all the same.
pub async fn probe(
    provider: &dyn Provider,
    asker: &Asker,
    command: &Path,
    version: Option<String>,
    limits: Limits,
) -> Result<Installed, NoAnswer> {
    let ask =
        async |args: &[&str]| asker.ask(command, args, provider.probe_env(), limits.probe).await;
    let ask_version = async {
        match version {
            Some(version) => Ok(version),
            None => ask(&["--version"]).await.map(|said| said.trim().to_owned()),
        }
    };
    let ask_extensions = async {
        match provider.extension_args() {
            Some(args) => ask(args).await.map(|listing| provider.extensions(&listing)),
            None => Ok(Vec::new()),
        }
    };
    let (version, help, extensions) =
        tokio::join!(ask_version, ask(provider.help_args()), ask_extensions);
    let version = version?;
    let name = provider.id().as_str();
    if let Err(error) = &help {
        tracing::warn!(provider = name, %error, "no help could be had");
    }
    let extensions = extensions.unwrap_or_else(|error| {
        // It wants a login for that, which the full check reports as what it is.
        tracing::debug!(provider = name, %error, "the list of extensions could not be had");
        Vec::new()
    });
    Ok(Installed {
        command: command.to_owned(),
        version: (!version.is_empty()).then_some(version),
        flags: provider.flags(help.ok().as_deref()),
        extensions,
    })
}
