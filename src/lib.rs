//! Panorama's gateway: pairs a machine with a team, takes jobs from the team's backend, runs them
//! as child processes and brings back results.
//!
//! The modules are rooms of one house; dependencies point down only:
//! `cli` → `sandbox`, `runtime` → `jobs` → `doctor` → `guest`, `providers`, `process`, `backend` →
//! `config`, `observe`,
//! `task`, `fs`, `phoenix`, `clock`, `model`. `docs/ARCHITECTURE.md` has the picture.

pub mod backend;
pub mod cli;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod drive_sync;
pub mod fs;
pub mod guest;
pub mod jobs;
pub mod model;
pub mod observe;
pub mod phoenix;
pub mod process;
pub mod providers;
pub mod runtime;
pub mod sandbox;
pub mod service;
mod sqlite;
pub mod task;

/// The gateway's own version, as `--version`, heartbeats and status report it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
