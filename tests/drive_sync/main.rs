//! Drives that two machines mirror, with the real engine on real folders and the control plane.

#[path = "../common/mod.rs"]
mod common;

mod scene;
mod stories;
