//! What really happened, told apart from what the engine believes: who wrote what, and who saw what
//! before he replaced it.

use std::collections::{BTreeMap, BTreeSet};

use crate::drive_sync::model::Sha256;

/// Who did something at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    /// Somebody at this client's disk.
    User(usize),
    /// Somebody at the server.
    Server,
    /// A loss of power undid something there.
    Power(usize),
    /// This client's engine crashed between an effect there and its base row.
    Crash(usize),
    /// The server was set back.
    Restore,
    /// Sides differed there at the last rest.
    Carried,
}

/// How the last one to touch a path left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Left {
    Gone,
    File(Sha256, bool),
    Directory,
    Other,
}

/// A path and a file's content, or `None` for a folder.
pub(super) type Fact = (String, Option<(Sha256, bool)>);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Every content that somebody wrote, whole.
    pub(super) whole: BTreeSet<Vec<u8>>,
    /// Those that nobody has replaced or removed who had seen them.
    pub(super) live: BTreeSet<Vec<u8>>,
    /// Those that somebody replaced who had not seen them: the server's history has them.
    pub(super) covered: BTreeSet<Vec<u8>>,
    /// Written into a file that was in the trash already.
    pub(super) late: BTreeSet<Vec<u8>>,
    /// Who touched what since the last rest.
    touched: BTreeMap<String, BTreeSet<Actor>>,
    pub(super) left: BTreeMap<String, Left>,
    /// All states in which each path was left since the last rest.
    pub(super) states: BTreeMap<String, Vec<Left>>,
    /// Every content that each disk ever had at a path, durably.
    pub(super) facts: BTreeMap<usize, BTreeSet<Fact>>,
}

impl Ledger {
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        self.whole.insert(bytes.to_vec());
        self.live.insert(bytes.to_vec());
    }

    /// Somebody who saw it replaced or removed it.
    pub(super) fn replaced(&mut self, bytes: &[u8]) {
        self.live.remove(bytes);
    }

    /// Somebody who had not seen it replaced it; nobody can prevent that.
    pub(super) fn cover(&mut self, bytes: &[u8]) {
        self.covered.insert(bytes.to_vec());
    }

    pub(super) fn touch(&mut self, path: &str, actor: Actor) {
        self.touched.entry(path.to_owned()).or_default().insert(actor);
    }

    /// An engine followed a move: what people had done to the entry came along with it.
    pub(super) fn pass_on(&mut self, from: &str, to: &str) {
        let actors = self.touched.get(from).cloned().unwrap_or_default();
        self.touched.entry(to.to_owned()).or_default().extend(actors);
    }

    pub(super) fn leave(&mut self, path: &str, actor: Actor, left: Left) {
        self.touch(path, actor);
        let states = self.states.entry(path.to_owned()).or_default();
        if !states.contains(&left) {
            states.push(left.clone());
        }
        self.left.insert(path.to_owned(), left);
    }

    /// Who touched a path, a folder above it, or something below it.
    pub(super) fn actors(&self, path: &str) -> BTreeSet<Actor> {
        let related = |other: &str| {
            other == path
                || path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
                || other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
        };
        let touched = self.touched.iter().filter(|(other, _)| related(other));
        touched.flat_map(|(_, actors)| actors).copied().collect()
    }

    /// All is at rest: whoever touches something from now on knows all that was.
    pub(super) fn rest<'a>(&mut self, differing: impl Iterator<Item = &'a String>) {
        self.touched.clear();
        self.left.clear();
        self.states.clear();
        for path in differing {
            self.touch(path, Actor::Carried);
        }
    }
}
