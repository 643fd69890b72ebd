//! What the gateway promises, tested by killing it, cutting it off and filling its disk: the real
//! binary, real processes, a real file system. What is counted and measured is printed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a promise that is broken fails; it measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod disk_full;
mod exactly_once;
mod late_claim;
mod orphans;
mod pipes;
