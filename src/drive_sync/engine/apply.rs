//! Takes the steps of a plan in their order, by lanes: what can be made durable together is.

use super::super::path::RelPath;
use super::super::plan::{Action, Plan, Step};
use super::super::planner::Access;
use super::super::ports::{Clock, Drive, Fs, Rng};
use super::failure::Failure;
use super::{Deed, Engine, TickError};

/// Steps of one stage, by what carries them out. Within a stage lanes do not depend on each other,
/// but for folders, which come before what goes into them.
#[derive(Default)]
struct Lanes {
    settled: Vec<Step>,
    local: Vec<Step>,
    writes: Vec<Step>,
    fetches: Vec<Step>,
    sends: Vec<Step>,
}

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    pub(super) fn apply(&mut self, plan: Plan) -> Result<(), TickError> {
        let mut steps = plan.steps.into_iter().peekable();
        while let Some(first) = steps.next() {
            let stage = first.stage;
            let mut lanes = Lanes::default();
            lanes.add(first);
            while let Some(step) = steps.next_if(|step| step.stage == stage) {
                lanes.add(step);
            }
            self.apply_local(&lanes.settled)?;
            self.apply_local(&lanes.local)?;
            self.apply_writes(&lanes.writes)?;
            self.apply_fetches(&lanes.fetches)?;
            self.apply_sends(&lanes.sends)?;
            if self.out_of_time() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether this tick has lasted long enough; the rest is for the next.
    pub(super) fn out_of_time(&mut self) -> bool {
        let late = self.clock.elapsed().saturating_sub(self.began) >= self.settings.tick_length;
        self.now.more |= late;
        late
    }

    pub(super) fn may_not_write(&self) -> bool {
        self.access == Access::Read
    }

    /// Whether to leave a step out: it has to wait, or depends on one that failed or has to.
    pub(super) fn passes_over(&mut self, step: &Step) -> bool {
        let waits = self.troubles.waits(step, self.clock.elapsed());
        let passes = waits || self.depends_on_stuck(step);
        if passes {
            self.stick(step);
        }
        passes
    }

    fn depends_on_stuck(&self, step: &Step) -> bool {
        if self.stuck.is_empty() {
            return false;
        }
        let is_stuck = |path: &RelPath| {
            let above = std::iter::successors(path.parent(), RelPath::parent);
            self.stuck.contains(path) || above.into_iter().any(|path| self.stuck.contains(&path))
        };
        let holds_stuck = || {
            let removes = matches!(
                step.action,
                Action::RemoveLocalDirectory | Action::RemoveRemoteDirectory { .. }
            );
            let mut after = self.stuck.range::<RelPath, _>(&step.path..);
            removes && after.next().is_some_and(|stuck| stuck.is_inside(&step.path))
        };
        is_stuck(&step.path) || step.to().is_some_and(is_stuck) || holds_stuck()
    }

    /// Nothing more is done in this tick at the places of this step.
    pub(super) fn stick(&mut self, step: &Step) {
        self.stuck.insert(step.path.clone());
        self.stuck.extend(step.to().cloned());
    }

    /// A step was not taken. Everything that could end the tick was seen to before.
    pub(super) fn failed(&mut self, step: &Step, failure: Failure) {
        self.stick(step);
        let now = self.clock.elapsed();
        self.now.missed.add(Deed::of(&step.action), matches!(failure, Failure::Stale(_)));
        match failure {
            Failure::Stale(message) => {
                self.dirty.insert(step.path.clone());
                self.dirty.extend(step.path.parent());
                self.dirty.extend(step.to().cloned());
                self.now.more |= self.troubles.stale(&step.path, message, now);
            }
            Failure::Full(message) => {
                // Bytes that are missing are looked for at each tick. What else may be missing (a
                // quota's rest, inodes) only shows when it is tried.
                match self.fs.free_space() {
                    Ok(free) if !self.has_room(step, free) => {
                        self.now.short_of_space = Some(free);
                    }
                    Ok(_) | Err(_) => self.troubles.no_room(step, message, now),
                }
            }
            Failure::ReadOnly => {
                self.access = Access::Read;
                self.now.more = true;
            }
            Failure::Refused(message) => {
                self.troubles.refused(step, message, now);
            }
            // The tick has failed, and says so itself.
            Failure::Unavailable { .. } | Failure::Halt(_) => {}
        }
    }

    /// Whether so much free space is enough for a step.
    fn has_room(&self, step: &Step, free: u64) -> bool {
        let size = if let Action::Fetch { content, .. } = &step.action { content.size } else { 0 };
        free.saturating_sub(size) >= self.settings.download_floor
    }

    pub(super) fn count(&mut self, step: &Step) {
        let done = &mut self.now.done;
        let counter = match &step.action {
            Action::Adopt { .. } => &mut done.adopted,
            Action::Forget => &mut done.forgotten,
            Action::SetAside { .. } => &mut done.set_aside,
            Action::MoveLocal { .. } => &mut done.moved_here,
            Action::MakeLocalDirectory { .. } => &mut done.folders_made_here,
            Action::Fetch { content, .. } => {
                done.fetched_bytes += content.size;
                &mut done.fetched
            }
            Action::DeleteLocal { .. } => &mut done.deleted_here,
            Action::RemoveLocalDirectory => &mut done.folders_removed_here,
            Action::MoveRemote { .. } => &mut done.moved_there,
            Action::MakeRemoteDirectory { .. } => &mut done.folders_made_there,
            Action::Send { content, .. } => {
                done.sent_bytes += content.size;
                &mut done.sent
            }
            Action::DeleteRemote { .. } => &mut done.deleted_there,
            Action::RemoveRemoteDirectory { .. } => &mut done.folders_removed_there,
        };
        *counter += 1;
        self.progress.done(self.now.done);
    }
}

impl Lanes {
    fn add(&mut self, step: Step) {
        let lane = match &step.action {
            Action::Adopt { .. } | Action::Forget => &mut self.settled,
            Action::SetAside { .. }
            | Action::MoveLocal { .. }
            | Action::MakeLocalDirectory { .. }
            | Action::DeleteLocal { .. }
            | Action::RemoveLocalDirectory => &mut self.local,
            Action::MoveRemote { .. }
            | Action::MakeRemoteDirectory { .. }
            | Action::DeleteRemote { .. }
            | Action::RemoveRemoteDirectory { .. } => &mut self.writes,
            Action::Fetch { .. } => &mut self.fetches,
            Action::Send { .. } => &mut self.sends,
        };
        lane.push(step);
    }
}
