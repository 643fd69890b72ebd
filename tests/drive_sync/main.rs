//! Drives that two machines mirror, with the real engine on real folders and the control plane.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a drive that is not kept in step fails; it measures real time"
)]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../common/mod.rs"]
mod common;

mod descriptors;
mod line;
mod memory;
mod mounts;
mod nobody;
mod odd_files;
mod rights;
mod roots;
mod scene;
mod stories;
mod terminal;
mod transfers;
#[expect(dead_code, reason = "the torture uses the rest")]
mod vm;
mod vms;
