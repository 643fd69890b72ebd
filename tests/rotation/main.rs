//! Refresh tokens rotate without loss: gateways that are killed in the middle of it, processes that
//! refresh at once, pairings that are revoked.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it prints what it counted and measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "the stories use the rest of it")]
mod common;

mod context;
mod kills;
mod proxy;
mod revoked;
mod together;
