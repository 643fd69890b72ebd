//! Drives that two machines mirror, with the real engine on real folders and the control plane.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../common/mod.rs"]
mod common;

mod scene;
mod stories;
