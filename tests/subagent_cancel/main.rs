//! Subagents' runs that are cancelled, that fail with their job, and whose gateway was killed: the
//! real binary against the embedded control plane, with fake agent CLIs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a promise that is broken fails; it measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod answers;
mod failures;
mod races;
mod restarts;
mod row_ended;
mod running;
mod scene;
