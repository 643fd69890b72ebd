//! Stdout and stderr: redaction, colour, and readers that go away.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Environment;
use crate::observe::Redactor;

/// What people see. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ui {
    redactor: Redactor,
    no_colour: bool,
    /// The terminal knows nothing but lines.
    only_lines: bool,
    /// Warnings that were given already.
    warned: Arc<Mutex<BTreeSet<String>>>,
}

impl Ui {
    /// Honours `NO_COLOR`, and terminals that know no colours.
    pub(crate) fn new(environment: &Environment, redactor: Redactor) -> Self {
        let only_lines = environment.get("TERM") == Some("dumb");
        let no_colour = environment.get("NO_COLOR").is_some() || only_lines;
        Self { redactor, no_colour, only_lines, warned: Arc::default() }
    }

    /// A line on stdout: the product of a command.
    pub(crate) fn out(&self, line: &str) -> io::Result<()> {
        self.out_raw(&format!("{line}\n"))
    }

    /// Text on stdout as it is, but for our own secrets; flushed.
    pub(crate) fn out_raw(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(self.redactor.own_secrets(text).as_bytes())?;
        stdout.flush()
    }

    /// Text on stderr as it is, but for our own secrets. Nobody can be told that stderr is broken.
    pub(crate) fn err_raw(&self, text: &str) {
        let text = self.redactor.own_secrets(text);
        let _nobody_to_tell = io::stderr().lock().write_all(text.as_bytes());
    }

    /// A line for people beside the product, redacted.
    pub(crate) fn note(&self, line: &str) {
        self.err_raw(&format!("{}\n", self.redactor.text(line)));
    }

    /// Something odd, redacted.
    pub(crate) fn warn(&self, line: &str) {
        let (yellow, plain) =
            if self.colour_on_stderr() { ("\x1b[1;33m", "\x1b[0m") } else { ("", "") };
        self.err_raw(&format!("{yellow}warning:{plain} {}\n", self.redactor.text(line)));
    }

    /// The same, once: `pair` resolves the settings twice, for itself and for `start`.
    pub(crate) fn warn_once(&self, line: &str) {
        let news =
            self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(line.to_owned());
        if news {
            self.warn(line);
        }
    }

    /// Text for stderr, redacted.
    pub(crate) fn err(&self, text: &str) {
        self.err_raw(&self.redactor.text(text));
    }

    /// Whether stderr is read by a person and takes colours.
    pub(crate) fn colour_on_stderr(&self) -> bool {
        !self.no_colour && io::stderr().is_terminal()
    }

    /// Whether stdout is read by a person and takes colours.
    pub(crate) fn colour_on_stdout(&self) -> bool {
        !self.no_colour && io::stdout().is_terminal()
    }

    /// Whether stderr is read by a person and shows progress.
    pub(crate) fn stderr_moves(&self) -> bool {
        !self.only_lines && io::stderr().is_terminal()
    }

    /// Asks on the terminal. `None` when there is none; anything but yes is no.
    pub(crate) fn confirm(&self, question: &str) -> Option<bool> {
        if !io::stdin().is_terminal() {
            return None;
        }
        self.err_raw(&format!("{question} [y/N] "));
        let mut answer = String::new();
        let _unreadable_is_no = io::stdin().lock().read_line(&mut answer);
        Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}
