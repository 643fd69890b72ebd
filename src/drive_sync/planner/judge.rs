//! Turns the matrix into a verdict for each path, from the innermost outwards: whether a folder goes
//! depends on what is left in it.

use super::diff::{Divergence, Triple};
use super::hold::is_within;
use super::matrix::{Cell, Clear, Make, cell};
use super::moves::{self, By};
use super::{Access, Rules};
use crate::drive_sync::model::{Kind, Local, Opaque};
use crate::drive_sync::path::RelPath;

/// One path on which the trees differ, and what is to be done there.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) path: &'a RelPath,
    pub(super) triple: &'a Triple,
    /// The innermost folder above it that is a node. Those between the two are the same on all sides.
    pub(super) up: Option<usize>,
    /// It, or a folder above it, takes no part.
    pub(super) hidden: bool,
    /// What is to be done.
    pub(super) verdict: Verdict,
    /// What will be in it.
    inside: Left,
}

/// What is to be done at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// By the matrix; nothing is pruned any more.
    Do(Cell),
    /// The file goes from here to the node with this number, as it did on the other side.
    MoveTo(usize, By),
    /// A file comes here by a move.
    MovedHere,
    /// The drive may only be read, and something here would have to be sent. `whole`: this holds for
    /// all that is in it too.
    ReadOnly { whole: bool },
}

/// What will be left in a folder, on the disk and at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    local: Rest,
    remote: Rest,
    /// The server has something there that the base has not.
    news: bool,
}

/// The most that is left of several things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rest {
    /// Nothing.
    Gone,
    /// Only what is never synced.
    Ignored,
    /// Something about which nothing is known now.
    Unknown,
    /// Something.
    Kept,
}

impl Left {
    const NOTHING: Self = Self { local: Rest::Gone, remote: Rest::Gone, news: false };

    fn and(self, other: Self) -> Self {
        Self {
            local: self.local.max(other.local),
            remote: self.remote.max(other.remote),
            news: self.news || other.news,
        }
    }
}

/// The verdicts for all paths, in the order of the paths.
pub(super) fn judge<'a>(divergence: &'a Divergence, rules: &Rules) -> Vec<Node<'a>> {
    let mut nodes = nodes(divergence);
    let mut ways = moves::at_server(&nodes);
    if rules.access == Access::Write {
        ways.extend(moves::on_disk(&nodes));
    }
    for way in ways {
        nodes[way.from].verdict = Verdict::MoveTo(way.to, way.by);
        nodes[way.to].verdict = Verdict::MovedHere;
    }
    for index in (0..nodes.len()).rev() {
        let node = &mut nodes[index];
        let left = if node.hidden { node.left_alone() } else { node.judge(rules.access) };
        if let Some(up) = node.up {
            nodes[up].inside = nodes[up].inside.and(left);
        }
    }
    nodes
}

fn nodes(divergence: &Divergence) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node<'_>> = Vec::with_capacity(divergence.triples.len());
    let mut up: Option<usize> = None;
    for (path, triple) in &divergence.triples {
        while let Some(index) = up
            && !path.is_inside(nodes[index].path)
        {
            up = nodes[index].up;
        }
        let hidden = up.is_some_and(|up| nodes[up].hidden)
            || matches!(triple.local, Some(Local::Opaque(_)))
            || is_within(path, &divergence.incomplete);
        let verdict = Verdict::Do(Cell::NOTHING);
        nodes.push(Node { path, triple, up, hidden, verdict, inside: Left::NOTHING });
        up = Some(nodes.len() - 1);
    }
    nodes
}

impl Node<'_> {
    pub(super) fn remote_kind(&self) -> Option<Kind> {
        self.triple.remote.as_ref().map(|remote| remote.kind)
    }

    fn base_kind(&self) -> Option<Kind> {
        self.triple.base.as_ref().map(|base| base.remote.kind)
    }

    /// What stays of an entry that takes no part.
    fn left_alone(&self) -> Left {
        let local = match self.triple.local {
            None => Rest::Gone,
            Some(Local::Opaque(Opaque::Ignored)) => Rest::Ignored,
            Some(Local::Opaque(
                Opaque::Symlink | Opaque::Special | Opaque::Mount | Opaque::Name,
            )) => Rest::Kept,
            Some(
                Local::Opaque(
                    Opaque::Unreadable
                    | Opaque::Unsettled
                    | Opaque::Suspicious
                    | Opaque::TooLarge
                    | Opaque::Unread,
                )
                | Local::File { .. }
                | Local::Directory { .. },
            ) => Rest::Unknown,
        };
        let remote = if self.triple.remote.is_some() { Rest::Unknown } else { Rest::Gone };
        Left { local, remote, news: self.triple.remote.is_some() }
    }

    /// Decides, once all that is in it has been decided, and tells what will be left here.
    fn judge(&mut self, access: Access) -> Left {
        let news = self.inside.news
            || (self.triple.remote.is_some() && self.remote_kind() != self.base_kind());
        let (local, remote) = match self.verdict {
            Verdict::MoveTo(..) => (Rest::Gone, Rest::Gone),
            Verdict::MovedHere => (Rest::Kept, Rest::Kept),
            Verdict::Do(_) | Verdict::ReadOnly { .. } => {
                let local = self.triple.local.as_ref().and_then(Local::kind);
                let cell = cell(local, self.remote_kind(), self.base_kind());
                self.verdict = match access {
                    Access::Write => Verdict::Do(self.settle(cell)),
                    Access::Read => self.settle_reading(cell, news),
                };
                self.left()
            }
        };
        Left { local, remote, news }
    }

    /// Decides what depends on what is left inside.
    fn settle(&self, cell: Cell) -> Cell {
        let inside = self.inside;
        match (cell.clear, cell.make) {
            (Clear::PruneLocal, make) => match (inside.local, make) {
                (Rest::Gone, _) => Cell::of(Clear::RemoveLocal, make),
                (Rest::Unknown, _) => Cell::NOTHING,
                (_, Make::Fetch) => Cell::of(Clear::SetAside, Make::Fetch),
                (Rest::Ignored, _) => self.untracked(Clear::Nothing),
                (Rest::Kept, _) => Cell::of(Clear::Nothing, Make::RemoteFolder),
            },
            (Clear::PruneRemote, make) => match (inside.remote, make) {
                (Rest::Gone | Rest::Ignored, _) => Cell::of(Clear::RemoveRemote, make),
                (Rest::Unknown, _) => Cell::NOTHING,
                (Rest::Kept, Make::Send) => Cell::of(Clear::SetAside, Make::LocalFolder),
                (Rest::Kept, _) => Cell::of(Clear::Nothing, Make::LocalFolder),
            },
            (clear, Make::RemoteFolder) if inside.local == Rest::Ignored => self.untracked(clear),
            _ => cell,
        }
    }

    /// A folder of the disk that holds only what is never synced stays out of the sync itself.
    fn untracked(&self, clear: Clear) -> Cell {
        let forget = clear == Clear::Nothing && self.triple.base.is_some();
        Cell::of(clear, if forget { Make::Forget } else { Make::Nothing })
    }

    /// The same where nothing may be sent. What the disk lost comes back; what it has changed stays,
    /// until the server has something new for the place.
    fn settle_reading(&self, cell: Cell, news: bool) -> Verdict {
        let fetch = |make| Verdict::Do(Cell::of(Clear::Nothing, make));
        match (cell.clear, cell.make) {
            (Clear::DeleteRemote, Make::Nothing) => fetch(Make::Fetch),
            (Clear::PruneRemote, Make::Nothing) => fetch(Make::LocalFolder),
            (Clear::PruneRemote, _) if news => {
                Verdict::Do(Cell::of(Clear::SetAside, Make::LocalFolder))
            }
            (Clear::DeleteRemote | Clear::PruneRemote, _) => Verdict::ReadOnly { whole: true },
            (clear, _) => {
                let settled = self.settle(cell);
                match settled.make {
                    // What is left inside speaks for itself.
                    Make::RemoteFolder if clear == Clear::PruneLocal => Verdict::Do(Cell::NOTHING),
                    Make::RemoteFolder => Verdict::ReadOnly { whole: true },
                    Make::Send => Verdict::ReadOnly { whole: false },
                    Make::Nothing
                    | Make::Adopt
                    | Make::Forget
                    | Make::Fetch
                    | Make::LocalFolder => Verdict::Do(settled),
                }
            }
        }
    }

    /// What will stand here.
    fn left(&self) -> (Rest, Rest) {
        let has = |has| if has { Rest::Kept } else { Rest::Gone };
        let before = (has(self.triple.local.is_some()), has(self.triple.remote.is_some()));
        let Verdict::Do(cell) = self.verdict else { return before };
        let (mut local, mut remote) = before;
        match cell.clear {
            Clear::SetAside | Clear::DeleteLocal | Clear::RemoveLocal => local = Rest::Gone,
            Clear::DeleteRemote | Clear::RemoveRemote => remote = Rest::Gone,
            Clear::Nothing | Clear::PruneLocal | Clear::PruneRemote => {}
        }
        match cell.make {
            Make::Fetch | Make::LocalFolder => local = Rest::Kept,
            Make::Send | Make::RemoteFolder => remote = Rest::Kept,
            // A folder that is not sent, or left as it is, is what is in it.
            Make::Nothing | Make::Forget => {
                local = local.min(self.rest_of_folder());
                remote = remote.min(self.rest_of_remote_folder());
            }
            Make::Adopt => {}
        }
        (local, remote)
    }

    fn rest_of_folder(&self) -> Rest {
        match self.triple.local {
            Some(Local::Directory { .. }) if self.inside.local > Rest::Gone => self.inside.local,
            _ => Rest::Kept,
        }
    }

    fn rest_of_remote_folder(&self) -> Rest {
        match self.remote_kind() {
            Some(Kind::Directory) if self.inside.remote > Rest::Gone => self.inside.remote,
            _ => Rest::Kept,
        }
    }
}
