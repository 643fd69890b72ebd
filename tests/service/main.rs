//! The gateway as a service: its talk with the service manager, and `service install`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod install;
mod protocol;
mod real;

mod tools;
mod verify;
