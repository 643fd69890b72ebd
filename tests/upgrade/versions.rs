//! Files to install: the binary under test with other versions in it, and bad ones.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use panorama_gateway::VERSION;

use crate::common::BINARY;

/// Where the files lie: made once for each build of the binary under test.
static SHELF: LazyLock<PathBuf> = LazyLock::new(|| {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upgrade");
    let built = std::fs::metadata(BINARY).unwrap().modified().unwrap();
    let age = built.duration_since(std::time::UNIX_EPOCH).unwrap();
    let ours = all.join(age.as_nanos().to_string());
    for other in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        if other.path() != ours {
            let _ = std::fs::remove_dir_all(other.path());
        }
    }
    std::fs::create_dir_all(&ours).unwrap();
    ours
});
/// One at a time makes files.
static MAKING: Mutex<()> = Mutex::new(());
const ETXTBSY: i32 = 26;

/// Another thread's fork may hold a file open that was just written.
pub(crate) fn unless_busy<T>(mut start: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    for _ in 0..100 {
        match start() {
            Err(error) if error.raw_os_error() == Some(ETXTBSY) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            started => return started,
        }
    }
    start()
}

/// The binary under test, without what only a debugger reads.
pub(crate) fn ours() -> PathBuf {
    made("ours", |path| {
        std::fs::copy(BINARY, path).unwrap();
        let stripped = Command::new("strip").arg(path).status();
        // Only larger without it.
        drop(stripped);
    })
}

/// The same gateway under another version: every mention of the version is replaced by one of the
/// same length, and the outcome says so itself.
pub(crate) fn other(version: &str) -> PathBuf {
    assert_eq!(version.len(), VERSION.len());
    let ours = ours();
    let path = made(version, |path| {
        std::fs::write(path, relabelled(&ours, VERSION, version)).unwrap();
    });
    let ask = || Command::new(&path).arg("--version").env_clear().output();
    let said = unless_busy(ask).unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("panorama-gateway {version}\n"));
    path
}

/// The bytes of a file with every mention of a version replaced by one of the same length.
pub(crate) fn relabelled(file: &Path, version: &str, by: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(file).unwrap();
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, version.as_bytes()).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + by.len()].copy_from_slice(by.as_bytes());
    }
    bytes
}

/// Puts a file there as an installer does: beside it, then renamed over it.
pub(crate) fn put(file: &Path, path: &Path) {
    let draft = path.with_extension("new");
    if std::fs::hard_link(file, &draft).is_err() {
        std::fs::copy(file, &draft).unwrap();
    }
    std::fs::rename(&draft, path).unwrap();
    // Nothing is renamed where both names are of one file.
    drop(std::fs::remove_file(draft));
}

/// A version of our own version's length; `last` is its last digit.
pub(crate) fn numbered(last: u8) -> String {
    let mut version = VERSION.to_owned();
    version.pop();
    format!("{version}{last}")
}

/// A program that calls itself a gateway, and then does something else.
pub(crate) fn impostor(version: &str, behaviour: &str) -> PathBuf {
    made(&format!("{behaviour}-{version}"), |path| {
        let source = path.with_extension("rs");
        std::fs::write(&source, IMPOSTOR).unwrap();
        let environment = panorama_gateway::config::Environment::of_process();
        let compiled = Command::new(environment.get("RUSTC").unwrap_or("rustc"))
            .args(["--edition", "2024", "--crate-name", "impostor", "-o"])
            .args([path, &source])
            .env("SAYS_VERSION", version)
            .env("BEHAVIOUR", behaviour)
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    })
}

const IMPOSTOR: &str = r##"
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

fn wait() -> ! { loop { std::thread::sleep(Duration::from_secs(3600)) } }

fn say(line: &str) {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    writeln!(std::os::unix::net::UnixStream::from(stdin), "{line}").unwrap();
}

fn main() {
    let asked = std::env::args().nth(1).as_deref() == Some("--version");
    match env!("BEHAVIOUR") {
        "hangs-when-asked" if asked => wait(),
        "floods-when-asked" if asked => loop {
            if writeln!(std::io::stdout(), "panorama-gateway {}", env!("SAYS_VERSION")).is_err() {
                return;
            }
        },
        "names-another" if asked => println!("cat (GNU coreutils) {}", env!("SAYS_VERSION")),
        _ if asked => println!("panorama-gateway {}", env!("SAYS_VERSION")),
        "crashes" => std::process::abort(),
        "gives-up" => {
            say(r#"{"word":"failed","reason":"the disk is made of cheese"}"#);
            wait()
        }
        "is-silent" => wait(),
        "is-never-up" => {
            say(r#"{"word":"ready","version":"x"}"#);
            wait()
        }
        "crashes-when-it-takes-over" => {
            say(r#"{"word":"ready","version":"x"}"#);
            if std::io::stdin().read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                std::process::abort();
            }
        }
        "babbles" => {
            say("good morning");
            wait()
        }
        other => panic!("{other}"),
    }
}
"##;

/// Our binary, cut in the middle.
pub(crate) fn truncated() -> PathBuf {
    let ours = ours();
    made("truncated", |path| {
        let bytes = std::fs::read(&ours).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    })
}

/// The head of a binary for a machine of another kind.
pub(crate) fn foreign() -> PathBuf {
    made("foreign", |path| {
        let mut bytes = std::fs::read(BINARY).unwrap();
        bytes.truncate(4096);
        // EM_S390 and EM_PPC64: neither is ours.
        bytes[18] = if bytes[18] == 22 { 21 } else { 22 };
        std::fs::write(path, bytes).unwrap();
    })
}

/// A script that says what a gateway would say.
pub(crate) fn script() -> PathBuf {
    made("script", |path| {
        std::fs::write(path, "#!/bin/sh\necho panorama-gateway 9.9.9\n").unwrap();
    })
}

/// An executable file of this name, made once.
fn made(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = SHELF.join(name);
    if !path.exists() {
        let draft = SHELF.join(format!("{name}.{}.draft", std::process::id()));
        make(&draft);
        std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&draft, &path).unwrap();
    }
    path
}
