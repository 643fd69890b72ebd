//! Where log lines go: people's lines on a terminal, JSON lines elsewhere.
//!
//! Every finished line passes the [`Redactor`] before it leaves the thread that wrote it. The file
//! is written by a thread of its own that may drop lines under flood; what it dropped is counted.
//! Dropping the [`LogGuard`] writes what is still on its way.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use super::Redactor;
use super::rotate::{Bounds, FileState, Lost, RotatingFile, Trouble};
use crate::fs::FsError;
use crate::model::time;

/// A log file is rotated at this size.
pub(crate) const ROTATE_AT: u64 = 20 * 1024 * 1024;
/// Old log files kept.
pub(crate) const KEEP: u32 = 5;
/// Lines that wait for the writer before some are dropped.
const WAITING_LINES: usize = 2048;

/// What goes to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StderrLines {
    /// Nothing.
    Off,
    /// For people.
    Human {
        /// With colour.
        colour: bool,
    },
    /// One JSON object a line.
    Json,
}

/// What to log, and where to.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A filter like `info` or `panorama_gateway=debug,warn`. One that does not parse is
    /// `info`, with a warning.
    pub filter: String,
    /// What every line passes.
    pub redactor: Redactor,
    /// Lines on stderr.
    pub stderr: StderrLines,
    /// JSON lines in this file, rotated.
    pub file: Option<PathBuf>,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log file cannot be used.
    #[error(transparent)]
    File(#[from] FsError),
    /// It was set up before.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Keeps logging alive.
#[derive(Debug)]
pub struct LogGuard {
    handle: LogHandle,
    _worker: Option<WorkerGuard>,
}

impl LogGuard {
    /// For those who reopen the log or report on it.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogHandle {
    file: FileState,
    dropped: Option<ErrorCounter>,
}

impl LogHandle {
    /// Opens the log file again before the next line (it was moved away).
    pub fn reopen(&self) {
        self.file.request_reopen();
    }

    /// Lines dropped because they came faster than they could be written.
    pub fn dropped_lines(&self) -> usize {
        self.dropped.as_ref().map_or(0, ErrorCounter::dropped_lines)
    }

    /// Writes and rotations that the file system refused.
    pub fn failed_writes(&self) -> u64 {
        self.file.failures()
    }

    /// Lines that are in no file because it could not be written, since the start.
    pub fn lost_lines(&self) -> u64 {
        self.file.lost_lines()
    }

    /// Why the last line was lost, e.g. `the disk was full`; `None` when it was written.
    pub fn trouble(&self) -> Option<&'static str> {
        self.file.trouble().map(Trouble::as_str)
    }
}

/// Sets up logging of a gateway in the foreground: human lines on a terminal, else JSON lines on
/// stderr and in `file`.
pub fn init_foreground(
    filter: &str,
    redactor: &Redactor,
    terminal: Option<Colour>,
    file: &Path,
) -> Result<LogGuard, LogError> {
    let (stderr, file) = match terminal {
        Some(colour) => (StderrLines::Human { colour: colour == Colour::On }, None),
        None => (StderrLines::Json, Some(file.to_owned())),
    };
    init(LogOptions { filter: filter.to_owned(), redactor: redactor.clone(), stderr, file })
}

/// Sets up logging of a gateway in the background: JSON lines in `file` only.
pub fn init_file(filter: &str, redactor: &Redactor, file: &Path) -> Result<LogGuard, LogError> {
    init(LogOptions {
        filter: filter.to_owned(),
        redactor: redactor.clone(),
        stderr: StderrLines::Off,
        file: Some(file.to_owned()),
    })
}

/// Whether a terminal gets colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Sets up logging of this process; once.
pub fn init(options: LogOptions) -> Result<LogGuard, LogError> {
    let LogOptions { filter, redactor, stderr, file } = options;
    let parsed = parse_filter(&filter);
    let refused = parsed.is_none();
    let targets = parsed.unwrap_or_else(default_filter);
    let state = FileState::default();
    let (writer, worker) = match &file {
        Some(path) => {
            let (writer, guard) = file_writer(path, state.clone())?;
            (Some(writer), Some(guard))
        }
        None => (None, None),
    };
    let handle =
        LogHandle { file: state, dropped: writer.as_ref().map(NonBlocking::error_counter) };
    let subscriber =
        Registry::default().with(targets).with(stderr_layer(stderr, redactor.clone())).with(
            writer.map(|writer| json_layer(Redacting { inner: move || writer.clone(), redactor })),
        );
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    if refused {
        tracing::warn!(PANORAMA_GATEWAY_LOG = %filter, "the log filter is not understood; using info");
    }
    Ok(LogGuard { handle, _worker: worker })
}

/// Whether the text is a filter.
pub fn is_filter(text: &str) -> bool {
    parse_filter(text).is_some()
}

/// `None` when the text is not a filter.
fn parse_filter(filter: &str) -> Option<Targets> {
    // An unknown word is read as the name of a target, all of whose lines are shown: nothing else
    // would be, which nobody wants who misspelt `debug`.
    let names_unknown_level = filter.split(',').map(str::trim).any(|part| {
        part.is_empty() || !part.contains(['=', ':']) && part.parse::<LevelFilter>().is_err()
    });
    if names_unknown_level { None } else { filter.parse().ok() }
}

fn default_filter() -> Targets {
    Targets::new().with_default(LevelFilter::INFO)
}

fn file_writer(path: &Path, state: FileState) -> Result<(NonBlocking, WorkerGuard), FsError> {
    let bounds = Bounds { size: ROTATE_AT, keep: KEEP };
    let file = RotatingFile::open(path, bounds, state, lost_note)?;
    Ok(NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log-writer")
        .finish(file))
}

/// The line that tells of lost ones, in the form of the others.
fn lost_note(lost: &Lost) -> String {
    let line = serde_json::json!({
        "timestamp": time::now_wire(), "level": "WARN", "message": lost.to_string(),
        "lost": lost.lines, "target": module_path!(),
    });
    format!("{line}\n")
}

fn stderr_layer<S>(
    lines: StderrLines,
    redactor: Redactor,
) -> Option<Box<dyn Layer<S> + Send + Sync>>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let writer = Redacting { inner: io::stderr, redactor };
    match lines {
        StderrLines::Off => None,
        StderrLines::Human { colour } => Some(
            tracing_subscriber::fmt::layer()
                .with_ansi(colour)
                .with_target(false)
                .with_writer(writer)
                .boxed(),
        ),
        StderrLines::Json => Some(json_layer(writer)),
    }
}

fn json_layer<S, W>(writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(writer)
        .boxed()
}

/// Makes writers that redact. The formatter hands over a whole line at a time.
struct Redacting<M> {
    inner: M,
    redactor: Redactor,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Redacting<M> {
    type Writer = RedactingWriter<'a, M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingWriter { inner: self.inner.make_writer(), redactor: &self.redactor }
    }
}

struct RedactingWriter<'a, W> {
    inner: W,
    redactor: &'a Redactor,
}

impl<W: Write> Write for RedactingWriter<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shown = self.redactor.text(&String::from_utf8_lossy(line));
        self.inner.write_all(shown.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn secrets_do_not_reach_the_writer_and_lines_stay_json() {
        let lines = Lines::default();
        let redactor = Redactor::default();
        redactor.add_secret("own-secret-value");
        let sink = lines.clone();
        let subscriber = Registry::default()
            .with(default_filter())
            .with(json_layer(Redacting { inner: move || sink.clone(), redactor }));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("job", id = "j1", kind = "shell_exec");
            let _entered = span.enter();
            tracing::info!(error = "token=abc\"def own-secret-value", "refused");
            tracing::debug!("not shown");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "refused");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["span"]["id"], "j1");
        assert!(!text.contains("abc") && !text.contains("own-secret"), "{text}");
    }

    #[test]
    fn filters() {
        for good in
            ["info", "DEBUG", "off", "warn,panorama_gateway=debug", "panorama_gateway::jobs"]
        {
            assert!(parse_filter(good).is_some(), "{good}");
        }
        for bad in ["", "verbose", "a=b=c", "info,nonsense", "panorama_gateway=loud"] {
            assert!(parse_filter(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_file_gets_what_was_logged_before_the_guard_went() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.log");
        let (writer, guard) = file_writer(&path, FileState::default()).unwrap();
        let subscriber =
            Registry::default().with(default_filter()).with(json_layer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || tracing::warn!(n = 1, "odd"));
        drop(guard);
        let line: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(line["n"], 1);
    }
}
