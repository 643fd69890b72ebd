//! Decides what about the installed file is an upgrade: pure, fed with looks, hashes and answers.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// A file that is being written looks different after this long.
const STABLE: Duration = Duration::from_secs(2);
/// Replacements that are started within [`TRIES_WITHIN`].
const MOST_TRIES: usize = 3;
const TRIES_WITHIN: Duration = Duration::from_mins(10);

/// SHA-256.
pub(super) type Hash = [u8; 32];

/// What tells a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stat {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
}

/// What became of asking the file for its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// A gateway of this version.
    Version(String),
    /// Somebody still writes to it.
    Busy,
    /// No gateway that runs here; why, one line.
    Unusable(String),
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, until something changes.
    Rest,
    /// Look again at this time.
    LookAt(Instant),
    /// Read the file and tell [`Tracker::hashed`].
    Read,
    /// Ask it for its version and tell [`Tracker::answered`].
    Ask,
    /// Other bytes of the version that runs.
    SameVersion,
    /// It cannot be used; why.
    Refuse(String),
    /// Start a replacement of this version.
    Try(String),
}

#[derive(Debug)]
struct Candidate {
    stat: Stat,
    /// With when it was first read so.
    hash: Option<(Hash, Instant)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tracker {
    version: &'static str,
    /// What runs.
    ours: Stat,
    /// What was judged already.
    settled: Option<Stat>,
    candidate: Option<Candidate>,
    failed_versions: BTreeSet<String>,
    failed_hashes: HashSet<Hash>,
    tries: VecDeque<Instant>,
}

impl Tracker {
    /// Of a process of this version that was started from that file.
    pub(super) fn new(version: &'static str, ours: Stat) -> Self {
        Self {
            version,
            ours,
            settled: None,
            candidate: None,
            failed_versions: BTreeSet::new(),
            failed_hashes: HashSet::new(),
            tries: VecDeque::new(),
        }
    }

    /// What stands there now; `None` when nothing does.
    pub(super) fn looked(&mut self, seen: Option<Stat>, now: Instant) -> Next {
        let Some(stat) = seen.filter(|stat| *stat != self.ours && Some(*stat) != self.settled)
        else {
            self.candidate = None;
            return Next::Rest;
        };
        match &self.candidate {
            Some(Candidate { stat: before, hash: Some((_, since)) }) if *before == stat => {
                let stable_at = *since + STABLE;
                if stable_at > now { Next::LookAt(stable_at) } else { Next::Read }
            }
            _ => {
                self.candidate = Some(Candidate { stat, hash: None });
                Next::Read
            }
        }
    }

    /// Something other than a file stands there.
    pub(super) fn no_file(&mut self, stat: Stat, why: String) -> Next {
        if self.settled == Some(stat) {
            return Next::Rest;
        }
        self.settle(stat);
        Next::Refuse(why)
    }

    /// What the file that was looked at last holds.
    pub(super) fn hashed(&mut self, hash: Hash, now: Instant) -> Next {
        let Some(candidate) = &mut self.candidate else { return Next::Rest };
        match candidate.hash {
            Some((before, since)) if before == hash => {
                if since + STABLE > now {
                    return Next::LookAt(since + STABLE);
                }
                if self.failed_hashes.contains(&hash) {
                    self.settled = Some(candidate.stat);
                    return Next::Rest;
                }
                Next::Ask
            }
            Some(_) | None => {
                candidate.hash = Some((hash, now));
                Next::LookAt(now + STABLE)
            }
        }
    }

    /// What the file that was looked at last says of itself.
    pub(super) fn answered(&mut self, answer: Answer, now: Instant) -> Next {
        let Some(stat) = self.candidate.as_ref().map(|candidate| candidate.stat) else {
            return Next::Rest;
        };
        match answer {
            Answer::Busy => return Next::LookAt(now + STABLE),
            Answer::Unusable(why) => {
                self.settle(stat);
                return Next::Refuse(why);
            }
            Answer::Version(version) if version == self.version => {
                self.settle(stat);
                return Next::SameVersion;
            }
            Answer::Version(version) if self.failed_versions.contains(&version) => {
                self.settle(stat);
            }
            Answer::Version(version) => {
                self.tries.retain(|at| *at + TRIES_WITHIN > now);
                if self.tries.len() < MOST_TRIES {
                    self.tries.push_back(now);
                    return Next::Try(version);
                }
                if let Some(oldest) = self.tries.front() {
                    return Next::LookAt(*oldest + TRIES_WITHIN);
                }
            }
        }
        Next::Rest
    }

    /// The replacement that was tried last failed: neither this version nor these bytes are tried
    /// again.
    pub(super) fn failed(&mut self, version: &str) {
        self.failed_versions.insert(version.to_owned());
        if let Some(candidate) = self.candidate.take() {
            self.settled = Some(candidate.stat);
            self.failed_hashes.extend(candidate.hash.map(|(hash, _)| hash));
        }
    }

    fn settle(&mut self, stat: Stat) {
        self.settled = Some(stat);
        self.candidate = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stat(inode: u64) -> Stat {
        Stat { device: 1, inode, size: 10, modified: (0, 0) }
    }

    fn tracker() -> Tracker {
        Tracker::new("1.0.0", stat(1))
    }

    fn says(version: &str) -> Answer {
        Answer::Version(version.to_owned())
    }

    /// Lets a file be found stable; what is to be done then.
    fn stable(tracker: &mut Tracker, inode: u64, hash: Hash, now: &mut Instant) -> Next {
        assert_eq!(tracker.looked(Some(stat(inode)), *now), Next::Read);
        assert_eq!(tracker.hashed(hash, *now), Next::LookAt(*now + STABLE));
        *now += STABLE;
        assert_eq!(tracker.looked(Some(stat(inode)), *now), Next::Read);
        tracker.hashed(hash, *now)
    }

    #[test]
    fn what_runs_and_what_is_gone_is_nothing_new() {
        let now = Instant::now();
        assert_eq!(tracker().looked(Some(stat(1)), now), Next::Rest);
        assert_eq!(tracker().looked(None, now), Next::Rest);
    }

    #[test]
    fn another_version_that_was_stable_is_tried() {
        let (mut tracker, mut now) = (tracker(), Instant::now());
        assert_eq!(stable(&mut tracker, 2, [2; 32], &mut now), Next::Ask);
        assert_eq!(tracker.answered(says("1.0.1"), now), Next::Try("1.0.1".into()));
    }

    #[test]
    fn a_file_that_is_being_written_starts_the_clock_again() {
        let (mut tracker, mut now) = (tracker(), Instant::now());
        assert_eq!(tracker.looked(Some(stat(2)), now), Next::Read);
        assert_eq!(tracker.hashed([2; 32], now), Next::LookAt(now + STABLE));
        // Other bytes under the same time and size.
        now += STABLE;
        assert_eq!(tracker.looked(Some(stat(2)), now), Next::Read);
        assert_eq!(tracker.hashed([3; 32], now), Next::LookAt(now + STABLE));
        // Another file.
        now += STABLE;
        assert_eq!(tracker.looked(Some(stat(3)), now), Next::Read);
        assert_eq!(tracker.hashed([3; 32], now), Next::LookAt(now + STABLE));
        // Too early.
        now += STABLE / 2;
        let stable_at = now + STABLE / 2;
        assert_eq!(tracker.looked(Some(stat(3)), now), Next::LookAt(stable_at));
    }

    #[test]
    fn the_same_version_and_what_cannot_be_used_are_told_once() {
        let (mut tracker, mut now) = (tracker(), Instant::now());
        assert_eq!(stable(&mut tracker, 2, [2; 32], &mut now), Next::Ask);
        assert_eq!(tracker.answered(says("1.0.0"), now), Next::SameVersion);
        assert_eq!(tracker.looked(Some(stat(2)), now), Next::Rest);
        assert_eq!(stable(&mut tracker, 3, [3; 32], &mut now), Next::Ask);
        let why = Answer::Unusable("a script".into());
        assert_eq!(tracker.answered(why, now), Next::Refuse("a script".into()));
        assert_eq!(tracker.looked(Some(stat(3)), now), Next::Rest);
        assert_eq!(
            tracker.no_file(stat(4), "a directory".into()),
            Next::Refuse("a directory".into())
        );
        assert_eq!(tracker.no_file(stat(4), "a directory".into()), Next::Rest);
    }

    #[test]
    fn a_busy_file_is_asked_again() {
        let (mut tracker, mut now) = (tracker(), Instant::now());
        assert_eq!(stable(&mut tracker, 2, [2; 32], &mut now), Next::Ask);
        assert_eq!(tracker.answered(Answer::Busy, now), Next::LookAt(now + STABLE));
        now += STABLE;
        assert_eq!(tracker.looked(Some(stat(2)), now), Next::Read);
        assert_eq!(tracker.hashed([2; 32], now), Next::Ask);
    }

    #[test]
    fn what_failed_is_not_tried_again_by_version_or_bytes() {
        let (mut tracker, mut now) = (tracker(), Instant::now());
        assert_eq!(stable(&mut tracker, 2, [2; 32], &mut now), Next::Ask);
        assert_eq!(tracker.answered(says("1.0.1"), now), Next::Try("1.0.1".into()));
        tracker.failed("1.0.1");
        assert_eq!(tracker.looked(Some(stat(2)), now), Next::Rest, "the file");
        assert_eq!(stable(&mut tracker, 3, [2; 32], &mut now), Next::Rest, "its bytes elsewhere");
        assert_eq!(stable(&mut tracker, 4, [4; 32], &mut now), Next::Ask);
        assert_eq!(tracker.answered(says("1.0.1"), now), Next::Rest, "the version");
        assert_eq!(stable(&mut tracker, 5, [5; 32], &mut now), Next::Ask);
        assert_eq!(tracker.answered(says("1.0.2"), now), Next::Try("1.0.2".into()));
    }

    #[test]
    fn three_tries_in_ten_minutes() {
        let (mut tracker, mut now) = (tracker(), Instant::now());
        let began = now + STABLE;
        for index in 2..5 {
            assert_eq!(stable(&mut tracker, index, [9; 32], &mut now), Next::Ask);
            let version = format!("2.0.{index}");
            assert_eq!(tracker.answered(says(&version), now), Next::Try(version.clone()));
            tracker.failed_versions.insert(version);
            tracker.candidate = None;
        }
        assert_eq!(stable(&mut tracker, 7, [7; 32], &mut now), Next::Ask);
        let again_at = began + TRIES_WITHIN;
        assert_eq!(tracker.answered(says("3.0.0"), now), Next::LookAt(again_at));
        now = again_at;
        assert_eq!(tracker.looked(Some(stat(7)), now), Next::Read);
        assert_eq!(tracker.hashed([7; 32], now), Next::Ask);
        assert_eq!(tracker.answered(says("3.0.0"), now), Next::Try("3.0.0".into()));
    }

    proptest! {
        /// Whatever happens in whatever order: no version that failed is tried, never more than
        /// three within ten minutes, and never what was not the same for two seconds.
        #[test]
        fn tries_are_bounded(steps in prop::collection::vec((0..6_u64, 0..3_u8, 0..4_u8, 0..200_u64), 1..200)) {
            let mut tracker = tracker();
            let mut now = Instant::now();
            let mut tries: Vec<Instant> = Vec::new();
            let mut failed = BTreeSet::new();
            let mut seen: Option<(u64, u8, Instant)> = None;
            for (inode, content, version, pause) in steps {
                now += Duration::from_secs(pause);
                let mut next = tracker.looked(Some(stat(inode)), now);
                if next == Next::Read {
                    let same = seen.filter(|(i, c, _)| (*i, *c) == (inode, content));
                    seen = Some(same.unwrap_or((inode, content, now)));
                    next = tracker.hashed([content; 32], now);
                }
                if next == Next::Ask {
                    next = tracker.answered(says(&format!("1.0.{version}")), now);
                }
                if let Next::Try(version) = next {
                    prop_assert!(!failed.contains(&version));
                    prop_assert!(version != "1.0.0");
                    prop_assert!(inode != 1);
                    let (_, _, since) = seen.unwrap();
                    prop_assert!(now.duration_since(since) >= STABLE);
                    tries.retain(|at| *at + TRIES_WITHIN > now);
                    tries.push(now);
                    prop_assert!(tries.len() <= MOST_TRIES);
                    tracker.failed(&version);
                    failed.insert(version);
                }
            }
        }
    }
}
