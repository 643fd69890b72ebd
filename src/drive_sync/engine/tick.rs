//! One look at feed and disk, and everything that follows from it.

use std::time::Duration;

use super::super::path::RelPath;
use super::super::plan::{Action, Blocked, HoldReason, Plan, Stage};
use super::super::planner::LeftOut;
use super::super::ports::{Clock, Drive, Fs, Rng};
use super::super::progress::Phase;
use super::report::Pending;
use super::{Engine, FAILED_TOLD, Look, Tick, TickError};

/// Nothing can be done as things are: what is reported again without planning again.
#[derive(Debug, Clone)]
pub(super) struct Idle {
    /// Something is due then.
    until: Option<Duration>,
    /// Once the feed is read to its end, this is rest.
    may_rest: bool,
    held: Option<HoldReason>,
    blocked: Vec<(RelPath, Blocked)>,
}

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    /// Looks once at feed and disk, and does what is to be done. An error ends it where it stands;
    /// what was done is recorded, and [`Self::interrupted`] tells it.
    pub fn tick(&mut self, look: &Look) -> Result<Tick, TickError> {
        self.began = self.clock.elapsed();
        self.stuck.clear();
        self.now = Tick { read_only: self.may_not_write(), ..Tick::default() };
        // Places to look at are not lost with a tick that ends before it has come to them.
        match &look.scope {
            super::Scope::Only(places) => {
                self.troubles.touched(places);
                self.dirty.extend(places.iter().cloned());
            }
            super::Scope::All => self.everywhere = true,
        }
        self.run(look.digest)?;
        self.patience.regained();
        let (waiting, retry_in) = self.troubles.waiting(self.clock.elapsed());
        self.now.waiting = waiting;
        self.now.retry_in = retry_in;
        self.now.failed = self.troubles.told(FAILED_TOLD);
        self.now.read_only = self.may_not_write();
        self.now.unholdable.clone_from(&self.unholdable);
        Ok(std::mem::take(&mut self.now))
    }

    fn run(&mut self, digest: bool) -> Result<(), TickError> {
        self.check_space()?;
        self.check_root()?;
        self.note_fetched()?;
        self.progress.enter(Phase::Asking);
        if !self.pull()? {
            return Ok(());
        }
        self.replay_intents()?;
        if digest && !self.check_digest()? {
            return Ok(());
        }
        self.survey()?;
        if self.still_idle() {
            return Ok(());
        }
        self.clarify()?;
        let unclear: Vec<RelPath> =
            self.unclear.iter().flat_map(|unclear| &unclear.0).cloned().collect();
        // What the feed has begun to tell it tells on: there is no need to plan around it.
        if self.head.is_none() && !unclear.is_empty() {
            return Ok(());
        }
        let (plan, left_out) = self.plan()?;
        self.now.unclear = unclear;
        self.carry_out(plan, left_out)
    }

    /// What an engine that was killed had put on the disk and not noted yet is noted before the feed is
    /// read on: the server may have something newer, and then both sides would look edited.
    fn note_fetched(&mut self) -> Result<(), TickError> {
        let knows_server = self.state.cursor()?.is_some() && self.state.resync()?.is_none();
        // Where another root was accepted nothing is agreed on, so that nothing is deleted.
        if self.local.is_some() || !knows_server || self.state.agreed()? == 0 {
            return Ok(());
        }
        self.survey()?;
        self.clarify()?;
        let (mut plan, left_out) = self.plan()?;
        let is_clear = self.unclear.as_ref().is_some_and(|unclear| unclear.0.is_empty());
        if plan.steps.is_empty() && plan.held.is_none() && left_out.is_nothing() && is_clear {
            // If the feed has nothing new there is no need to find that out again.
            self.now.blocked = std::mem::take(&mut plan.blocked);
            let released = self.state.deletions_released()?;
            self.rest(true, released);
        }
        plan.steps.retain(|step| matches!(step.action, Action::Adopt { .. }));
        self.apply_local(&plan.steps)
    }

    fn carry_out(&mut self, mut plan: Plan, left_out: LeftOut) -> Result<(), TickError> {
        let unclear = self.unclear.clone().unwrap_or_default();
        plan.blocked.retain(|(path, _)| unclear.place(path).is_none());
        if self.has_unread {
            plan.steps.retain(|step| !takes_away(&step.action));
            plan.held = None;
        }
        self.now.planned = Pending::of(&plan.steps, left_out);
        self.now.held = plan.held.as_ref().map(|held| held.why);
        self.now.blocked = std::mem::take(&mut plan.blocked);
        if left_out.is_nothing() {
            self.troubles.keep_only(&plan.steps);
        }
        let now = self.clock.elapsed();
        let nothing = plan.steps.iter().all(|step| self.troubles.waits(step, now));
        let released = self.state.deletions_released()?;
        let settles = plan.steps.iter().all(|step| step.stage == Stage::Settle);
        let steps = plan.steps.len();
        if !nothing {
            self.progress.plan(self.now.planned);
            self.apply(plan)?;
            self.now.at_rest = settles && left_out.is_nothing() && self.is_clear();
            self.now.settled = self.now.at_rest || (left_out.is_nothing() && self.is_settled()?);
        } else if left_out.is_nothing() {
            self.rest(steps == 0, released);
        }
        // What cannot be done now must not stand in the way of what was left out for ever.
        // Once it is known that nothing can be done the next look need not find that out again.
        self.narrow = if left_out.is_nothing() {
            self.narrow || !nothing
        } else {
            !(nothing || self.stuck.len() * 2 > steps)
        };
        self.now.more |= !left_out.is_nothing();
        // A word of release is for what is to be deleted now, and not for later; what is unread keeps
        // deletions waiting.
        if released
            && self.head.is_some()
            && !self.has_unread
            && self.now.done.deletions() >= self.now.planned.deletions
        {
            self.state.release_deletions(false)?;
        }
        Ok(())
    }

    /// Whether all was done, and nothing is left to do as far as is known. Nobody need wait for the
    /// next look to be told so.
    fn is_settled(&mut self) -> Result<bool, TickError> {
        if !self.stuck.is_empty() || self.now.more || !self.is_clear() {
            return Ok(false);
        }
        self.clarify()?;
        let is_clear = self.unclear.as_ref().is_some_and(|unclear| unclear.0.is_empty());
        let (plan, left_out) = self.plan()?;
        let is_empty = plan.steps.is_empty() && plan.held.is_none();
        Ok(is_clear && is_empty && left_out.is_nothing())
    }

    /// Until something changes, or is due, there is no need to compare the trees again, not even
    /// while the feed tells only what is known: what this machine has done itself.
    fn rest(&mut self, empty: bool, released: bool) {
        let may_rest = empty && self.now.held.is_none() && self.is_known();
        self.now.at_rest = may_rest && self.head.is_some();
        self.now.settled = self.now.at_rest;
        // A word of release is taken back by the plan at the end of the feed.
        if !self.now.unclear.is_empty() || (self.head.is_none() && released) {
            return;
        }
        let now = self.clock.elapsed();
        self.idle = Some(Idle {
            until: self.troubles.waiting(now).1.map(|wait| now + wait),
            may_rest,
            held: self.now.held,
            blocked: self.now.blocked.clone(),
        });
    }

    /// Nothing is left of the feed, nothing is kept back, and it is known what everything is.
    fn is_clear(&self) -> bool {
        self.head.is_some() && self.now.held.is_none() && self.is_known()
    }

    /// There is nothing of which it is not known yet what it is.
    fn is_known(&self) -> bool {
        self.now.unclear.is_empty() && !self.has_unread
    }

    fn still_idle(&mut self) -> bool {
        let now = self.clock.elapsed();
        let Some(idle) = &self.idle else { return false };
        if idle.until.is_some_and(|until| until <= now) {
            self.idle = None;
            return false;
        }
        self.now.at_rest = idle.may_rest && self.head.is_some();
        self.now.settled = self.now.at_rest;
        self.now.held = idle.held;
        self.now.blocked.clone_from(&idle.blocked);
        true
    }
}

/// Whether something that is not on the disk any more is removed from the server.
fn takes_away(action: &Action) -> bool {
    matches!(action, Action::DeleteRemote { .. } | Action::RemoveRemoteDirectory { .. })
}
