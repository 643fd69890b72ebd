//! `subagent_run`: the real binary against the embedded control plane, with a scripted agent CLI
//! that speaks as Claude Code does. What is compared are the rows.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod cancels;
mod changes;
mod ends;
mod events;
mod floods;
mod full_control;
mod policy;
mod runs;
mod scene;
mod stops;
mod targets;
