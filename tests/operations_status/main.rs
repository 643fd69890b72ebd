//! Operating a gateway: metrics, probes, the status socket, stopping it, signals in every order.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod drive_sync;
mod long_paths;
mod metrics;
mod readiness;
mod requests;
mod scene;
mod signals;
mod stop;
#[path = "../drive_sync/vm.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod vm;
