//! A new version is installed while a gateway runs: it hands over, or goes on. The real binary, and
//! real files with another version, good and bad.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a story that cannot be told fails; it measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod bad;
mod good;
mod kills;
mod scene;
mod service;
mod versions;
