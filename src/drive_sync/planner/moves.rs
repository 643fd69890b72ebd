//! Finds files that only changed their place, so that they need no transfer.
//!
//! A move is taken for one only where nothing else can be meant: one path of the base has vanished,
//! one new path has the same file, and the other side has changed nothing at either end. Everything
//! else is a deletion and a new file, which comes to the same in the end.

use std::collections::BTreeMap;

use super::diff::Triple;
use super::judge::Node;
use crate::drive_sync::model::{Kind, Local};

/// A file's way from one place to another, as numbers of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) by: By,
}

/// Who moved it; the other side follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Disk,
    Server,
}

/// Vanished and new places of one file.
#[derive(Default)]
struct Ends {
    from: Vec<usize>,
    to: Vec<usize>,
}

impl Ends {
    fn way(&self, by: By) -> Option<Way> {
        match (&self.from[..], &self.to[..]) {
            (&[from], &[to]) => Some(Way { from, to, by }),
            _ => None,
        }
    }
}

/// Moves made on the disk, to be followed at the server.
pub(super) fn on_disk(nodes: &[Node<'_>]) -> Vec<Way> {
    let mut files: BTreeMap<(u32, u64), Ends> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let triple = node.triple;
        match (&triple.local, &triple.base) {
            (None, Some(base)) if !base.remote.kind.is_directory() => {
                if let Some(stat) = base.stat {
                    files.entry((stat.dev, stat.ino)).or_default().from.push(index);
                }
            }
            (Some(Local::File { stat, .. }), None) => {
                files.entry((stat.dev, stat.ino)).or_default().to.push(index);
            }
            _ => {}
        }
    }
    let plain = |way: &Way| {
        let (from, to) = (nodes[way.from].triple, nodes[way.to].triple);
        let before = base_kind(from);
        takes_part(nodes, way)
            && to.remote.is_none()
            && before == to.local.as_ref().and_then(Local::kind)
            && before == remote_kind(from)
            // Folders on the way are there, or can simply be made.
            && above(nodes, way.to).all(|folder| remote_kind(folder).is_none_or(|kind| kind.is_directory()))
    };
    files.values().filter_map(|ends| ends.way(By::Disk)).filter(plain).collect()
}

/// Moves made at the server, to be followed on the disk.
pub(super) fn at_server(nodes: &[Node<'_>]) -> Vec<Way> {
    let mut files: BTreeMap<&str, Ends> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let triple = node.triple;
        match (&triple.remote, &triple.base) {
            (None, Some(base)) if !base.remote.kind.is_directory() => {
                files.entry(&base.remote.id).or_default().from.push(index);
            }
            (Some(remote), None) if !remote.kind.is_directory() => {
                files.entry(&remote.id).or_default().to.push(index);
            }
            _ => {}
        }
    }
    let plain = |way: &Way| {
        let (from, to) = (nodes[way.from].triple, nodes[way.to].triple);
        let before = base_kind(from);
        takes_part(nodes, way)
            && to.local.is_none()
            && before == remote_kind(to)
            && before == from.local.as_ref().and_then(Local::kind)
            && above(nodes, way.to).all(|folder| matches!(folder.local, None | Some(Local::Directory { .. })))
            // A folder that must give its place to a file may be renamed before files move.
            && above(nodes, way.from).all(|folder| remote_kind(folder).is_none_or(|kind| kind.is_directory()))
    };
    files.values().filter_map(|ends| ends.way(By::Server)).filter(plain).collect()
}

fn takes_part(nodes: &[Node<'_>], way: &Way) -> bool {
    !nodes[way.from].hidden && !nodes[way.to].hidden
}

fn base_kind(triple: &Triple) -> Option<Kind> {
    triple.base.as_ref().map(|base| base.remote.kind)
}

fn remote_kind(triple: &Triple) -> Option<Kind> {
    triple.remote.as_ref().map(|remote| remote.kind)
}

/// The folders above a node in which the trees differ, the innermost first. All others are folders
/// on both sides.
fn above<'a>(nodes: &'a [Node<'a>], index: usize) -> impl Iterator<Item = &'a Triple> {
    std::iter::successors(nodes[index].up, |up| nodes[*up].up).map(|up| nodes[up].triple)
}
