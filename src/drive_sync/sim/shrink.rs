//! Cuts a failing list of actions down while it still fails in the same way.

use super::Case;
use super::actions::Action;
use super::checks::Invariant;

/// Runs at most.
const TRIES: usize = 3_000;

/// The shortest list found that still violates this invariant.
pub(super) fn shrink(case: &Case, invariant: Invariant) -> Case {
    let mut tries = 0;
    let mut fails = |case: &Case| {
        tries += 1;
        let violations = case.run(false).violations;
        (violations.iter().any(|violation| violation.invariant == invariant), tries < TRIES)
    };
    let mut best = case.clone();
    let mut size = best.entries.len().div_ceil(2);
    loop {
        let mut from = 0;
        let mut cut = false;
        while from < best.entries.len() {
            let mut less = best.clone();
            let to = (from + size).min(less.entries.len());
            less.entries.drain(from..to);
            let (still, go_on) = fails(&less);
            if still {
                best = less;
                cut = true;
            } else {
                from = to;
            }
            if !go_on {
                return best;
            }
        }
        if size == 1 && !cut {
            break;
        }
        size = size.div_ceil(2);
    }
    for index in 0..best.entries.len() {
        let mut less = best.clone();
        less.entries[index].wait = 0;
        if best.entries[index].wait > 0 && fails(&less).0 {
            best = less;
        }
    }
    best
}

/// The list as people read it.
pub(super) fn list(case: &Case) -> String {
    let mut text = String::new();
    for entry in &case.entries {
        let line = match &entry.action {
            Action::Rest => "rest\n".to_owned(),
            action => format!("after {:3}: {action:?}\n", entry.wait),
        };
        text.push_str(&line);
    }
    text
}
