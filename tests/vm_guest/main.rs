//! Managed VMs: how a gateway gets its identity there, what it refuses, how it confines what it runs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod bootstrap;
mod confined;
mod refused;
mod scene;
mod secrets;
