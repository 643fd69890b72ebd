//! Asks a running gateway over its status socket; blocking, without a runtime.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fs::socket::connect;
use crate::runtime::status::LiveStatus;

/// A gateway that runs answers at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than any answer needs.
const LONGEST_ANSWER: u64 = 4 * 1024 * 1024;

/// Who answered.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// The gateway.
    Live(T),
    /// Nobody listens there.
    Nobody,
    /// Somebody holds the socket but does not answer as a gateway does.
    Silent(io::Error),
}

/// How the gateway is.
pub(crate) fn status(socket: &Path) -> Answer<LiveStatus> {
    match ask(socket, "status") {
        Answer::Live(value) => match serde_json::from_value(value) {
            Ok(status) => Answer::Live(status),
            Err(error) => Answer::Silent(io::Error::new(io::ErrorKind::InvalidData, error)),
        },
        Answer::Nobody => Answer::Nobody,
        Answer::Silent(error) => Answer::Silent(error),
    }
}

/// Asks the gateway to cancel the work in hand. True when it took that.
pub(crate) fn cancel(socket: &Path) -> bool {
    match ask(socket, "cancel") {
        Answer::Live(value) => value.get("error").is_none(),
        Answer::Nobody | Answer::Silent(_) => false,
    }
}

fn ask(socket: &Path, request: &str) -> Answer<Value> {
    match exchange(socket, request) {
        Ok(value) => Answer::Live(value),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Answer::Nobody
        }
        Err(error) => Answer::Silent(error),
    }
}

fn exchange(socket: &Path, request: &str) -> io::Result<Value> {
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", json!({"request": request})).as_bytes())?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST_ANSWER)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn answering(answer: &'static str) -> (tempfile::TempDir, thread::JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            let mut stream = BufReader::new(stream);
            stream.read_line(&mut request).unwrap();
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            request
        });
        (dir, server)
    }

    #[test]
    fn one_line_each_way() {
        let (dir, server) = answering("{\"ok\":true}\n");
        assert!(cancel(&dir.path().join("s")));
        assert_eq!(server.join().unwrap(), "{\"request\":\"cancel\"}\n");
    }

    #[test]
    fn refusals_and_nonsense_are_told_apart_from_nobody() {
        let (dir, _server) = answering("{\"error\":\"unknown request\"}\n");
        assert!(!cancel(&dir.path().join("s")));
        let (dir, _server) = answering("not json\n");
        assert!(matches!(status(&dir.path().join("s")), Answer::Silent(_)));
        let (dir, _server) = answering("");
        assert!(matches!(status(&dir.path().join("s")), Answer::Silent(_)));
        assert!(matches!(status(&dir.path().join("absent")), Answer::Nobody));
    }
}
