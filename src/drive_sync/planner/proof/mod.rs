//! Shows that the planner keeps its promises: all small trees one by one, large ones by chance.
//!
//! - At rest disk, server and base are equal, and that is reached in two rounds.
//! - Content that a side wrote since the base is at its place, or in a conflict copy of it.
//! - What one side deleted and the other left alone is gone.
//! - What only one side changed is then so on both, without conflict copies.
//! - All this holds too when the machine stops after any step and before the base knows of it.

mod exhaustive;
mod random;
pub(super) mod world;

use crate::drive_sync::path::RelPath;
use crate::drive_sync::plan::{Action, Plan, Stage};
use crate::drive_sync::planner::names::is_conflict;
use world::World;

/// A mistake made on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    None,
    /// The base's row is written before the step is taken.
    BaseFirst,
    /// The loser of a conflict is replaced instead of renamed.
    NoCopy,
    /// The loser of a conflict is sent over the server's version.
    Overwrite,
    /// What one side deleted is not deleted on the other.
    NoDeletion,
    /// Files are deleted whatever the other side did with them: nothing is sent that is new there.
    NothingSent,
    /// The steps come in the wrong order.
    Backwards,
}

impl Planted {
    /// Puts the mistake into a plan.
    fn spoil(self, plan: &mut Plan, world: &World) {
        match self {
            Self::None | Self::BaseFirst => {}
            Self::NoCopy | Self::Overwrite => self.spoil_conflicts(plan, world),
            Self::NoDeletion => {
                plan.steps.retain(|step| !matches!(step.stage, Stage::MakeRoom | Stage::Remove));
            }
            Self::NothingSent => {
                plan.steps.retain(|step| !matches!(step.action, Action::Send { .. }));
            }
            Self::Backwards => plan.steps.reverse(),
        }
    }

    fn spoil_conflicts(self, plan: &mut Plan, world: &World) {
        use crate::drive_sync::model::Local;
        use crate::drive_sync::plan::Replaced;
        let lost: Vec<RelPath> = plan
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::SetAside { .. }))
            .map(|step| step.path.clone())
            .collect();
        for step in &mut plan.steps {
            let Some(&Local::File { content, stat, .. }) = world.disk.get(&step.path) else {
                continue;
            };
            let Action::Fetch { remote, replaces, .. } = &mut step.action else { continue };
            if !lost.contains(&step.path) {
                continue;
            }
            if self == Self::NoCopy {
                *replaces = Some(Replaced { stat, content });
            } else {
                let expect = Some(remote.version.clone());
                step.action = Action::Send { content, stat, expect };
            }
        }
        plan.steps.retain(|step| {
            !(matches!(step.action, Action::SetAside { .. })
                && matches!(world.disk.get(&step.path), Some(Local::File { .. })))
        });
    }
}

/// Whether a path is, or lies in, a conflict copy.
fn in_conflict_copy(path: &RelPath) -> bool {
    path.names().any(is_conflict)
}

/// The path without what conflict names add.
fn origin(path: &RelPath) -> RelPath {
    let names: Vec<&str> =
        path.names().map(|name| name.split(" (conflict ").next().unwrap_or(name)).collect();
    world::path(&names.join("/"))
}

/// Numbers that look random and follow from a seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635)
    }

    /// Below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ (bits >> 31)) % sides as u64).unwrap()
    }
}

/// A number of cases from the environment, for long runs.
#[expect(clippy::disallowed_methods, reason = "a long run is asked for by hand")]
fn asked(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}
