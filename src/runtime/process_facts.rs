//! What the system says of this process, as far as that is cheap to ask: a few reads of `/proc`.

use std::path::Path;
use std::time::Duration;

/// Unknown where there is no `/proc`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ProcessFacts {
    /// Resident memory in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub(super) open_descriptors: Option<usize>,
    /// How many of them there may be.
    pub(super) most_descriptors: Option<u64>,
    /// CPU time used, of user and system, children aside.
    pub(super) cpu: Option<Duration>,
}

impl ProcessFacts {
    /// As they are now.
    pub(super) fn read() -> Self {
        use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
        let of = Path::new("/proc/self");
        let status = std::fs::read_to_string(of.join("status")).unwrap_or_default();
        // The descriptor that counts is one of those counted.
        let descriptors = std::fs::read_dir(of.join("fd")).ok().map(|open| open.count() - 1);
        let cpu = getrusage(UsageWho::RUSAGE_SELF).ok().and_then(|usage| {
            let micros = [usage.user_time(), usage.system_time()]
                .map(|time| nix::sys::time::TimeValLike::num_microseconds(&time));
            Some(Duration::from_micros(u64::try_from(micros[0] + micros[1]).ok()?))
        });
        Self {
            resident_bytes: resident(&status),
            open_descriptors: descriptors,
            most_descriptors: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            cpu,
        }
    }
}

/// `VmRSS:     1234 kB`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_its_line() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152));
        assert_eq!(resident("Name:\tx\n"), None);
        assert_eq!(resident("VmRSS: many kB"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_descriptor_more_is_seen() {
        let before = ProcessFacts::read();
        assert!(before.resident_bytes > Some(100_000) && before.cpu.is_some(), "{before:?}");
        assert!(before.most_descriptors > before.open_descriptors.map(|open| open as u64));
        let _open: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests of this process open and close some meanwhile.
        assert!(ProcessFacts::read().open_descriptors >= before.open_descriptors.map(|n| n + 20));
    }
}
