//! The watch over a drive's folder, kept up: where the system had none to give it is tried again.

use std::path::Path;

use notify::ErrorKind;
use tokio::sync::mpsc;

use super::super::path::RelPath;
use super::watch::{Hint, Watch};

/// Why some folders are not watched.
const NO_MORE_WATCHES: &str = "the system has no more of them for new folders";
/// Why none is.
const TOO_FEW_WATCHES: &str = "the system has too few of them for this folder";

/// What gives hints.
pub(super) trait Hints: Sized {
    /// The hints since the last time.
    fn take(&mut self) -> Vec<Hint>;
    /// Whether all folders are watched.
    fn is_complete(&self) -> bool;
    /// Watches the folders that are not watched yet. What is watched already stays so if that fails.
    fn complete(&mut self) -> notify::Result<()>;
    /// Watches a folder that could not be read before.
    fn opened(&mut self, folder: &RelPath) -> Opened;
}

/// What became of a folder that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is watched from now on.
    Watched,
    /// It still cannot be watched.
    Closed,
    /// It is none, or none any more.
    NoFolder,
}

/// A watch, or none and why.
pub(super) struct Lookout<W> {
    begin: Box<dyn Fn() -> notify::Result<W> + Send>,
    watch: Option<W>,
    problem: Option<String>,
}

impl Lookout<Watch> {
    /// Over this folder, and all that is in it.
    pub(super) fn over(folder: &Path, wake: mpsc::Sender<()>) -> Self {
        let folder = folder.to_owned();
        Self::new(Box::new(move || Watch::over(&folder, wake.clone())))
    }
}

impl<W: Hints> Lookout<W> {
    fn new(begin: Box<dyn Fn() -> notify::Result<W> + Send>) -> Self {
        let mut lookout = Self { begin, watch: None, problem: None };
        lookout.begin();
        if let Some(problem) = &lookout.problem {
            tracing::warn!(%problem, "changes are found by looking only");
        }
        lookout
    }

    /// The hints since the last time.
    pub(super) fn take(&mut self) -> Vec<Hint> {
        let hints = self.watch.as_mut().map(W::take).unwrap_or_default();
        if self.problem.is_none() && self.watch.as_ref().is_some_and(|watch| !watch.is_complete()) {
            tracing::warn!("some changes are found by looking only: {NO_MORE_WATCHES}");
            self.problem = Some(NO_MORE_WATCHES.to_owned());
        }
        hints
    }

    /// Why not all of the folder is watched; `None`: it is.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Watches a folder that could not be read before. Where nothing is watched it is looked at now
    /// and then, like all others.
    pub(super) fn opened(&mut self, folder: &RelPath) -> Opened {
        self.watch.as_mut().map_or(Opened::NoFolder, |watch| watch.opened(folder))
    }

    /// Tries once more where something is not watched. To be called before a look at everything,
    /// which finds what changed until then.
    pub(super) fn mend(&mut self) {
        if self.problem.is_none() {
            return;
        }
        match self.watch.as_mut().map(W::complete) {
            None => self.begin(),
            Some(Ok(())) => self.problem = None,
            Some(Err(error)) => self.problem = Some(words(&error, NO_MORE_WATCHES)),
        }
        match &self.problem {
            None => tracing::info!("changes are told by the system again"),
            Some(problem) => tracing::debug!(%problem, "changes are still found by looking only"),
        }
    }

    fn begin(&mut self) {
        match (self.begin)() {
            Ok(watch) => (self.watch, self.problem) = (Some(watch), None),
            Err(error) => self.problem = Some(words(&error, TOO_FEW_WATCHES)),
        }
    }
}

fn words(error: &notify::Error, too_few: &str) -> String {
    if matches!(error.kind, ErrorKind::MaxFilesWatch) {
        too_few.to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A system with so many watches, and a folder that wants so many.
    #[derive(Clone)]
    struct System {
        has: Arc<AtomicUsize>,
        wants: Arc<AtomicUsize>,
        given: Arc<Mutex<Vec<&'static str>>>,
    }

    struct Fake(System, bool);

    impl System {
        fn new(has: usize, wants: usize) -> Self {
            let given = Arc::default();
            Self { has: Arc::new(has.into()), wants: Arc::new(wants.into()), given }
        }

        fn check(&self, what: &'static str) -> notify::Result<()> {
            self.given.lock().unwrap().push(what);
            let suffices = self.has.load(Ordering::Relaxed) >= self.wants.load(Ordering::Relaxed);
            if suffices { Ok(()) } else { Err(notify::Error::new(ErrorKind::MaxFilesWatch)) }
        }

        fn lookout(&self) -> Lookout<Fake> {
            let system = self.clone();
            Lookout::new(Box::new(move || {
                system.check("begin").map(|()| Fake(system.clone(), true))
            }))
        }

        fn tried(&self) -> Vec<&'static str> {
            std::mem::take(&mut self.given.lock().unwrap())
        }
    }

    impl Hints for Fake {
        fn take(&mut self) -> Vec<Hint> {
            self.1 &= self.0.has.load(Ordering::Relaxed) >= self.0.wants.load(Ordering::Relaxed);
            vec![None]
        }
        fn is_complete(&self) -> bool {
            self.1
        }
        fn complete(&mut self) -> notify::Result<()> {
            self.0.check("complete")?;
            self.1 = true;
            Ok(())
        }
        fn opened(&mut self, _: &RelPath) -> Opened {
            Opened::Watched
        }
    }

    #[test]
    fn one_that_could_not_begin_is_begun_when_the_system_can_again() {
        let system = System::new(0, 3);
        let mut lookout = system.lookout();
        assert!(lookout.problem().is_some() && lookout.take().is_empty());
        lookout.mend();
        assert_eq!(lookout.problem(), Some(TOO_FEW_WATCHES));
        system.has.store(3, Ordering::Relaxed);
        lookout.mend();
        assert_eq!(lookout.take(), [None]);
        assert_eq!(lookout.problem(), None);
        assert_eq!(system.tried(), ["begin"; 3]);
    }

    #[test]
    fn one_that_ran_out_is_completed_and_gives_hints_meanwhile() {
        let system = System::new(3, 3);
        let mut lookout = system.lookout();
        lookout.mend();
        system.wants.store(5, Ordering::Relaxed);
        lookout.take();
        assert_eq!(lookout.problem(), Some(NO_MORE_WATCHES));
        lookout.mend();
        assert_eq!(lookout.take(), [None], "what is watched stays so");
        assert_eq!(lookout.problem(), Some(NO_MORE_WATCHES));
        system.has.store(5, Ordering::Relaxed);
        lookout.mend();
        lookout.take();
        assert_eq!(lookout.problem(), None);
        lookout.mend();
        assert_eq!(system.tried(), ["begin", "complete", "complete"], "no more than is needed");
    }
}
