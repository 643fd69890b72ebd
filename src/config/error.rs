//! What can be wrong with the configuration, and what to do about it.

use std::path::{Path, PathBuf};

use crate::fs::FsError;

/// What is wrong with the configuration. `Display` says what; [`ConfigError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory cannot be used.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// `gateway.json` does not parse; it is never overwritten.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why it does not parse.
        reason: String,
    },
    /// `gateway.json` was written by a later version.
    #[error("{} was written by a newer panorama-gateway (format {format})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
    /// There is no home directory to put the files in, and no other was named.
    #[error("there is no home directory: HOME is not set")]
    NoHome,
    /// An env file that was asked for is not there or does not parse.
    #[error("the env file {} cannot be used: {reason}", path.display())]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A flag or variable has a value that cannot be used.
    #[error("{name} cannot be {value:?}: {reason}")]
    Value {
        /// The flag or variable.
        name: String,
        /// Its value.
        value: String,
        /// What it may be.
        reason: String,
    },
    /// No backend URL or key anywhere.
    #[error("no backend is configured: {missing} is not set")]
    NoBackend {
        /// `the Supabase URL` or `the anon key`.
        missing: &'static str,
    },
    /// A plain-http backend that is not on loopback.
    #[error("{url} is not encrypted")]
    Insecure {
        /// The URL.
        url: String,
    },
    /// Only an env file names this backend, and the saved tokens are for another one.
    #[error("{name} in {} is not the backend of the saved pairing, {paired}", path.display())]
    OtherBackend {
        /// The variable.
        name: &'static str,
        /// The env file.
        path: PathBuf,
        /// The URL that was saved with the tokens.
        paired: String,
    },
    /// A lock could not be had in time.
    #[error("another panorama-gateway holds {} for too long", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
}

impl ConfigError {
    /// One line that says what to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Fs(error) => file_hint(error),
            Self::Damaged { path, .. } => format!(
                "repair {} by hand, or pair again: `panorama-gateway pair <CODE>` keeps a copy of it",
                path.display()
            ),
            Self::Newer { .. } => {
                "run the newest panorama-gateway that is installed here, or name \
                                   another directory with --config-dir"
                    .to_owned()
            }
            Self::NoHome => "set HOME, or name a directory with --config-dir".to_owned(),
            Self::EnvFile { .. } => "correct the file, or leave out what asks for it: --env-file, \
                                     --env, PANORAMA_ENV_FILE, PANORAMA_ENV_PATH or PANORAMA_ENV"
                .to_owned(),
            Self::Value { name, .. } => format!("correct {name}, or leave it out"),
            Self::NoBackend { missing } => {
                let (flag, variable) = match *missing {
                    "the anon key" => ("--anon-key", "PANORAMA_SUPABASE_ANON_KEY"),
                    _ => ("--supabase-url", "PANORAMA_SUPABASE_URL"),
                };
                format!("give {flag}, or set {variable}")
            }
            Self::Insecure { .. } => "use https://, or set PANORAMA_ALLOW_INSECURE_BACKEND=1 if \
                                      nobody else can listen on the way"
                .to_owned(),
            Self::OtherBackend { name, .. } => format!(
                "leave {name} out of the file, give --supabase-url if the backend has moved, or \
                 pair with the other one"
            ),
            Self::Busy { .. } => {
                "try again; if it stays so, see which panorama-gateway hangs with \
                                  `panorama-gateway status -v`"
                    .to_owned()
            }
        }
    }
}

fn file_hint(error: &FsError) -> String {
    let path = quoted(error.path());
    match error {
        FsError::ForeignOwner { .. } => format!(
            "give it to yourself with `sudo chown -R \"$(id -un)\" {path}`, or name another place \
             with --config-dir"
        ),
        FsError::WrongKind { wanted, .. } => {
            format!("put {wanted} there, or name another place with --config-dir or --config-path")
        }
        FsError::TooLarge { .. } => format!("look at what {path} holds, and move it away"),
        FsError::Io { .. } if error.is_denied() => format!(
            "see who may use it with `ls -ld {path}`, or name another place with --config-dir"
        ),
        FsError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            format!("make room on the disk that holds {path}")
        }
        FsError::Io { .. } => {
            format!("check {path} and the disk it lies on, or name another place with --config-dir")
        }
    }
}

/// As a shell takes it back.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@".contains(&byte);
    if path.bytes().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn io_error(kind: io::ErrorKind) -> ConfigError {
        let path = "/home/me/.panorama".into();
        FsError::Io { verb: "write", path, source: kind.into() }.into()
    }

    #[test]
    fn every_hint_is_one_concrete_line() {
        let path = || PathBuf::from("/home/me/.panorama/gateway.json");
        let cases: Vec<(ConfigError, &str)> = vec![
            (FsError::ForeignOwner { path: path() }.into(), "chown -R"),
            (
                FsError::WrongKind { path: path(), found: "a socket", wanted: "a regular file" }
                    .into(),
                "put a regular file there",
            ),
            (FsError::TooLarge { path: path(), limit: 1 }.into(), "gateway.json"),
            (io_error(io::ErrorKind::PermissionDenied), "ls -ld /home/me/.panorama"),
            (io_error(io::ErrorKind::StorageFull), "make room"),
            (io_error(io::ErrorKind::Other), "--config-dir"),
            (ConfigError::Damaged { path: path(), reason: String::new() }, "pair again"),
            (ConfigError::Newer { path: path(), format: 2 }, "newest"),
            (ConfigError::NoHome, "--config-dir"),
            (ConfigError::EnvFile { path: path(), reason: String::new() }, "--env-file"),
            (
                ConfigError::Value {
                    name: "--env".to_owned(),
                    value: String::new(),
                    reason: String::new(),
                },
                "correct --env",
            ),
            (
                ConfigError::NoBackend { missing: "the Supabase URL" },
                "--supabase-url, or set PANORAMA_SUPABASE_URL",
            ),
            (
                ConfigError::NoBackend { missing: "the anon key" },
                "--anon-key, or set PANORAMA_SUPABASE_ANON_KEY",
            ),
            (ConfigError::Insecure { url: String::new() }, "PANORAMA_ALLOW_INSECURE_BACKEND=1"),
            (
                ConfigError::OtherBackend {
                    name: "SUPABASE_URL",
                    path: path(),
                    paired: String::new(),
                },
                "--supabase-url",
            ),
            (ConfigError::Busy { path: path() }, "status -v"),
        ];
        for (error, part) in cases {
            let hint = error.hint();
            assert!(hint.contains(part), "{error:?}: {hint}");
            assert!(!hint.contains('\n') && !hint.contains("  "), "{hint}");
        }
    }

    #[test]
    fn odd_paths_are_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
