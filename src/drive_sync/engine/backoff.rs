//! Patience: with single paths that are refused, and with a server that does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::path::RelPath;
use super::super::plan::{Action, Step};
use super::super::ports::Rng;

/// After the first refusal; each further one takes five times as long.
const FIRST_RETRY: Duration = Duration::from_secs(25);
const LONGEST_RETRY: Duration = Duration::from_hours(24);
/// A path that was not as the plan saw it is tried again at once this often, and then ever later:
/// somebody may be writing there all the time.
const STALE_AT_ONCE: u32 = 3;
const FIRST_STALE: Duration = Duration::from_secs(1);
const LONGEST_STALE: Duration = Duration::from_mins(1);

const FIRST_SERVER: Duration = Duration::from_secs(1);
const LONGEST_SERVER: Duration = Duration::from_mins(5);

/// Paths at which something failed.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<RelPath, Trouble>);

#[derive(Debug)]
struct Trouble {
    /// What was refused: something else at that path need not wait. `None`: anything at that path.
    refused: Option<Action>,
    failures: u32,
    retry_at: Duration,
    /// What went wrong the last time.
    why: String,
}

impl Troubles {
    /// Whether it is too early for this step.
    pub(super) fn waits(&self, step: &Step, now: Duration) -> bool {
        self.0.get(&step.path).is_some_and(|trouble| {
            now < trouble.retry_at
                && trouble.refused.as_ref().is_none_or(|action| *action == step.action)
        })
    }

    /// This step was refused.
    pub(super) fn refused(&mut self, step: &Step, why: String, now: Duration) {
        let before = self.0.get(&step.path).filter(|it| it.refused.as_ref() == Some(&step.action));
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let wait = grown(FIRST_RETRY, 5, failures - 1, LONGEST_RETRY);
        let refused = Some(step.action.clone());
        let trouble = Trouble { refused, failures, retry_at: now + wait, why };
        self.0.insert(step.path.clone(), trouble);
    }

    /// There was no room for this step. That may be over at any time: the wait does not grow.
    pub(super) fn no_room(&mut self, step: &Step, why: String, now: Duration) {
        let refused = Some(step.action.clone());
        let trouble = Trouble { refused, failures: 0, retry_at: now + FIRST_RETRY, why };
        self.0.insert(step.path.clone(), trouble);
    }

    /// Things were not as this step expected them. Returns whether to try again at once.
    pub(super) fn stale(&mut self, path: &RelPath, why: String, now: Duration) -> bool {
        let before = self.0.get(path).filter(|before| before.refused.is_none());
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let wait = match failures.checked_sub(STALE_AT_ONCE + 1) {
            Some(times) => grown(FIRST_STALE, 2, times, LONGEST_STALE),
            None => Duration::ZERO,
        };
        let trouble = Trouble { refused: None, failures, retry_at: now + wait, why };
        self.0.insert(path.clone(), trouble);
        wait.is_zero()
    }

    /// Something was done by others at these places. What was refused there, or below them, may go
    /// well now: rights are given by a change of a folder, and the wait may be one of hours.
    pub(super) fn touched(&mut self, places: &BTreeSet<RelPath>) {
        if places.is_empty() {
            return;
        }
        for (path, trouble) in &mut self.0 {
            let mut above = std::iter::successors(Some(path.clone()), RelPath::parent);
            if trouble.refused.is_some() && above.any(|path| places.contains(&path)) {
                trouble.retry_at = Duration::ZERO;
            }
        }
    }

    /// It went well.
    pub(super) fn cured(&mut self, path: &RelPath) {
        self.0.remove(path);
    }

    /// Where nothing is to be done any more there is no trouble either.
    pub(super) fn keep_only(&mut self, steps: &[Step]) {
        if self.0.is_empty() {
            return;
        }
        let mut before = std::mem::take(&mut self.0);
        for step in steps {
            if let Some(trouble) = before.remove(&step.path) {
                self.0.insert(step.path.clone(), trouble);
            }
        }
    }

    /// What went wrong where, at most so many, for as long as it has not gone well: also what is due,
    /// but not what was tried again at once.
    pub(super) fn told(&self, most: usize) -> Vec<(RelPath, String)> {
        let lasts =
            |(_, it): &(&RelPath, &Trouble)| it.refused.is_some() || it.failures > STALE_AT_ONCE;
        let told = self.0.iter().filter(lasts).take(most);
        told.map(|(path, trouble)| (path.clone(), trouble.why.clone())).collect()
    }

    /// How many wait, and how long the first of them still does.
    pub(super) fn waiting(&self, now: Duration) -> (usize, Option<Duration>) {
        let due = self.0.values().map(|trouble| trouble.retry_at).filter(|at| *at > now);
        (due.clone().count(), due.min().map(|at| at.saturating_sub(now)))
    }
}

/// How long to leave a server alone.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
}

impl Patience {
    /// It did not answer, or asked for time. Half of the wait is up to chance, so that many clients
    /// do not come back together.
    pub(super) fn lost(&mut self, retry_after: Option<Duration>, rng: &mut impl Rng) -> Duration {
        let whole = grown(FIRST_SERVER, 2, self.failures, LONGEST_SERVER);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        let millis = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
        let wait = half + Duration::from_millis(rng.bits() % (millis + 1));
        wait.max(retry_after.unwrap_or_default())
    }

    /// It answered.
    pub(super) fn regained(&mut self) {
        self.failures = 0;
    }
}

fn grown(first: Duration, factor: u32, times: u32, longest: Duration) -> Duration {
    let factor = factor.checked_pow(times).unwrap_or(u32::MAX);
    first.checked_mul(factor).unwrap_or(longest).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive_sync::plan::Stage;

    struct Highest;
    impl Rng for Highest {
        fn bits(&mut self) -> u64 {
            500
        }
    }

    fn step(action: Action) -> Step {
        Step { stage: Stage::Fill, path: RelPath::parse("a").unwrap(), action }
    }

    #[test]
    fn a_refused_path_waits_five_times_longer_each_time_up_to_a_day() {
        let mut troubles = Troubles::default();
        let step = step(Action::Forget);
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..8 {
            troubles.refused(&step, String::new(), now);
            let (1, Some(wait)) = troubles.waiting(now) else { panic!() };
            assert!(troubles.waits(&step, now));
            now += wait;
            assert!(!troubles.waits(&step, now));
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [25, 125, 625, 3125, 15_625, 78_125, 86_400, 86_400]);
    }

    #[test]
    fn something_else_at_a_refused_path_need_not_wait() {
        let mut troubles = Troubles::default();
        troubles.refused(&step(Action::Forget), String::new(), Duration::ZERO);
        assert!(!troubles.waits(&step(Action::RemoveLocalDirectory), Duration::ZERO));
    }

    #[test]
    fn a_refusal_is_tried_again_where_others_do_something_and_its_wait_still_grows() {
        let mut troubles = Troubles::default();
        let step = step(Action::Forget);
        let places = |place: &str| BTreeSet::from([RelPath::parse(place).unwrap()]);
        troubles.refused(&step, String::new(), Duration::ZERO);
        troubles.touched(&places("elsewhere"));
        assert!(troubles.waits(&step, Duration::ZERO));
        troubles.touched(&places(&step.path.to_string()));
        assert!(!troubles.waits(&step, Duration::ZERO));
        troubles.refused(&step, String::new(), Duration::ZERO);
        assert_eq!(troubles.waiting(Duration::ZERO), (1, Some(Duration::from_secs(125))));
        // One that changes all the time is touched all the time.
        let mut troubles = Troubles::default();
        while troubles.stale(&step.path, String::new(), Duration::ZERO) {}
        troubles.touched(&places(&step.path.to_string()));
        assert!(troubles.waits(&step, Duration::ZERO));
    }

    #[test]
    fn a_path_that_keeps_changing_is_left_alone_for_a_while() {
        let mut troubles = Troubles::default();
        let path = RelPath::parse("a").unwrap();
        let waits: Vec<_> = (0..12)
            .map(|_| {
                troubles.stale(&path, String::new(), Duration::ZERO);
                troubles.waiting(Duration::ZERO).1.map_or(0, |wait| wait.as_secs())
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        troubles.cured(&path);
        assert!(troubles.stale(&path, String::new(), Duration::ZERO));
    }

    #[test]
    fn what_went_wrong_is_told_until_it_goes_well() {
        let (mut troubles, path) = (Troubles::default(), RelPath::parse("a").unwrap());
        for _ in 0..STALE_AT_ONCE {
            troubles.stale(&path, "it had changed".into(), Duration::ZERO);
            assert_eq!(troubles.told(9), [], "it is tried again at once");
        }
        troubles.stale(&path, "it had changed".into(), Duration::ZERO);
        assert_eq!(troubles.told(9), [(path.clone(), "it had changed".to_owned())]);
        let step = step(Action::Forget);
        troubles.refused(&step, "no".into(), Duration::ZERO);
        troubles.no_room(&step, "no room".into(), Duration::ZERO);
        assert_eq!(troubles.told(9), [(path.clone(), "no room".to_owned())], "the last word");
        assert_eq!(troubles.told(0), []);
        troubles.keep_only(&[step]);
        assert_eq!(troubles.told(9).len(), 1);
        troubles.cured(&path);
        assert_eq!(troubles.told(9), []);
    }

    #[test]
    fn a_lost_server_is_asked_less_and_less_often_and_never_earlier_than_it_wants() {
        let mut patience = Patience::default();
        let asked: Vec<_> =
            (0..12).map(|_| patience.lost(None, &mut Highest).as_millis()).collect();
        assert_eq!(asked[0], 1000);
        assert!(asked.is_sorted() && asked[11] >= 150_000 && asked[11] <= 300_000, "{asked:?}");
        let long = Duration::from_secs(1000);
        assert_eq!(patience.lost(Some(long), &mut Highest), long);
        patience.regained();
        assert_eq!(patience.lost(None, &mut Highest).as_millis(), 1000);
    }
}
