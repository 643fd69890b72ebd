//! Keeps back deletions that look like a mistake: there are too many of them.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::diff::Divergence;
use crate::drive_sync::path::RelPath;
use crate::drive_sync::plan::{Action, Hold, HoldReason, Stage, Step};

/// Fewer deletions than this never look like a mistake, unless nothing would be left.
const FEW: usize = 10;

/// Splits the steps into those to be taken and those that wait for a person's word. What needs the
/// place of something that stays waits too: it is planned again once the deletions are released.
pub(super) fn hold(steps: Vec<Step>, divergence: &Divergence) -> (Vec<Step>, Option<Hold>) {
    let Some(why) = reason(&steps, divergence) else { return (steps, None) };
    let (held, mut steps): (Vec<Step>, Vec<Step>) =
        steps.into_iter().partition(|step| deletes(&step.action).is_some());
    let mut stays: BTreeSet<RelPath> = held.iter().map(|step| step.path.clone()).collect();
    // A folder is not renamed while it holds what is to be deleted: that would become new there.
    let waiting: Vec<RelPath> = steps
        .iter()
        .filter(|step| step.stage == Stage::SetAside && holds_any(&step.path, &stays))
        .map(|step| step.path.clone())
        .collect();
    stays.extend(waiting);
    steps.retain(|step| match step.stage {
        Stage::SetAside => !stays.contains(&step.path),
        Stage::Fill => !is_within(&step.path, &stays),
        Stage::Settle | Stage::Move | Stage::MakeRoom | Stage::Remove => true,
    });
    (steps, Some(Hold { steps: held, why }))
}

/// The two sides of a drive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Local,
    Remote,
}

/// Where a step takes an entry away for good.
fn deletes(action: &Action) -> Option<Side> {
    match action {
        Action::DeleteLocal { .. } | Action::RemoveLocalDirectory => Some(Side::Local),
        Action::DeleteRemote { .. } | Action::RemoveRemoteDirectory { .. } => Some(Side::Remote),
        Action::Adopt { .. }
        | Action::Forget
        | Action::SetAside { .. }
        | Action::MoveLocal { .. }
        | Action::MakeLocalDirectory { .. }
        | Action::Fetch { .. }
        | Action::MoveRemote { .. }
        | Action::MakeRemoteDirectory { .. }
        | Action::Send { .. } => None,
    }
}

/// Where a step adds an entry.
fn adds(action: &Action) -> Option<Side> {
    match action {
        Action::MakeLocalDirectory { .. } | Action::Fetch { replaces: None, .. } => {
            Some(Side::Local)
        }
        Action::MakeRemoteDirectory { .. } | Action::Send { expect: None, .. } => {
            Some(Side::Remote)
        }
        Action::Adopt { .. }
        | Action::Forget
        | Action::SetAside { .. }
        | Action::MoveLocal { .. }
        | Action::Fetch { .. }
        | Action::DeleteLocal { .. }
        | Action::RemoveLocalDirectory
        | Action::MoveRemote { .. }
        | Action::Send { .. }
        | Action::DeleteRemote { .. }
        | Action::RemoveRemoteDirectory { .. } => None,
    }
}

fn reason(steps: &[Step], divergence: &Divergence) -> Option<HoldReason> {
    let count = |of: fn(&Action) -> Option<Side>, side| {
        steps.iter().filter(|step| of(&step.action) == Some(side)).count()
    };
    let gone = [Side::Local, Side::Remote].map(|side| count(deletes, side));
    let come = [Side::Local, Side::Remote].map(|side| count(adds, side));
    let have = [divergence.local_entries, divergence.remote_entries];
    let deleted = gone[0] + gone[1];
    if (0..2).any(|side| gone[side] > 0 && have[side] + come[side] <= gone[side]) {
        return Some(HoldReason::Everything { deleted });
    }
    let of = divergence.base_entries;
    (deleted >= FEW && deleted * 2 > of).then_some(HoldReason::MostOfTheDrive { deleted, of })
}

/// Whether some of the paths lie in the folder.
fn holds_any(folder: &RelPath, paths: &BTreeSet<RelPath>) -> bool {
    paths
        .range::<str, _>((Bound::Excluded(folder.key()), Bound::Unbounded))
        .next()
        .is_some_and(|path| path.is_inside(folder))
}

/// Whether a path is one of the paths, or lies in one of them.
pub(super) fn is_within(path: &RelPath, paths: &BTreeSet<RelPath>) -> bool {
    let key = path.key();
    let mut ends = key.match_indices('\0').map(|(end, _)| end).chain([key.len()]);
    !paths.is_empty() && ends.any(|end| paths.contains(&key[..end]))
}
