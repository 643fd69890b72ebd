//! Stories of users: the real binary against the embedded control plane.

#[path = "../common/mod.rs"]
mod common;

mod config_files;
mod pairing;
mod running;
mod sandbox_up;
mod shell_exec;
mod stopping;
