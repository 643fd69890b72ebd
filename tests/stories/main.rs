//! Stories of users: the real binary against the embedded control plane.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a story that goes wrong fails; it measures real time"
)]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod common;

mod audit;
mod config_files;
mod copied_config;
mod doctor;
mod logs;
mod model_run;
mod pairing;
mod providers;
mod realtime;
mod running;
mod sandbox_up;
mod shell_exec;
mod smoke;
mod stopping;
