//! How many agent CLIs this machine has memory for.

/// What an agent CLI takes at its largest, with the commands that it starts.
const AN_AGENT: u64 = 400 << 20;

/// How many agents may run at the same time, at most `jobs`, by the memory that is free now.
pub(super) fn agents(jobs: usize) -> usize {
    admitted(available(), jobs)
}

/// Half of what is free is left to everybody else. Where nobody tells, memory sets no limit.
fn admitted(available: Option<u64>, jobs: usize) -> usize {
    let room =
        available.map_or(jobs, |bytes| usize::try_from(bytes / 2 / AN_AGENT).unwrap_or(usize::MAX));
    room.clamp(1, jobs.max(1))
}

/// Bytes that are free, or can be freed, on this machine and in this container.
fn available() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| mem_available(&text));
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(container).min()
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_is_room_for_but_at_least_one() {
        for (mebibytes, jobs, agents) in
            [(0, 10, 1), (799, 10, 1), (1_600, 10, 2), (100_000, 10, 10), (100_000, 0, 1)]
        {
            assert_eq!(admitted(Some(mebibytes << 20), jobs), agents, "{mebibytes} MiB");
        }
        assert_eq!(admitted(None, 7), 7);
    }

    #[test]
    fn the_kernels_word_is_read() {
        let text = "MemTotal:       16384000 kB\nMemFree:  1 kB\nMemAvailable:    8192000 kB\n";
        assert_eq!(mem_available(text), Some(8_192_000 << 10));
        assert_eq!(mem_available("MemTotal: 1 kB\n"), None);
    }
}
