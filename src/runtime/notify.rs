//! Talks to the service manager that started this process: systemd's notify protocol.
//!
//! One datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names. Without a service
//! manager every call does nothing. The crates for this protocol read the process environment at
//! each call, know no abstract sockets, and cannot be told whose word it is; so it is spoken here.
//!
//! Variables are inherited, the right to speak is not: the service manager counts as ours only when
//! `SYSTEMD_EXEC_PID` is this process (or, where an older systemd does not set it, `WATCHDOG_PID`).
//! A replacement that an older gateway has started is told so by [`ServiceManager::handed_over`].

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::config::Environment;

/// The manager reads its socket all the time; a full one must not hold a thread of ours.
const PATIENCE: Duration = Duration::from_millis(200);
/// Of a status line, in bytes.
const LONGEST_STATUS: usize = 512;

/// The service manager, or none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    link: Option<Arc<Link>>,
}

#[derive(Debug)]
struct Link {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    silent: AtomicBool,
}

impl ServiceManager {
    /// Nobody to talk to.
    pub fn none() -> Self {
        Self::default()
    }

    /// The service manager that started this very process, if one did. `environment` is that of
    /// the process, before any env file.
    pub fn from_environment(environment: &Environment) -> Self {
        Self::for_process(environment, std::process::id())
    }

    /// The service manager of the gateway that this process takes over from: the variables are that
    /// gateway's, so they name another pid.
    pub fn handed_over(environment: &Environment) -> Self {
        Self::open(environment, watchdog_time(environment))
    }

    fn for_process(environment: &Environment, pid: u32) -> Self {
        let names_us =
            |variable| environment.get(variable).map(|text| text.parse::<u32>() == Ok(pid));
        let ours = names_us("SYSTEMD_EXEC_PID").or_else(|| names_us("WATCHDOG_PID"));
        if ours != Some(true) {
            return Self::none();
        }
        // Without a pid the watchdog is for whoever has the variable.
        let watched = names_us("WATCHDOG_PID") != Some(false);
        Self::open(environment, watchdog_time(environment).filter(|_| watched))
    }

    fn open(environment: &Environment, watchdog: Option<Duration>) -> Self {
        let Some(path) = environment.path("NOTIFY_SOCKET") else { return Self::none() };
        let link = address(path.as_os_str()).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Link { socket, address, watchdog, silent: AtomicBool::new(false) })
        });
        match link {
            Ok(link) => Self { link: Some(Arc::new(link)) },
            Err(error) => {
                tracing::warn!(path = %path.display(), %error,
                    "the service manager's socket cannot be used");
                Self::none()
            }
        }
    }

    /// True when there is one.
    pub fn is_there(&self) -> bool {
        self.link.is_some()
    }

    /// The start, or a reload, is done.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\n{}", status_line(status)));
    }

    /// The end has begun: no more work is accepted.
    pub fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    /// The config is being read again; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_usec()));
    }

    /// One line for people.
    pub fn status(&self, text: &str) {
        self.send(&status_line(text));
    }

    /// The process to watch from now on, in a hand-over.
    pub fn main_pid(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}\n"));
    }

    /// Says nothing from now on, in any clone: another process speaks for this service.
    pub fn fall_silent(&self) {
        self.silence(true);
    }

    /// Takes [`Self::fall_silent`] back.
    pub fn speak_again(&self) {
        self.silence(false);
    }

    fn silence(&self, silent: bool) {
        if let Some(link) = &self.link {
            link.silent.store(silent, Ordering::SeqCst);
        }
    }

    /// The start or stop that goes on may take so long from now, whatever its limit was.
    pub fn extend_timeout(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}\n", by.as_micros()));
    }

    /// How often [`Self::watchdog`] must be called: half of what the manager tolerates. `None` when
    /// it does not watch.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.link.as_ref()?.watchdog.map(|limit| limit / 2)
    }

    /// All is well.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1\n");
    }

    fn send(&self, message: &str) {
        let Some(link) = &self.link else { return };
        if link.silent.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = link.socket.send_to_addr(message.as_bytes(), &link.address) {
            tracing::warn!(%error, message = message.trim_end(), "the service manager was not told");
        }
    }
}

/// A path, or `@name` for a socket without one.
fn address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(Path::new(text)),
        [b'@', name @ ..] => abstract_address(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor @name")),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "abstract sockets are Linux's"))
}

fn watchdog_time(environment: &Environment) -> Option<Duration> {
    let micros: u64 = environment.get("WATCHDOG_USEC")?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

/// A line break would begin another assignment.
fn status_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("STATUS={}\n", &text[..text.floor_char_boundary(LONGEST_STATUS)])
}

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_pairs(pairs.iter().copied())
    }

    struct Listener {
        socket: UnixDatagram,
        path: String,
        _dir: tempfile::TempDir,
    }

    impl Listener {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify").display().to_string();
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { socket, path, _dir: dir }
        }

        fn heard(&self) -> Option<String> {
            let mut bytes = [0; 4096];
            let length = self.socket.recv(&mut bytes).ok()?;
            Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
        }
    }

    #[test]
    fn only_the_process_that_was_started_by_the_manager_speaks() {
        let listener = Listener::new();
        for (variables, speaks) in [
            ([("SYSTEMD_EXEC_PID", "7"), ("WATCHDOG_PID", "7")].as_slice(), true),
            (&[("SYSTEMD_EXEC_PID", "7")], true),
            (&[("SYSTEMD_EXEC_PID", "7"), ("WATCHDOG_PID", "8")], true),
            (&[("SYSTEMD_EXEC_PID", "8"), ("WATCHDOG_PID", "7")], false),
            (&[("SYSTEMD_EXEC_PID", "seven")], false),
            // An older systemd.
            (&[("WATCHDOG_PID", "7")], true),
            (&[("WATCHDOG_PID", "8")], false),
            (&[], false),
        ] {
            let mut all = vec![("NOTIFY_SOCKET", listener.path.as_str())];
            all.extend(variables);
            let manager = ServiceManager::for_process(&environment(&all), 7);
            assert_eq!(manager.is_there(), speaks, "{variables:?}");
            manager.watchdog();
            assert_eq!(listener.heard().is_some(), speaks, "{variables:?}");
        }
    }

    #[test]
    fn a_replacement_is_told_that_it_may_speak() {
        let listener = Listener::new();
        let variables = environment(&[
            ("NOTIFY_SOCKET", &listener.path),
            ("SYSTEMD_EXEC_PID", "1"),
            ("WATCHDOG_PID", "1"),
            ("WATCHDOG_USEC", "3000000"),
        ]);
        assert!(!ServiceManager::from_environment(&variables).is_there());
        let manager = ServiceManager::handed_over(&variables);
        assert_eq!(manager.watchdog_interval(), Some(Duration::from_millis(1500)));
        manager.main_pid(42);
        assert_eq!(listener.heard().as_deref(), Some("MAINPID=42\n"));
        let clone = manager.clone();
        manager.fall_silent();
        clone.stopping();
        assert_eq!(listener.heard(), None);
        clone.speak_again();
        manager.watchdog();
        assert_eq!(listener.heard().as_deref(), Some("WATCHDOG=1\n"));
    }

    #[test]
    fn the_words_of_the_protocol() {
        let listener = Listener::new();
        let variables =
            environment(&[("NOTIFY_SOCKET", &listener.path), ("SYSTEMD_EXEC_PID", "7")]);
        let manager = ServiceManager::for_process(&variables, 7);
        manager.ready("up\nMAINPID=1");
        assert_eq!(listener.heard().as_deref(), Some("READY=1\nSTATUS=up MAINPID=1\n"));
        manager.stopping();
        assert_eq!(listener.heard().as_deref(), Some("STOPPING=1\n"));
        manager.extend_timeout(Duration::from_secs(2));
        assert_eq!(listener.heard().as_deref(), Some("EXTEND_TIMEOUT_USEC=2000000\n"));
        manager.status(&"ä".repeat(600));
        assert_eq!(listener.heard().map(|text| text.len()), Some("STATUS=\n".len() + 512));
        let before = monotonic_usec();
        manager.reloading();
        let heard = listener.heard().unwrap();
        let at: i64 = heard.trim_end().rsplit_once('=').unwrap().1.parse().unwrap();
        assert!(heard.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{heard}");
        assert!((before..=monotonic_usec()).contains(&at), "{heard}");
    }

    #[test]
    fn the_watchdog_is_for_whom_it_names() {
        let listener = Listener::new();
        let interval = |more: &[(&str, &str)]| {
            let mut all =
                vec![("NOTIFY_SOCKET", listener.path.as_str()), ("SYSTEMD_EXEC_PID", "7")];
            all.extend(more);
            ServiceManager::for_process(&environment(&all), 7).watchdog_interval()
        };
        assert_eq!(interval(&[("WATCHDOG_USEC", "10")]), Some(Duration::from_micros(5)));
        assert_eq!(interval(&[("WATCHDOG_USEC", "10"), ("WATCHDOG_PID", "8")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "soon")]), None);
        assert_eq!(interval(&[]), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn sockets_without_a_path_are_known() {
        let name = format!("panorama-notify-{}", std::process::id());
        let bound = abstract_address(name.as_bytes()).unwrap();
        let socket = UnixDatagram::bind_addr(&bound).unwrap();
        let variables =
            environment(&[("NOTIFY_SOCKET", &format!("@{name}")), ("SYSTEMD_EXEC_PID", "7")]);
        ServiceManager::for_process(&variables, 7).watchdog();
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"WATCHDOG=1\n");
    }

    #[test]
    fn a_manager_that_cannot_be_reached_harms_nobody() {
        for path in ["/nowhere/notify", "vsock:2:1234", "notify", ""] {
            let variables = environment(&[("NOTIFY_SOCKET", path), ("SYSTEMD_EXEC_PID", "7")]);
            ServiceManager::for_process(&variables, 7).ready("up");
        }
    }
}
