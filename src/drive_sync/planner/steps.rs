//! Writes the verdicts down as steps, each with its precondition, in the order of their stages.

use std::collections::BTreeSet;

use super::Rules;
use super::diff::Divergence;
use super::judge::{Node, Verdict};
use super::matrix::{Cell, Clear, Make};
use super::moves::By;
use super::names::conflict_name;
use crate::drive_sync::model::{Kind, Local, Opaque};
use crate::drive_sync::path::{PathError, RelPath};
use crate::drive_sync::plan::{Action, Blocked, Replaced, Stage, Step};

/// All steps in order, and what takes no part.
pub(super) fn steps(
    divergence: &Divergence,
    nodes: &[Node<'_>],
    rules: &Rules,
) -> (Vec<Step>, Vec<(RelPath, Blocked)>) {
    let mut writer = Writer {
        divergence,
        nodes,
        label: &rules.vm,
        steps: Vec::new(),
        blocked: Vec::new(),
        names: BTreeSet::new(),
        early: folders_for_moves(nodes),
    };
    let mut settings: Vec<Setting> = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let around = node.up.map_or(Setting::ROOT, |up| settings[up]);
        settings.push(writer.node(index, node, around));
    }
    let mut steps = writer.steps;
    steps.sort_by_key(|(order, _)| *order);
    (steps.into_iter().map(|(_, step)| step).collect(), writer.blocked)
}

/// What is decided above a path holds for it too.
#[derive(Clone, Copy)]
struct Setting {
    /// When entries are removed.
    removal: Stage,
    /// Only removals are done: the rest comes along when the folder above is renamed.
    removals_only: bool,
    /// Nothing is done.
    nothing: bool,
}

impl Setting {
    const ROOT: Self = Self { removal: Stage::Remove, removals_only: false, nothing: false };
    const NOTHING: Self = Self { nothing: true, ..Self::ROOT };
}

/// Stage, then place within it.
type Order = (Stage, u8, usize);

struct Writer<'a> {
    divergence: &'a Divergence,
    nodes: &'a [Node<'a>],
    label: &'a str,
    steps: Vec<(Order, Step)>,
    blocked: Vec<(RelPath, Blocked)>,
    /// Conflict names given in this plan.
    names: BTreeSet<RelPath>,
    /// Folders that are made before files move.
    early: BTreeSet<usize>,
}

/// The folders that must be made for moves to have a place to go to.
fn folders_for_moves(nodes: &[Node<'_>]) -> BTreeSet<usize> {
    let mut folders = BTreeSet::new();
    for node in nodes {
        let Verdict::MoveTo(to, _) = node.verdict else { continue };
        folders.extend(std::iter::successors(nodes[to].up, |up| nodes[*up].up));
    }
    folders
}

impl Writer<'_> {
    /// Writes one node down; gives the setting for what is in it.
    fn node(&mut self, index: usize, node: &Node<'_>, around: Setting) -> Setting {
        if node.hidden {
            self.report(node);
            return Setting::NOTHING;
        }
        if around.nothing {
            return around;
        }
        match node.verdict {
            Verdict::Do(cell) => self.cell(index, node, cell, around),
            Verdict::MoveTo(to, by) => {
                self.step_of_move(index, node, to, by);
                around
            }
            Verdict::MovedHere => around,
            Verdict::ReadOnly { .. } if around.removals_only => around,
            Verdict::ReadOnly { whole } => {
                self.blocked.push((node.path.clone(), Blocked::ReadOnly));
                if whole { Setting::NOTHING } else { around }
            }
        }
    }

    /// Says why nothing is done. What only the disk has and nobody wants to sync is not worth a word.
    fn report(&mut self, node: &Node<'_>) {
        let Some(Local::Opaque(why)) = node.triple.local else { return };
        let only_here = node.triple.remote.is_none() && node.triple.base.is_none();
        if why != Opaque::Ignored || !only_here {
            self.blocked.push((node.path.clone(), Blocked::Local(why)));
        }
    }

    fn cell(&mut self, index: usize, node: &Node<'_>, cell: Cell, around: Setting) -> Setting {
        let mut inside = around;
        match cell.clear {
            Clear::SetAside => {
                let Some(to) = self.aside(node) else {
                    self.blocked.push((node.path.clone(), Blocked::Name(PathError::TooLong)));
                    return Setting::NOTHING;
                };
                if let Some(stat) = node.triple.local.as_ref().and_then(Local::stat) {
                    let action = Action::SetAside { to, stat: *stat };
                    self.push(Stage::SetAside, 1, index, node, action);
                }
                inside.removal = Stage::SetAside;
                inside.removals_only = matches!(node.triple.local, Some(Local::Directory { .. }));
            }
            Clear::DeleteLocal | Clear::DeleteRemote | Clear::RemoveLocal | Clear::RemoveRemote => {
                if cell.make != Make::Nothing {
                    inside.removal = inside.removal.min(Stage::MakeRoom);
                }
                if let Some(action) = removal(node, cell.clear) {
                    self.push_removal(inside.removal, index, node, action);
                }
            }
            // Pruning was settled before.
            Clear::Nothing | Clear::PruneLocal | Clear::PruneRemote => {}
        }
        if !around.removals_only
            && let Some((stage, action)) = making(node, cell)
        {
            let early = stage == Stage::Fill && self.early.contains(&index);
            let stage = if early { Stage::Move } else { stage };
            self.push(stage, 0, index, node, action);
        }
        inside
    }

    /// A free conflict name.
    fn aside(&mut self, node: &Node<'_>) -> Option<RelPath> {
        let local = node.triple.local.as_ref()?;
        let name = conflict_name(node.path, local, self.label, |name| {
            self.divergence.conflict_names.contains(name) || self.names.contains(name)
        })?;
        self.names.insert(name.clone());
        Some(name)
    }

    fn step_of_move(&mut self, index: usize, node: &Node<'_>, to: usize, by: By) {
        let target = &self.nodes[to];
        let (at_server, on_disk) = match by {
            By::Disk => (node, target),
            By::Server => (target, node),
        };
        let remote = at_server.triple.remote.as_deref().cloned();
        let stat = on_disk.triple.local.as_ref().and_then(Local::stat).copied();
        let (Some(remote), Some(stat)) = (remote, stat) else { return };
        let to = target.path.clone();
        let action = match by {
            By::Disk => Action::MoveRemote { to, remote, stat },
            By::Server => Action::MoveLocal { to, remote, stat },
        };
        self.push(Stage::Move, 1, index, node, action);
    }

    /// Removals go first in their stage, what is in a folder before the folder.
    fn push_removal(&mut self, stage: Stage, index: usize, node: &Node<'_>, action: Action) {
        let step = Step { stage, path: node.path.clone(), action };
        self.steps.push(((stage, 0, usize::MAX - index), step));
    }

    fn push(&mut self, stage: Stage, rank: u8, index: usize, node: &Node<'_>, action: Action) {
        let step = Step { stage, path: node.path.clone(), action };
        self.steps.push(((stage, rank, index), step));
    }
}

/// The step that takes an entry away.
fn removal(node: &Node<'_>, clear: Clear) -> Option<Action> {
    let remote = node.triple.remote.as_ref();
    match clear {
        Clear::DeleteLocal => replaced(node).map(|replaced| Action::DeleteLocal { replaced }),
        Clear::RemoveLocal => Some(Action::RemoveLocalDirectory),
        Clear::DeleteRemote => remote.map(|remote| Action::DeleteRemote {
            id: remote.id.clone(),
            version: remote.version.clone(),
        }),
        Clear::RemoveRemote => {
            remote.map(|remote| Action::RemoveRemoteDirectory { id: remote.id.clone() })
        }
        Clear::Nothing | Clear::SetAside | Clear::PruneLocal | Clear::PruneRemote => None,
    }
}

/// The step that makes both sides equal, once the place is free.
fn making(node: &Node<'_>, cell: Cell) -> Option<(Stage, Action)> {
    let (local, remote) = (node.triple.local.as_ref(), node.triple.remote.as_deref());
    match cell.make {
        Make::Nothing => None,
        Make::Adopt => adopt(node).map(|action| (Stage::Settle, action)),
        Make::Forget => Some((Stage::Settle, Action::Forget)),
        Make::Fetch => {
            let remote = remote?.clone();
            let content = *remote.kind.content()?;
            let replaces = if cell.clear == Clear::Nothing { replaced(node) } else { None };
            Some((Stage::Fill, Action::Fetch { remote, content, replaces }))
        }
        Make::LocalFolder => {
            Some((Stage::Fill, Action::MakeLocalDirectory { remote: remote?.clone() }))
        }
        Make::Send => {
            let Some(Local::File { content, stat, .. }) = local else { return None };
            // Of a folder that stood there nothing will be left.
            let version = |remote: &crate::drive_sync::model::Remote| remote.version.clone();
            let expect = remote.filter(|remote| !remote.kind.is_directory()).map(version);
            Some((Stage::Fill, Action::Send { content: *content, stat: *stat, expect }))
        }
        Make::RemoteFolder => {
            Some((Stage::Fill, Action::MakeRemoteDirectory { stat: *local?.stat()? }))
        }
    }
}

/// The base learns what both sides have, unless it knows.
fn adopt(node: &Node<'_>) -> Option<Action> {
    let (local, remote) = (node.triple.local.as_ref()?, node.triple.remote.as_deref()?);
    let stat = *local.stat()?;
    let known = node.triple.base.as_ref().is_some_and(|base| {
        base.remote == *remote && (remote.kind == Kind::Directory || base.stat == Some(stat))
    });
    (!known).then(|| Action::Adopt { remote: remote.clone(), stat })
}

/// The disk's file, as it must still be when it goes.
fn replaced(node: &Node<'_>) -> Option<Replaced> {
    match node.triple.local {
        Some(Local::File { content, stat, .. }) => Some(Replaced { stat, content }),
        _ => None,
    }
}
