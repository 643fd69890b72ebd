//! How a command ends: exit codes, and errors as people read them.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use crate::backend::BackendError;
use crate::config::ConfigError;
use crate::fs::FsError;
use crate::runtime::StartError;

/// Every exit code of the program, but for those of commands that jobs ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// Wrong usage.
    Usage,
    /// `status --check`, and it is not running.
    NotRunning,
    /// Not paired, or the pairing was revoked.
    NotPaired,
    /// Already running, where that is an error.
    AlreadyRunning,
    /// What a job's command ended with.
    OfCommand(u8),
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::NotPaired => 4,
            Self::AlreadyRunning => 5,
            Self::OfCommand(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What a command comes to.
pub(crate) type Outcome = Result<Exit, Failure>;

/// An error at the rim: what failed, what to do, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// One line that says what failed; empty when nobody is there to read it.
    pub message: String,
    /// One line that says what to do.
    pub hint: Option<String>,
    /// Why, outermost first; shown with `-v`.
    pub causes: Vec<String>,
}

impl Failure {
    /// With [`Exit::Failed`].
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), hint: None, causes: Vec::new() }
    }

    /// With [`Exit::Usage`].
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(message).exit(Exit::Usage)
    }

    /// Nobody is paired here.
    pub(crate) fn not_paired() -> Self {
        Self::new("this gateway is not paired")
            .exit(Exit::NotPaired)
            .hint("get a pairing code from your team and run `panorama-gateway pair <CODE>`")
    }

    /// The backend ended the session for good.
    pub(crate) fn revoked(reason: &str) -> Self {
        let hint = if reason == "refresh_token_already_used" {
            "if its config was copied to another machine, pair each with a code of its own: \
             `panorama-gateway pair <CODE>`"
        } else {
            "pair it again with a new code: `panorama-gateway pair <CODE>`"
        };
        Self::new("the pairing of this gateway was revoked")
            .exit(Exit::NotPaired)
            .hint(hint)
            .cause(reason)
    }

    /// From an error: its text is the message, what caused it are the causes.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut failure = Self::new(one_line(&error.to_string()));
        failure.causes = chain(error.source());
        failure
    }

    /// Says what was being done; the former message becomes the first cause.
    pub(crate) fn context(mut self, message: impl Into<String>) -> Self {
        let former = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, former);
        self
    }

    /// With another exit code.
    #[must_use]
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// With what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With one more cause.
    #[must_use]
    pub(crate) fn cause(mut self, cause: impl AsRef<str>) -> Self {
        self.causes.push(one_line(cause.as_ref()));
        self
    }

    /// As it goes to stderr. Empty for a failure that nobody can read.
    pub(crate) fn render(&self, verbose: bool, colour: bool) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let (red, blue, plain) =
            if colour { ("\x1b[1;31m", "\x1b[1;34m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error:{plain} {}\n", self.message);
        // A chain whose only news is the last link still helps whoever has no hint.
        if verbose {
            for cause in &self.causes {
                let _infallible = writeln!(text, "  because: {cause}");
            }
        }
        match &self.hint {
            Some(hint) => {
                let _infallible = writeln!(text, "{blue}hint:{plain} {hint}");
            }
            None if !verbose && !self.causes.is_empty() => {
                let _infallible = writeln!(text, "{blue}hint:{plain} add -v to see why");
            }
            None => {}
        }
        text
    }
}

/// The sources of an error, from the outermost; a link that only repeats the one before is left out.
pub(crate) fn chain(mut source: Option<&(dyn Error + 'static)>) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    while let Some(error) = source {
        let text = one_line(&error.to_string());
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        source = error.source();
    }
    causes
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::of(&error).hint(error.hint())
    }
}

impl From<FsError> for Failure {
    fn from(error: FsError) -> Self {
        Self::from(ConfigError::from(error))
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let failure = Self::of(&error);
        match error {
            BackendError::SessionEnded(code) => Self::revoked(&code),
            BackendError::Unreachable(_) | BackendError::TimedOut(_) => failure
                .hint("check the network and the backend's URL (`panorama-gateway config show`)"),
            BackendError::Contract(_) | BackendError::TooLarge(_) => failure.hint(
                "check that the URL is that of a Panorama backend (`panorama-gateway config show`)",
            ),
            BackendError::Status { status: 401 | 403, .. } => failure
                .hint("check the backend's URL and anon key (`panorama-gateway config show`)"),
            BackendError::Unsendable(_) => failure
                .hint("correct the backend's URL and anon key (`panorama-gateway config show`)"),
            BackendError::Status { .. } => failure.hint("the backend may be in trouble: try again"),
            BackendError::TokenStore(_) => failure
                .hint("see what keeps the config file from being written (`status -v` names it)"),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::NotPaired => Self::not_paired(),
            StartError::AlreadyRunning { pid } => {
                let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
                Self::new(format!("the gateway is already running{who}"))
                    .exit(Exit::AlreadyRunning)
                    .hint("`panorama-gateway status` says how it is; `panorama-gateway stop` stops it")
            }
            StartError::Config(error) => error.into(),
            StartError::Other(error) => error.into(),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let error = match error.downcast::<BackendError>() {
            Ok(error) => return error.into(),
            Err(error) => error,
        };
        match error.downcast::<ConfigError>() {
            Ok(error) => error.into(),
            Err(error) => Self::of(error.as_ref()),
        }
    }
}

impl From<io::Error> for Failure {
    /// Errors of stdout: a reader that has enough (`logs | head`) is no failure to speak of.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new("").exit(Exit::Done);
        }
        Self::new("could not write the output").cause(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_of_exit_codes() {
        let codes = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::NotRunning,
            Exit::NotPaired,
            Exit::AlreadyRunning,
            Exit::OfCommand(124),
        ]
        .map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 124]);
    }

    #[test]
    fn a_failure_is_two_lines_and_more_with_v() {
        let failure = Failure::from(
            anyhow::Error::msg("no space left").context("write the file").context("pair"),
        );
        assert_eq!(failure.render(false, false), "error: pair\nhint: add -v to see why\n");
        assert_eq!(
            failure.render(true, false),
            "error: pair\n  because: write the file\n  because: no space left\n"
        );
        let failure = failure.hint("make room");
        assert_eq!(failure.render(false, false), "error: pair\nhint: make room\n");
        assert!(failure.render(false, true).starts_with("\x1b[1;31merror:\x1b[0m pair"));
    }

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.render(true, false)), (Exit::Done, String::new()));
    }

    #[test]
    fn pairing_troubles_have_a_code_of_their_own() {
        assert_eq!(Failure::from(StartError::NotPaired).exit, Exit::NotPaired);
        assert_eq!(Failure::from(BackendError::SessionEnded("x".into())).exit, Exit::NotPaired);
        let running = Failure::from(StartError::AlreadyRunning { pid: Some(7) });
        assert_eq!(running.exit, Exit::AlreadyRunning);
        assert_eq!(running.message, "the gateway is already running (pid 7)");
    }
}
