//! Looks at the disk, and compares the three trees.

use super::super::model::{Local, LocalTree, Opaque};
use super::super::path::RelPath;
use super::super::plan::Plan;
use super::super::planner::{self, Divergence, LeftOut, Most, Rules};
use super::super::planted::{Bug, planted};
use super::super::ports::{Clock, Drive, Fs, Rng, Scope};
use super::super::progress::Phase;
use super::super::state::{Effect, Note, StateError};
use super::unclear::Unclear;
use super::{Engine, TickError};

impl<F: Fs, D: Drive, C: Clock, R: Rng> Engine<F, D, C, R> {
    /// Brings the local tree up to date. The root is checked again after it, for what is looked at
    /// while a mount goes away looks empty.
    pub(super) fn survey(&mut self) -> Result<(), TickError> {
        let everywhere = self.everywhere || self.local.is_none();
        if !everywhere && self.dirty.is_empty() {
            return Ok(());
        }
        if !planted(Bug::StaysAtRest) {
            self.idle = None;
        }
        self.progress.enter(Phase::Looking);
        let scope = if everywhere { Scope::All } else { Scope::Only(self.dirty.clone()) };
        let previous = match self.local.take() {
            Some(tree) => tree,
            None => self.state.remembered()?,
        };
        let tree = self.fs.scan(previous, &scope)?;
        self.check_root()?;
        if everywhere {
            self.calm(&tree)?;
            self.state.note(Note::Audit, self.clock.wall())?;
        }
        self.everywhere = false;
        self.dirty.clear();
        // Large files are read one after the other while the rest goes on.
        let unread = |(path, local): (&RelPath, &Local)| {
            matches!(local, Local::Opaque(Opaque::Unread)).then(|| path.clone())
        };
        self.dirty.extend(tree.iter().filter_map(unread));
        self.has_unread = !self.dirty.is_empty();
        self.now.more |= self.has_unread;
        self.local = Some(tree);
        Ok(())
    }

    /// Files that had changed just before they were read the last time, and have kept still since,
    /// need not be read again after a restart.
    fn calm(&mut self, tree: &LocalTree) -> Result<(), TickError> {
        let calm = |path: RelPath| match tree.get(&path) {
            Some(Local::File { content, stat, racy: false }) => {
                Some(Effect::Calm { path, content: *content, stat: *stat })
            }
            Some(Local::File { .. } | Local::Directory { .. } | Local::Opaque(_)) | None => None,
        };
        let mut some = self.state.racy(None)?;
        while let Some(last) = some.last().cloned() {
            let effects: Vec<Effect> = some.into_iter().filter_map(calm).collect();
            self.record(&effects)?;
            some = self.state.racy(Some(&last))?;
        }
        Ok(())
    }

    /// Finds the places that are not to be planned, if they may have changed.
    pub(super) fn clarify(&mut self) -> Result<(), TickError> {
        if self.unclear.is_none() {
            self.unholdable = self.state.unholdable()?;
            self.unclear = Some(Unclear(self.state.unclear()?));
        }
        Ok(())
    }

    /// What is to be done, and which new entries are left for a later plan.
    pub(super) fn plan(&self) -> Result<(Plan, LeftOut), TickError> {
        let rules = Rules {
            vm: self.settings.vm.clone(),
            access: self.access,
            release_deletions: self.state.deletions_released()?,
        };
        let some = if self.narrow { self.divergence(self.window())? } else { None };
        let divergence = match some {
            Some(divergence) => divergence,
            // With no bound there is always something.
            None => self.divergence(Most::ALL)?.unwrap_or_default(),
        };
        Ok((planner::plan(&divergence, &rules), divergence.left_out))
    }

    /// What the disk alone has is not sent where nothing may be sent: it would be in the way of the
    /// rest for good.
    fn window(&self) -> Most {
        let there = self.settings.window;
        Most { here: if self.may_not_write() { usize::MAX } else { there }, there }
    }

    fn divergence(&self, most: Most) -> Result<Option<Divergence>, TickError> {
        let nothing = LocalTree::new();
        let everything = Unclear::default();
        let tree = self.local.as_ref().unwrap_or(&nothing);
        let unclear = self.unclear.as_ref().unwrap_or(&everything);
        let mut trees = self.state.trees()?;
        let (remote, base) = trees.both()?;
        let (remote, base) = (unclear.rows(remote), unclear.rows(base));
        let found: Result<_, StateError> =
            planner::diff_of_some(unclear.local(tree), remote, base, most);
        Ok(found?)
    }
}
