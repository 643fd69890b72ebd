//! Decides what goes when files pile up. Pure: what was found in, what to remove out.

use std::time::Duration;

/// What a kind of entries may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// An entry that was not changed for longer goes.
    pub(crate) age: Duration,
    /// Bytes of all together; beyond, those go first that were not changed for longest.
    pub(crate) bytes: u64,
    /// An entry that was changed since is never touched: somebody may be at it.
    pub(crate) spare: Duration,
}

/// An entry as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// With all that is below it.
    pub(crate) bytes: u64,
    /// Since the last change of it or of anything below it.
    pub(crate) age: Duration,
    /// A job or a process works with it.
    pub(crate) in_use: bool,
    /// Nothing refers to it any more, whatever its age.
    pub(crate) stray: bool,
}

/// The places in `found` of what is to be removed, the oldest first.
pub(crate) fn outgoing(found: &[Found], bounds: Bounds) -> Vec<usize> {
    let mut by_age: Vec<usize> = (0..found.len()).collect();
    by_age.sort_by_key(|at| std::cmp::Reverse(found.get(*at).map(|entry| entry.age)));
    let mut bytes = found.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.bytes));
    let mut outgoing = Vec::new();
    for at in by_age {
        let Some(entry) = found.get(at) else { continue };
        let may_go = !entry.in_use && (entry.stray || entry.age > bounds.spare);
        if may_go && (entry.stray || entry.age > bounds.age || bytes > bounds.bytes) {
            bytes = bytes.saturating_sub(entry.bytes);
            outgoing.push(at);
        }
    }
    outgoing
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds =
        Bounds { age: Duration::from_secs(100), bytes: 50, spare: Duration::from_secs(10) };

    fn found(bytes: u64, age: u64) -> Found {
        Found { bytes, age: Duration::from_secs(age), in_use: false, stray: false }
    }

    #[test]
    fn the_old_go_and_then_the_oldest_until_there_is_room() {
        let all = [found(1, 101), found(30, 50), found(30, 60), found(10, 20)];
        assert_eq!(outgoing(&all, BOUNDS), [0, 2]);
        assert!(outgoing(&[found(1, 100)], BOUNDS).is_empty());
    }

    #[test]
    fn what_is_in_use_or_young_stays_whatever_it_takes() {
        let busy = Found { in_use: true, ..found(1000, 1000) };
        let young = found(1000, 10);
        assert!(outgoing(&[busy, young], BOUNDS).is_empty());
        let stray = Found { stray: true, ..found(0, 0) };
        assert_eq!(outgoing(&[stray, Found { in_use: true, ..stray }], BOUNDS), [0]);
    }

    prop_compose! {
        fn any_found()(
            bytes in 0_u64..100, age in 0_u64..200, in_use: bool, stray in prop::bool::weighted(0.1),
        ) -> Found {
            Found { bytes, age: Duration::from_secs(age), in_use, stray }
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_and_nobody_is_disturbed(all in prop::collection::vec(any_found(), 0..40)) {
            let out = outgoing(&all, BOUNDS);
            for at in &out {
                prop_assert!(!all[*at].in_use, "in use");
                prop_assert!(all[*at].stray || all[*at].age > BOUNDS.spare, "young");
            }
            let stays: Vec<_> = (0..all.len()).filter(|at| !out.contains(at)).collect();
            let may_go = |at: &&usize| !all[**at].in_use && all[**at].age > BOUNDS.spare;
            for at in stays.iter().filter(may_go) {
                prop_assert!(all[*at].age <= BOUNDS.age, "too old");
            }
            let bytes: u64 = stays.iter().map(|at| all[*at].bytes).sum();
            let none_may_go = !stays.iter().any(|at| may_go(&at));
            prop_assert!(bytes <= BOUNDS.bytes || none_may_go, "too much");
            // Nothing goes in vain: with what went last there was still too much, or it was due.
            if let Some(last) = out.last() {
                let due = all[*last].stray || all[*last].age > BOUNDS.age;
                prop_assert!(due || bytes + all[*last].bytes > BOUNDS.bytes, "in vain");
            }
            // A second sweep finds nothing to do.
            let rest: Vec<_> = stays.iter().map(|at| all[*at]).collect();
            prop_assert_eq!(outgoing(&rest, BOUNDS), Vec::<usize>::new());
        }
    }
}
