//! The restart supervisor: watches the installed file, and starts the replacement.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::RecommendedWatcher;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::events;
use super::super::file_watch::watch;
use super::super::identity::Identity;
use super::super::status::Phase;
use super::tracker::{Answer, Hash, Next, Stat, Tracker};
use super::{Offer, Relaunch, Replacement, Stage, installed};
use crate::config::Settings;
use crate::providers::Asker;

/// Several events of one rename become one look.
const SETTLE: Duration = Duration::from_millis(20);
/// How soon it is looked whether the gateway is in order again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A backend that was heard of within this time is there.
const HEARD_WITHIN: Duration = Duration::from_secs(45);

/// Watches until `stop`. What it has started then ends with it.
pub(in crate::runtime) async fn run(
    identity: Arc<Identity>,
    settings: Settings,
    relaunch: Arc<Relaunch>,
    offers: mpsc::Sender<Offer>,
    stop: CancellationToken,
) {
    let memory = &identity.shared.upgrade;
    memory.watch(|| Tracker::new(crate::VERSION, relaunch.installation.ours()));
    let tmp = identity.host.config.paths().tmp();
    let asker = Asker::new(&identity.host.environment, &tmp, identity.host.caller_umask);
    let keeper = Keeper { identity: &identity, relaunch: &relaunch, asker, offers };
    let mut changes = memory.changes();
    let mut watched = Watched::default();
    loop {
        let next = tokio::select! {
            // Cancel safe: what was begun ends when it is dropped.
            next = keeper.step() => next,
            () = stop.cancelled() => return,
        };
        watched.follow(relaunch.installation.places());
        let next = next.unwrap_or(Instant::now() + settings.restart_check.value);
        tokio::select! {
            // Cancel safe, each arm: notifications, watches and timers.
            () = watched.changed.notified() => {}
            () = sleep_until(next) => {}
            _ = changes.changed() => {}
            () = stop.cancelled() => return,
        }
        tokio::time::sleep(SETTLE).await;
    }
}

struct Keeper<'a> {
    identity: &'a Identity,
    relaunch: &'a Relaunch,
    asker: Asker,
    offers: mpsc::Sender<Offer>,
}

impl Keeper<'_> {
    /// Looks once, and does what follows from that; when to look again, if before long.
    async fn step(&self) -> Option<Instant> {
        let shared = &self.identity.shared;
        if shared.heard.borrow().is_some() {
            for event in shared.upgrade.take_events() {
                events::record(self.identity, event).await;
            }
        }
        if shared.upgrade.is_busy() {
            return None;
        }
        // A gateway that is not in order itself could not tell whether its replacement is.
        if !self.is_in_order() {
            return Some(Instant::now() + LOOK_AGAIN);
        }
        let mut next = self.look().await?;
        loop {
            next = match next {
                Next::Rest => return None,
                Next::LookAt(at) => return Some(at),
                Next::Read => self.read().await?,
                Next::Ask => self.ask().await?,
                Next::SameVersion => {
                    tracing::info!(path = %self.relaunch.installation.path().display(),
                        version = crate::VERSION,
                        "another file of the same version was installed; nothing to do");
                    return None;
                }
                Next::Refuse(reason) => {
                    tracing::warn!(path = %self.relaunch.installation.path().display(), reason,
                        "what was installed is no gateway that could take over");
                    shared.upgrade.refused(&self.identity.host.redactor.text(&reason));
                    return None;
                }
                Next::Try(version) => {
                    self.start(version).await;
                    return None;
                }
            };
        }
    }

    fn is_in_order(&self) -> bool {
        let shared = &self.identity.shared;
        *shared.phase.borrow() == Phase::Up
            && shared.heard_ago().is_some_and(|age| age <= HEARD_WITHIN)
    }

    async fn look(&self) -> Option<Next> {
        let installation = self.relaunch.installation.clone();
        let seen = blocking(move || installation.look()).await?;
        self.identity.shared.upgrade.with_tracker(|tracker| match seen {
            Ok(stat) => tracker.looked(stat, Instant::now()),
            Err((stat, why)) => tracker.no_file(stat, why),
        })
    }

    /// What is read must be what was looked at: it is looked at again afterwards.
    async fn read(&self) -> Option<Next> {
        let installation = self.relaunch.installation.clone();
        let look = move || -> Option<(Stat, Hash)> {
            let before = installation.look().ok()??;
            let hash = installed::hash(installation.path()).ok()?;
            (installation.look().ok()?? == before).then_some((before, hash))
        };
        let Some((stat, hash)) = blocking(look).await? else {
            return Some(Next::LookAt(Instant::now() + LOOK_AGAIN));
        };
        self.identity.shared.upgrade.with_tracker(|tracker| {
            let now = Instant::now();
            let next = tracker.looked(Some(stat), now);
            if next == Next::Read { tracker.hashed(hash, now) } else { next }
        })
    }

    async fn ask(&self) -> Option<Next> {
        let answer = installed::ask(&self.asker, self.relaunch.installation.path()).await;
        if let Answer::Version(version) = &answer {
            tracing::debug!(version, "the installed file tells its version");
        }
        self.identity
            .shared
            .upgrade
            .with_tracker(|tracker| tracker.answered(answer, Instant::now()))
    }

    /// Starts the replacement, and offers it when it is ready.
    async fn start(&self, version: String) {
        let memory = &self.identity.shared.upgrade;
        let path = self.relaunch.installation.path().display();
        tracing::info!(%path, version, running = crate::VERSION, "an upgrade was installed");
        let under_way = UnderWay { identity: self.identity, is_settled: false };
        memory.reached(Stage::Preparing, &version);
        let failed = match Replacement::start(self.relaunch) {
            Err(error) => format!("it could not be started: {error}"),
            Ok(mut replacement) => {
                tracing::info!(pid = replacement.pid(), "the replacement gets ready");
                match replacement.ready().await {
                    Ok(()) => {
                        tracing::info!(pid = replacement.pid(), "the replacement is ready");
                        under_way.settled();
                        // Fails when the gateway ends, and the replacement with it.
                        if self.offers.send(Offer { replacement, version }).await.is_err() {
                            memory.given_up();
                        }
                        return;
                    }
                    Err(reason) => {
                        replacement.end().await;
                        reason
                    }
                }
            }
        };
        if !self.is_in_order() {
            tracing::info!(
                reason = failed,
                "the backend is away; the upgrade is tried again later"
            );
            return;
        }
        under_way.settled();
        memory.failed(&version, &self.identity.host.redactor.text(&failed));
    }
}

/// An upgrade that is dropped half-way is not under way any more.
struct UnderWay<'a> {
    identity: &'a Identity,
    is_settled: bool,
}

impl UnderWay<'_> {
    fn settled(mut self) {
        self.is_settled = true;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.identity.shared.upgrade.given_up();
        }
    }
}

/// `None` when the process goes down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// The watch on the file and on the links that lead to it.
#[derive(Default)]
struct Watched {
    places: Vec<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    changed: Arc<Notify>,
}

impl Watched {
    /// Watches these places from now on.
    fn follow(&mut self, places: Vec<PathBuf>) {
        if self.watcher.is_some() && self.places == places {
            return;
        }
        let news = self.places != places;
        self.watcher = match watch(&places, Arc::clone(&self.changed)) {
            Ok(watcher) => {
                // What changed before the watch began is seen by one more look.
                if news {
                    self.changed.notify_one();
                }
                Some(watcher)
            }
            Err(error) => {
                if news {
                    tracing::debug!(%error, "the installed file cannot be watched; it is looked at now and then");
                }
                None
            }
        };
        self.places = places;
    }
}
